package ldapsession

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/GehirnInc/crypt"
	"github.com/GehirnInc/crypt/md5_crypt"
	"github.com/GehirnInc/crypt/sha256_crypt"
	"github.com/GehirnInc/crypt/sha512_crypt"
	"golang.org/x/crypto/argon2"
)

// A stored password is "{SCHEME}" and what the scheme makes of it (RFC 2307 §5.3):
//
//	{ARGON2}$argon2id$v=19$m=<KiB>,t=<passes>,p=<threads>$<salt>$<hash>    base64 without padding
//	{SSHA}, {SSHA256}, {SSHA512}    base64 of hash and salt
//	{CRYPT}$1$, $5$, $6$            as of crypt(3)
//
// New ones are made with the first; the others are verified.

// PasswordParameters are the cost of argon2id.
type PasswordParameters struct {
	Memory  int // KiB
	Passes  int
	Threads int
}

// DefaultPasswordParameters: 19 MiB, two passes, one thread.
var DefaultPasswordParameters = PasswordParameters{Memory: 19 << 10, Passes: 2, Threads: 1}

// Bounds of what a stored hash may cost, so that one in the directory cannot take the server down.
const (
	maxArgonMemory = 1 << 20 // KiB
	maxArgonPasses = 100
	maxCryptRounds = 1000000
	maxPassword    = 1024
)

const (
	saltSize = 16
	hashSize = 32
)

// clearScheme marks a password in clear, which only the root DN's may be: it comes from a file. It is
// not a scheme of stored passwords: what an entry has under this name is hashed like any other text,
// and what another server put there is refused.
const clearScheme = "{CLEARTEXT}"

// HashPassword makes the stored form of a password.
func HashPassword(p PasswordParameters, password []byte) string {
	salt := make([]byte, saltSize)
	if _, err := rand.Read(salt); err != nil {
		panic(err) // the kernel gives random numbers, or the process cannot live
	}
	h := argon2.IDKey(password, salt, uint32(p.Passes), uint32(p.Memory), uint8(p.Threads), hashSize)
	return fmt.Sprintf("{ARGON2}$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version, p.Memory, p.Passes, p.Threads,
		base64.RawStdEncoding.EncodeToString(salt), base64.RawStdEncoding.EncodeToString(h))
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
	case "SSHA", "SSHA256", "SSHA512":
		b, err := base64.StdEncoding.DecodeString(string(rest))
		return err == nil && len(b) > saltedSize(scheme)
	case "CRYPT":
		return crypter(rest) != nil
	}
	return false
}

func cutScheme(value []byte) (scheme string, rest []byte, ok bool) {
	if len(value) < 3 || value[0] != '{' {
		return "", nil, false
	}
	i := bytes.IndexByte(value, '}')
	if i < 0 {
		return "", nil, false
	}
	return strings.ToUpper(string(value[1:i])), value[i+1:], true
}

func saltedSize(scheme string) int {
	return map[string]int{"SSHA": sha1.Size, "SSHA256": sha256.Size, "SSHA512": sha512.Size}[scheme]
}

type argonHash struct {
	PasswordParameters
	salt, hash []byte
}

var errHash = errors.New("not a password hash that is understood")

func parseArgon(b []byte) (h argonHash, err error) {
	p := strings.Split(string(b), "$") // "", argon2id, v=19, m=..,t=..,p=.., salt, hash
	if len(p) != 6 || p[0] != "" || p[1] != "argon2id" || p[2] != "v="+strconv.Itoa(argon2.Version) {
		return h, errHash
	}
	if n, err := fmt.Sscanf(p[3], "m=%d,t=%d,p=%d", &h.Memory, &h.Passes, &h.Threads); n != 3 || err != nil {
		return h, errHash
	}
	if h.Memory < 8 || h.Memory > maxArgonMemory || h.Passes < 1 || h.Passes > maxArgonPasses || h.Threads < 1 || h.Threads > 64 {
		return h, errHash
	}
	if h.salt, err = base64.RawStdEncoding.DecodeString(p[4]); err != nil || len(h.salt) < 8 || len(h.salt) > 64 {
		return h, errHash
	}
	if h.hash, err = base64.RawStdEncoding.DecodeString(p[5]); err != nil || len(h.hash) < 16 || len(h.hash) > 64 {
		return h, errHash
	}
	return h, nil
}

