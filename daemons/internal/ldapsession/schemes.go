package ldapsession

import (
	"bytes"
	"crypto/md5"
	"crypto/pbkdf2"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/subtle"
	"encoding/base64"
	"hash"
	"strconv"
	"strings"

	"github.com/GehirnInc/crypt"
	"github.com/GehirnInc/crypt/md5_crypt"
	"github.com/GehirnInc/crypt/sha256_crypt"
	"github.com/GehirnInc/crypt/sha512_crypt"
	"golang.org/x/crypto/argon2"
	"golang.org/x/crypto/bcrypt"
)

// Stored passwords of other servers, which are verified and, at the next good bind, replaced:
//
//	{MD5}, {SHA}, {SHA256}, {SHA384}, {SHA512}         base64 of the hash
//	{SMD5}, {SSHA}, {SSHA256}, {SSHA384}, {SSHA512}    base64 of hash and salt
//	{CRYPT}$1$, $5$, $6$, $2a$, $2b$, $2y$             as of crypt(3): MD5, SHA-256, SHA-512, bcrypt
//	{PBKDF2}, {PBKDF2-SHA1|256|512}<rounds>$<salt>$<hash>    base64 with "." for "+", without padding
//
// and Dovecot's names for some of them. The scheme is in any case. yescrypt is not here: no library that was read
// offers it.

const (
	maxCryptRounds  = 1000000
	maxBcryptCost   = 15
	maxPBKDF2Rounds = 10_000_000
)

type digest struct {
	make   func() hash.Hash
	salted bool
}

var digests = map[string]digest{
	"MD5": {md5.New, false}, "SMD5": {md5.New, true},
	"SHA": {sha1.New, false}, "SSHA": {sha1.New, true},
	"SHA256": {sha256.New, false}, "SSHA256": {sha256.New, true},
	"SHA384": {sha512.New384, false}, "SSHA384": {sha512.New384, true},
	"SHA512": {sha512.New, false}, "SSHA512": {sha512.New, true},
}

var derived = map[string]func() hash.Hash{
	"PBKDF2": sha1.New, "PBKDF2-SHA1": sha1.New, "PBKDF2-SHA256": sha256.New, "PBKDF2-SHA512": sha512.New,
}

var otherNames = map[string]string{
	"ARGON2ID": "ARGON2", "BLF-CRYPT": "CRYPT", "MD5-CRYPT": "CRYPT", "SHA256-CRYPT": "CRYPT", "SHA512-CRYPT": "CRYPT",
}

func cutScheme(value []byte) (scheme string, rest []byte, ok bool) {
	if len(value) < 3 || value[0] != '{' {
		return "", nil, false
	}
	i := bytes.IndexByte(value, '}')
	if i < 0 {
		return "", nil, false
	}
	scheme = strings.ToUpper(string(value[1:i]))
	if other, is := otherNames[scheme]; is {
		scheme = other
	}
	return scheme, value[i+1:], true
}

// IsHashed reports whether a value is a stored password of a scheme known here.
func IsHashed(value []byte) bool {
	scheme, rest, ok := cutScheme(value)
	if !ok {
		return false
	}
	switch scheme {
	case "ARGON2":
		_, err := parseArgon(rest)
		return err == nil
	case "CRYPT":
		return crypter(rest) != nil
	}
	if d, is := digests[scheme]; is {
		_, _, ok := d.split(rest)
		return ok
	}
	_, _, _, ok = splitPBKDF2(scheme, rest)
	return ok
}

func (d digest) split(text []byte) (sum, salt []byte, ok bool) {
	b, err := base64.StdEncoding.DecodeString(string(text))
	n := d.make().Size()
	if err != nil || len(b) < n || (len(b) > n) != d.salted || len(b) > n+64 {
		return nil, nil, false
	}
	return b[:n], b[n:], true
}

// splitPBKDF2 reads what OpenLDAP's pw-pbkdf2 writes.
func splitPBKDF2(scheme string, text []byte) (rounds int, salt, sum []byte, ok bool) {
	make, is := derived[scheme]
	p := strings.Split(string(text), "$")
	if !is || len(p) != 3 {
		return 0, nil, nil, false
	}
	rounds, err := strconv.Atoi(p[0])
	if err != nil || rounds < 1 || rounds > maxPBKDF2Rounds {
		return 0, nil, nil, false
	}
	decode := func(s string) ([]byte, error) {
		return base64.RawStdEncoding.DecodeString(strings.TrimRight(strings.ReplaceAll(s, ".", "+"), "="))
	}
	salt, err1 := decode(p[1])
	sum, err2 := decode(p[2])
	return rounds, salt, sum, err1 == nil && err2 == nil && len(sum) >= 16 && len(sum) <= make().Size()
}

// crypter compares with a crypt(3) hash; nil for one that is not known or too dear.
func crypter(b []byte) func(hash string, password []byte) error {
	s := string(b)
	for _, f := range strings.Split(s, "$") {
		if r, ok := strings.CutPrefix(f, "rounds="); ok {
			if n, err := strconv.Atoi(r); err != nil || n > maxCryptRounds {
				return nil
			}
		}
	}
	var c crypt.Crypter
	switch {
	case strings.HasPrefix(s, "$6$"):
		c = sha512_crypt.New()
	case strings.HasPrefix(s, "$5$"):
		c = sha256_crypt.New()
	case strings.HasPrefix(s, "$1$"):
		c = md5_crypt.New()
	case strings.HasPrefix(s, "$2a$"), strings.HasPrefix(s, "$2b$"), strings.HasPrefix(s, "$2y$"):
		if cost, err := bcrypt.Cost(b); err != nil || cost > maxBcryptCost {
			return nil
		}
		return func(hash string, password []byte) error {
			return bcrypt.CompareHashAndPassword([]byte(hash), password[:min(len(password), 72)]) // as crypt(3) does
		}
	default:
		return nil
	}
	return c.Verify
}

// verify compares a password with one stored form. slow tells that it took the time of argon2.
func verify(stored, password []byte) (match, slow bool) {
	scheme, rest, ok := cutScheme(stored)
	if !ok {
		return false, false
	}
	switch scheme {
	case "CLEARTEXT":
		a, b := sha256.Sum256(rest), sha256.Sum256(password)
		return subtle.ConstantTimeCompare(a[:], b[:]) == 1, false
	case "ARGON2":
		h, err := parseArgon(rest)
		if err != nil {
			return false, false
		}
		got := argon2.IDKey(password, h.salt, uint32(h.Passes), uint32(h.Memory), uint8(h.Threads), uint32(len(h.hash)))
		return subtle.ConstantTimeCompare(got, h.hash) == 1, true
	case "CRYPT":
		if compare := crypter(rest); compare != nil {
			return compare(string(rest), password) == nil, false
		}
		return false, false
	}
	if d, is := digests[scheme]; is {
		sum, salt, ok := d.split(rest)
		h := d.make()
		_, _ = h.Write(password) // never fails (hash.Hash)
		_, _ = h.Write(salt)
		return ok && subtle.ConstantTimeCompare(h.Sum(nil), sum) == 1, false
	}
	if rounds, salt, sum, ok := splitPBKDF2(scheme, rest); ok {
		got, err := pbkdf2.Key(derived[scheme], string(password), salt, rounds, len(sum))
		return err == nil && subtle.ConstantTimeCompare(got, sum) == 1, false
	}
	return false, false
}
