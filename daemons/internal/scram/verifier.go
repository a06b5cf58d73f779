package scram

import (
	"bytes"
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha1" //nolint:staticcheck // RFC 5802: HMAC-SHA-1, whose strength does not rest on collisions
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"hash"
	"strconv"
	"strings"
)

// Hash is the hash function of a mechanism.
type Hash struct {
	// Name is that of the mechanism without channel binding: "SCRAM-SHA-256".
	Name string
	size int
	make func() hash.Hash
}

// The hash functions of RFC 5802 and RFC 7677.
var (
	SHA1   = &Hash{Name: "SCRAM-SHA-1", size: sha1.Size, make: sha1.New}
	SHA256 = &Hash{Name: "SCRAM-SHA-256", size: sha256.Size, make: sha256.New}
)

// Plus is what the name of a mechanism with channel binding ends in.
const Plus = "-PLUS"

// ByName finds a hash function by the name of a mechanism, with or without Plus; nil if it is not known.
func ByName(mechanism string) (h *Hash, plus bool) {
	mechanism, plus = strings.CutSuffix(strings.ToUpper(mechanism), Plus)
	for _, h := range []*Hash{SHA256, SHA1} {
		if h.Name == mechanism {
			return h, plus
		}
	}
	return nil, false
}

func (h *Hash) hmac(key []byte, parts ...string) []byte {
	m := hmac.New(h.make, key)
	for _, p := range parts {
		_, _ = m.Write([]byte(p)) // never fails (hash.Hash)
	}
	return m.Sum(nil)
}

func (h *Hash) sum(b []byte) []byte {
	s := h.make()
	_, _ = s.Write(b)
	return s.Sum(nil)
}

// Bounds of a verifier. RFC 7677 §4 asks for at least 4096 iterations; older verifiers may have fewer.
const (
	MinIterations     = 1
	MaxIterations     = 10_000_000
	DefaultIterations = 10_000
	saltSize          = 16
	maxSalt           = 128
	maxVerifier       = 512 // octets of its text
)

// Verifier is what a server stores of a password.
type Verifier struct {
	Hash       *Hash
	Iterations int
	Salt       []byte
	StoredKey  []byte
	ServerKey  []byte
}

// New makes a verifier with a random salt.
func New(h *Hash, password string, iterations int) Verifier {
	salt := make([]byte, saltSize)
	_, _ = rand.Read(salt) // never fails: it ends the process instead
	return Make(h, password, salt, iterations)
}

// Make makes a verifier with a given salt (RFC 5802 §3). The password is prepared first; one that cannot be (RFC 4013
// prohibits it) is taken as it is, as other implementations do.
func Make(h *Hash, password string, salt []byte, iterations int) Verifier {
	salted := h.salted(password, salt, iterations)
	return Verifier{Hash: h, Iterations: iterations, Salt: salt,
		StoredKey: h.sum(h.hmac(salted, "Client Key")), ServerKey: h.hmac(salted, "Server Key")}
}

func (h *Hash) salted(password string, salt []byte, iterations int) []byte {
	if p, err := Prepare(password); err == nil {
		password = p
	}
	key, err := pbkdf2.Key(h.make, password, salt, iterations, h.size)
	if err != nil {
		panic(err) // the length is that of the hash
	}
	return key
}

// Fake is the verifier of a name that has none: the salt depends on the name and the key only, so that asking again
// tells nothing. No password matches it.
func Fake(h *Hash, key []byte, name string, iterations int) Verifier {
	salt := sha256.Sum256(append(SHA256.hmac(key, "salt", h.Name, "\x00", strings.ToLower(name)), key...))
	never := make([]byte, 2*h.size)
	_, _ = rand.Read(never)
	return Verifier{Hash: h, Iterations: iterations, Salt: salt[:saltSize], StoredKey: never[:h.size], ServerKey: never[h.size:]}
}

// String is the text of RFC 5803 §2.
func (v Verifier) String() string {
	e := base64.StdEncoding.EncodeToString
	return fmt.Sprintf("%s$%d:%s$%s:%s", v.Hash.Name, v.Iterations, e(v.Salt), e(v.StoredKey), e(v.ServerKey))
}

// Is reports whether the verifier was made of the password.
func (v Verifier) Is(password string) bool {
	w := Make(v.Hash, password, v.Salt, v.Iterations)
	return subtle.ConstantTimeCompare(v.StoredKey, w.StoredKey) == 1 && subtle.ConstantTimeCompare(v.ServerKey, w.ServerKey) == 1
}

// ErrVerifier says that a text is no verifier that is understood here.
var ErrVerifier = errors.New("not a SCRAM verifier (RFC 5803)")

// Parse reads the text of a verifier:
//
//	scram-mech "$" iter-count ":" salt "$" stored-key ":" server-key
//
// White space around the parts is allowed (RFC 3112 §2.2). The error is ErrVerifier.
func Parse(text string) (Verifier, error) {
	var v Verifier
	if len(text) > maxVerifier {
		return v, ErrVerifier
	}
	part := strings.Split(text, "$")
	if len(part) != 3 {
		return v, ErrVerifier
	}
	h, plus := ByName(strings.TrimSpace(part[0]))
	iterations, salt, ok1 := strings.Cut(strings.TrimSpace(part[1]), ":")
	stored, server, ok2 := strings.Cut(strings.TrimSpace(part[2]), ":")
	if h == nil || plus || !ok1 || !ok2 {
		return v, ErrVerifier
	}
	n, err := strconv.Atoi(iterations)
	if err != nil || n < MinIterations || n > MaxIterations || iterations[0] == '+' {
		return v, ErrVerifier
	}
	v = Verifier{Hash: h, Iterations: n}
	for _, f := range []struct {
		to       *[]byte
		text     string
		min, max int
	}{{&v.Salt, salt, 1, maxSalt}, {&v.StoredKey, stored, h.size, h.size}, {&v.ServerKey, server, h.size, h.size}} {
		b, err := base64.StdEncoding.Strict().DecodeString(f.text)
		if err != nil || len(b) < f.min || len(b) > f.max {
			return Verifier{}, ErrVerifier
		}
		*f.to = b
	}
	return v, nil
}

// Find gives the verifier of a hash function among stored texts; other ones are passed over.
func Find(h *Hash, stored [][]byte) (Verifier, bool) {
	for _, s := range stored {
		if !bytes.Contains(s, []byte("$")) {
			continue
		}
		if v, err := Parse(string(s)); err == nil && v.Hash == h {
			return v, true
		}
	}
	return Verifier{}, false
}

// FakeKey writes the key of Fake, with the iterations that real verifiers have, as servers share it:
//
//	iterations ":" base64
func FakeKey(key []byte, iterations int) string {
	return strconv.Itoa(iterations) + ":" + base64.StdEncoding.EncodeToString(key)
}

// ParseFakeKey reads what FakeKey wrote. The error is ErrVerifier.
func ParseFakeKey(text string) (key []byte, iterations int, err error) {
	n, k, _ := strings.Cut(text, ":")
	iterations, err = strconv.Atoi(n)
	if err != nil || iterations < MinIterations || iterations > MaxIterations {
		return nil, 0, ErrVerifier
	}
	if key, err = base64.StdEncoding.DecodeString(k); err != nil || len(key) < 16 {
		return nil, 0, ErrVerifier
	}
	return key, iterations, nil
}