// crypter gives the function for a crypt(3) hash, nil for one that is not known or too dear.
func crypter(b []byte) crypt.Crypter {
	s := string(b)
	for _, f := range strings.Split(s, "$") {
		if r, ok := strings.CutPrefix(f, "rounds="); ok {
			if n, err := strconv.Atoi(r); err != nil || n > maxCryptRounds {
				return nil
			}
		}
	}
	switch {
	case strings.HasPrefix(s, "$6$"):
		return sha512_crypt.New()
	case strings.HasPrefix(s, "$5$"):
		return sha256_crypt.New()
	case strings.HasPrefix(s, "$1$"):
		return md5_crypt.New()
	}
	return nil
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
	case "SSHA", "SSHA256", "SSHA512":
		b, err := base64.StdEncoding.DecodeString(string(rest))
		n := saltedSize(scheme)
		if err != nil || len(b) <= n {
			return false, false
		}
		salted := append(bytes.Clone(password), b[n:]...)
		var got []byte
		switch scheme {
		case "SSHA":
			h := sha1.Sum(salted)
			got = h[:]
		case "SSHA256":
			h := sha256.Sum256(salted)
			got = h[:]
		default:
			h := sha512.Sum512(salted)
			got = h[:]
		}
		return subtle.ConstantTimeCompare(got, b[:n]) == 1, false
	case "CRYPT":
		if c := crypter(rest); c != nil {
			return c.Verify(string(rest), password) == nil, false
		}
	}
	return false, false
}

// ErrBusy says that too many passwords wait to be verified.
var ErrBusy = errors.New("too many passwords wait to be verified")

// Passwords is the bounded pool in which passwords are hashed and verified.
type Passwords struct {
	param   PasswordParameters
	slots   chan struct{}
	waiting atomic.Int64
	queue   int64
	dummy   []byte
}

// NewPasswords makes a pool. workers is how many work at once, 0 for one per processor; queue is how
// many more may wait.
func NewPasswords(p PasswordParameters, workers, queue int) *Passwords {
	if workers == 0 {
		workers = runtime.GOMAXPROCS(0)
	}
	return &Passwords{param: p, slots: make(chan struct{}, workers), queue: int64(queue),
		dummy: []byte(HashPassword(p, []byte("nobody has this password")))}
}

func (p *Passwords) enter(ctx context.Context) error {
	if p.waiting.Add(1) > p.queue+int64(cap(p.slots)) {
		p.waiting.Add(-1)
		return ErrBusy
	}
	select {
	case p.slots <- struct{}{}:
		return nil
	case <-ctx.Done():
		p.waiting.Add(-1)
		return ctx.Err()
	}
}

func (p *Passwords) leave() {
	<-p.slots
	p.waiting.Add(-1)
}

// Waiting is how many passwords are in the pool, at work or waiting.
func (p *Passwords) Waiting() int { return int(p.waiting.Load()) }

// Verify reports whether the password is one of the stored ones. It takes the time of argon2id even
// when there are none, so that the time does not tell whether a name exists. The error is ErrBusy, or
// that of ctx.
func (p *Passwords) Verify(ctx context.Context, stored [][]byte, password []byte) (bool, error) {
	if len(password) > maxPassword {
		return false, nil
	}
	if err := p.enter(ctx); err != nil {
		return false, err
	}
	defer p.leave()
	match, slow := false, false
	for _, s := range stored {
		m, sl := verify(s, password)
		match, slow = match || m, slow || sl
	}
	if !slow {
		verify(p.dummy, password)
	}
	return match, nil
}

// Hash makes the stored form of a password. The error is ErrBusy, or that of ctx.
func (p *Passwords) Hash(ctx context.Context, password []byte) ([]byte, error) {
	if err := p.enter(ctx); err != nil {
		return nil, err
	}
	defer p.leave()
	return []byte(HashPassword(p.param, password)), nil
}
