// Package token makes and checks the tokens with which a client logs in instead of a password: those of our own webmail servers, and
// those of identity providers.
//
// # Our own tokens
//
// JSON Web Tokens (RFC 7519), signed with Ed25519 (RFC 8037), that live for minutes. Each webmail server has a key pair of its own. The
// private key never leaves it; the public one is a value of shoalTokenKey in its entry of the directory, where only itself and the
// operators write, and where every server that checks tokens reads:
//
//	value = "1" SP kid SP "EdDSA" SP base64url(public key) SP not-after     ; not-after: seconds since 1970, 0: none
//	kid   = 8*40( "a"-"z" / "0"-"9" / "-" )
//
// A value that begins with another number is of a newer version and passed over. To rotate, a server adds a value, signs with the new
// key a minute later, and takes the old value away when the last token of it has expired. Deleting a server's entry ends its tokens.
//
//	header   alg EdDSA, kid, typ "shoal-session+jwt"
//	claims   iss   "shoal:" and the name of the server that signed
//	         aud   "shoal"
//	         sub   shoalAccountId
//	         iat, exp, jti
//	         scope services, divided by blanks (RFC 8693 §4.2): imap, pop, smtp, sieve, webmail
//	         ver   1
//	         epoch shoalSessionEpoch of the account, cred its shoalCredentialVersion, when the token was made
//
// A token is worth nothing any more when one of the last two has moved: a password change and an end of all sessions take effect on every
// server.
//
// # Tokens of identity providers
//
// provider.go. JWTs are checked by the provider's keys (JWKS, RFC 7517), others by asking it (RFC 7662).
//
// Left out on purpose: encrypted tokens, shared secrets (HS256), "none".
package token

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/base32"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

// Errors, for errors.Is.
var (
	// ErrInvalid: the token is none, is not from whom it says, has expired, or is not for us.
	ErrInvalid = errors.New("token is not valid")
	// ErrUnavailable: it cannot be said now.
	ErrUnavailable = errors.New("token cannot be checked at the moment")
)

const (
	typ      = "shoal-session+jwt"
	audience = "shoal"
	issuer   = "shoal:"
	// MaxLife bounds our own tokens, whatever they say of themselves.
	MaxLife = time.Hour
	// Leeway is how far the clocks of servers may differ.
	Leeway = 30 * time.Second
	// MaxLength bounds a token, in bytes.
	MaxLength = 10 << 10
)

var kidPattern = regexp.MustCompile(`^[a-z0-9-]{8,40}$`)

// Key is a key pair that signs tokens.
type Key struct {
	ID      string
	Private ed25519.PrivateKey
}

// NewKey makes a key with a random id.
func NewKey() (*Key, error) {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make a key: %w", err)
	}
	return &Key{ID: random(10), Private: private}, nil
}

// random is a name of n random bytes.
func random(n int) string {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails: it ends the process instead
	return strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(b))
}

// Public is the value of shoalTokenKey for the key.
func (k *Key) Public(notAfter time.Time) string {
	p := PublicKey{ID: k.ID, Key: k.Private.Public().(ed25519.PublicKey), NotAfter: notAfter}
	return p.String()
}

const (
	pemType = "PRIVATE KEY"
	pemID   = "Key-Id"
)

// Save writes the key to a file of PEM (PKCS #8, with the id as a header) that nobody else reads. It does not replace a file.
func (k *Key) Save(path string) error {
	der, err := x509.MarshalPKCS8PrivateKey(k.Private)
	if err != nil {
		return fmt.Errorf("key file %s: %w", path, err)
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("key file: %w", err)
	}
	err = pem.Encode(f, &pem.Block{Type: pemType, Headers: map[string]string{pemID: k.ID}, Bytes: der})
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return fmt.Errorf("key file %s: %w", path, err)
	}
	return nil
}

// LoadKey reads a file that Save wrote.
func LoadKey(path string) (*Key, error) {
	data, err := readFile(path)
	if err != nil {
		return nil, fmt.Errorf("key file: %w", err)
	}
	block, _ := pem.Decode(data)
	if block == nil || block.Type != pemType {
		return nil, fmt.Errorf("key file %s: holds no %s in PEM", path, pemType)
	}
	id := block.Headers[pemID]
	if !kidPattern.MatchString(id) {
		return nil, fmt.Errorf("key file %s: header %s is missing or malformed", path, pemID)
	}
	k, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("key file %s: %w", path, err)
	}
	private, ok := k.(ed25519.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("key file %s: the key is not of Ed25519", path)
	}
	return &Key{ID: id, Private: private}, nil
}

// PublicKey is a value of shoalTokenKey.
type PublicKey struct {
	ID       string
	Key      ed25519.PublicKey
	NotAfter time.Time // zero: none
}

func (p *PublicKey) String() string {
	var until int64
	if !p.NotAfter.IsZero() {
		until = p.NotAfter.Unix()
	}
	return fmt.Sprintf("1 %s EdDSA %s %d", p.ID, base64.RawURLEncoding.EncodeToString(p.Key), until)
}

// ParsePublicKey reads a value of shoalTokenKey. known is false for one of a newer version.
func ParsePublicKey(value string) (p PublicKey, known bool, err error) {
	f := strings.Split(value, " ")
	if f[0] != "1" {
		return p, false, nil
	}
	if len(f) < 5 || !kidPattern.MatchString(f[1]) || f[2] != "EdDSA" {
		return p, true, fmt.Errorf("%w: token key %.60q", ErrInvalid, value)
	}
	key, err := base64.RawURLEncoding.Strict().DecodeString(f[3])
	until, nerr := strconv.ParseInt(f[4], 10, 64)
	if err != nil || nerr != nil || until < 0 || len(key) != ed25519.PublicKeySize {
		return p, true, fmt.Errorf("%w: token key %.60q", ErrInvalid, value)
	}
	p = PublicKey{ID: f[1], Key: key}
	if until > 0 {
		p.NotAfter = time.Unix(until, 0)
	}
	return p, true, nil
}

// Session is what a token of ours says.
type Session struct {
	Server            string // who signed
	ID                string // of the token
	AccountID         string
	Scopes            []string
	Epoch             int64
	CredentialVersion int64
	Issued            time.Time
	Expires           time.Time
}

type sessionClaims struct {
	jwt.Claims
	Scope      string `json:"scope"`
	Version    int    `json:"ver"`
	Epoch      int64  `json:"epoch"`
	Credential int64  `json:"cred"`
}

// Sign makes a token. ID may be empty: one is made.
func (k *Key) Sign(s Session) (string, error) {
	if life := s.Expires.Sub(s.Issued); life <= 0 || life > MaxLife {
		return "", fmt.Errorf("token: a life of %v: it is more than nothing and %v at most", life, MaxLife)
	}
	if s.ID == "" {
		s.ID = random(15)
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.EdDSA, Key: jose.JSONWebKey{Key: k.Private, KeyID: k.ID}},
		(&jose.SignerOptions{}).WithType(typ))
	if err != nil {
		return "", fmt.Errorf("token: %w", err)
	}
	raw, err := jwt.Signed(signer).Claims(sessionClaims{
		Claims: jwt.Claims{Issuer: issuer + s.Server, Subject: s.AccountID, Audience: jwt.Audience{audience}, ID: s.ID,
			IssuedAt: jwt.NewNumericDate(s.Issued), Expiry: jwt.NewNumericDate(s.Expires)},
		Scope: strings.Join(s.Scopes, " "), Version: 1, Epoch: s.Epoch, Credential: s.CredentialVersion,
	}).Serialize()
	if err != nil {
		return "", fmt.Errorf("token: %w", err)
	}
	return raw, nil
}

// IsSession says whether a token says that it is one of ours. Nothing is checked yet.
func IsSession(raw string) bool {
	if len(raw) > MaxLength {
		return false
	}
	t, err := jwt.ParseSigned(raw, []jose.SignatureAlgorithm{jose.EdDSA})
	return err == nil && t.Headers[0].ExtraHeaders[jose.HeaderType] == typ
}

// VerifySession checks a token of ours at time now. lookup gives the key of an id with the server it belongs to, or false. Whether the
// account's epoch has moved is for the caller to see. ErrInvalid.
func VerifySession(raw string, now time.Time, lookup func(kid string) (PublicKey, string, bool)) (*Session, error) {
	if len(raw) > MaxLength {
		return nil, fmt.Errorf("%w: it is too long", ErrInvalid)
	}
	t, err := jwt.ParseSigned(raw, []jose.SignatureAlgorithm{jose.EdDSA})
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	h := t.Headers[0]
	if h.ExtraHeaders[jose.HeaderType] != typ {
		return nil, fmt.Errorf("%w: it is no session token", ErrInvalid)
	}
	key, server, ok := lookup(h.KeyID)
	switch {
	case !ok:
		return nil, fmt.Errorf("%w: key %.40q is not in the directory", ErrInvalid, h.KeyID)
	case !key.NotAfter.IsZero() && now.After(key.NotAfter):
		return nil, fmt.Errorf("%w: key %s has ended", ErrInvalid, h.KeyID)
	}
	var c sessionClaims
	if err := t.Claims(key.Key, &c); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if c.Expiry == nil || c.IssuedAt == nil || c.Subject == "" || c.Version != 1 {
		return nil, fmt.Errorf("%w: a claim is missing, or of a newer version", ErrInvalid)
	}
	if err := c.ValidateWithLeeway(jwt.Expected{Issuer: issuer + server, AnyAudience: jwt.Audience{audience}, Time: now}, Leeway); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if c.Expiry.Time().Sub(c.IssuedAt.Time()) > MaxLife {
		return nil, fmt.Errorf("%w: it lives too long", ErrInvalid)
	}
	return &Session{Server: server, ID: c.ID, AccountID: c.Subject, Scopes: strings.Fields(c.Scope), Epoch: c.Epoch,
		CredentialVersion: c.Credential, Issued: c.IssuedAt.Time(), Expires: c.Expiry.Time()}, nil
}
