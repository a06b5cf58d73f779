// Package enrol is how a new server becomes one of the service: with a one-time token it gets a certificate of the
// internal CA for a key that it made itself, and the password of its directory entry.
//
// The authority runs on the directory machine, in a process of its own (shoal-agent with a block enrolment) under
// a user of its own, who alone can read the CA's key: the directory server, which everybody speaks to, cannot.
// It binds as a server entry of shoalRole enrol, which may set passwords of servers and take tokens away, and
// nothing else.
//
// A token is 256 random bits, written "shoal1-" and 52 characters of a-z 2-7. The directory holds only its SHA-256, in
// the attribute shoalEnrolToken of the entry of the one server it is for:
//
//	1 <sha256, 64 hex> <expiry, RFC 3339 in UTC> <role> [host,host...]
//
// The first word is the version. Hosts are the DNS names and addresses that may stand in the certificate; nothing that the
// server asks for is added to them. Whoever may write server entries makes tokens (shoalctl token create, Terraform);
// there is no other list of them.
//
// The exchange, HTTPS with JSON, requests of at most 64 KiB:
//
//	GET  /v1/ca      the CA's certificate (PEM), for whoever knows its SHA-256 from elsewhere
//	POST /v1/enrol   {"name", "role", "token", "csr"} -> {"certificate", "ca", "bind_dn", "password", "suffix", "directory"}
//	POST /v1/renew   {"csr"}, with the present certificate -> {"certificate", "ca"}
//	errors           {"error": "..."}
//
// Invariants: a token works for one key, taken away in the same directory operation that sets the password (answered.go: who did
// not get the answer asks again with the same key); a certificate
// carries the name and role of the token, and on renewal those of the present certificate, whatever the request
// says; the private key never leaves the server that made it; a server whose entry was deleted or has another role
// renews nothing; neither tokens nor passwords are logged.
//
// Left out on purpose: operators (their certificates are issued by hand: shoalctl ca issue), revocation before expiry
// (certificates are short-lived; deleting the entry ends logins at once and renewal for good), several CAs.
package enrol

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"regexp"
	"slices"
	"strings"
	"time"

	"shoal/daemons/internal/dirclient"
)

// maxBody bounds a request and an answer, in bytes.
const maxBody = 64 << 10

// DefaultTokenLife is how long a token is good when its maker names no time.
const DefaultTokenLife = time.Hour

// MaxTokenLife bounds it.
const MaxTokenLife = 30 * 24 * time.Hour

// maxTokens is how many good tokens a server may have at once.
const maxTokens = 8

// prefix begins every token, so that scanners for leaked secrets can know it.
const prefix = "shoal1-"

var encoding = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

var tokenPattern = regexp.MustCompile(`^shoal1-[a-z2-7]{52}$`)

// ErrBadToken is a token that is not one of the server's: wrong, used, revoked or expired. Which of them is not told.
var ErrBadToken = errors.New("the token is not good for this server: it is wrong, was used, was revoked or has expired")

// Token is what the directory knows of a token.
type Token struct {
	Hash    string    `json:"id"` // SHA-256 of the token in hex; names it
	Expires time.Time `json:"expires"`
	Role    string    `json:"role"`
	Hosts   []string  `json:"hosts,omitempty"` // may stand in the certificate
}

// NewToken makes a token: clear is for the server, the Token for the directory.
func NewToken(role string, hosts []string, expires time.Time) (clear string, t Token, err error) {
	var b [32]byte
	_, _ = rand.Read(b[:]) // never fails: it ends the process instead (crypto/rand)
	clear = prefix + encoding.EncodeToString(b[:])
	t = Token{Hash: hashOf(clear), Expires: expires.UTC().Truncate(time.Second), Role: role, Hosts: hosts}
	_, err = ParseToken(t.String())
	return clear, t, err
}

func hashOf(clear string) string {
	sum := sha256.Sum256([]byte(clear))
	return hex.EncodeToString(sum[:])
}

// CheckClear refuses what cannot be a token in clear.
func CheckClear(clear string) error {
	if !tokenPattern.MatchString(clear) {
		return errors.New("this is no token: one looks like shoal1- and 52 characters of a-z and 2-7")
	}
	return nil
}

// String is the form in the directory.
func (t Token) String() string {
	s := "1 " + t.Hash + " " + t.Expires.Format(time.RFC3339) + " " + t.Role
	if len(t.Hosts) > 0 {
		s += " " + strings.Join(t.Hosts, ",")
	}
	return s
}

// ParseToken reads the form in the directory.
func ParseToken(s string) (Token, error) {
	f := strings.Split(s, " ")
	if len(s) > 1024 || len(f) < 4 || len(f) > 5 || f[0] != "1" {
		return Token{}, errors.New("not a token of version 1")
	}
	t := Token{Hash: f[1], Role: f[3]}
	if b, err := hex.DecodeString(f[1]); err != nil || len(b) != sha256.Size || strings.ToLower(f[1]) != f[1] {
		return Token{}, errors.New("a token's hash is 64 hexadecimal digits")
	}
	var err error
	if t.Expires, err = time.Parse(time.RFC3339, f[2]); err != nil || t.Expires.Location() != time.UTC {
		return Token{}, fmt.Errorf("a token's expiry is a time in UTC, not %q", f[2])
	}
	if t.Role == "" || strings.Trim(t.Role, "abcdefghijklmnopqrstuvwxyz") != "" {
		return Token{}, fmt.Errorf("a token's role cannot be %q", t.Role)
	}
	if len(f) == 5 {
		t.Hosts = strings.Split(f[4], ",")
		for _, h := range t.Hosts {
			if err := checkHost(h); err != nil {
				return Token{}, err
			}
		}
	}
	return t, nil
}

var hostPattern = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?)*$`)

// checkHost accepts an IP address or a DNS name; no wildcards.
func checkHost(h string) error {
	if net.ParseIP(h) == nil && (len(h) > 253 || !hostPattern.MatchString(h)) {
		return fmt.Errorf("%q is neither an IP address nor a DNS name", h)
	}
	return nil
}

// find gives the stored form of the token that clear is, when it is good now for a role.
func find(stored []string, clear, role string, now time.Time) (string, Token, error) {
	if CheckClear(clear) != nil {
		return "", Token{}, ErrBadToken
	}
	h := hashOf(clear) // of 256 random bits: the time that comparing takes tells nothing
	for _, s := range stored {
		if t, err := ParseToken(s); err == nil && t.Hash == h && t.Role == role && now.Before(t.Expires) {
			return s, t, nil
		}
	}
	return "", Token{}, ErrBadToken
}

// Expired gives the stored tokens that are good no more, unreadable ones among them; live how many are left.
func Expired(stored []string, now time.Time) (old []string, live int) {
	for _, s := range stored {
		if t, err := ParseToken(s); err != nil || !now.Before(t.Expires) {
			old = append(old, s)
		}
	}
	return old, len(stored) - len(old)
}

// Admin is what making a token needs of the directory: *dirclient.Admin has it.
type Admin interface {
	AddEnrolToken(ctx context.Context, name, token string, old ...string) error
}

// Create makes a token for a server and puts it into the directory; tokens that have expired go.
func Create(ctx context.Context, d Admin, e dirclient.Enrolment, hosts []string, now, expires time.Time) (clear string, t Token, err error) {
	if err := CheckRole(e.Role); err != nil {
		return "", t, err
	}
	old, live := Expired(e.Tokens, now)
	if live >= maxTokens {
		return "", t, fmt.Errorf("server %s has %d good tokens already: revoke some", e.Name, live)
	}
	clear, t, err = NewToken(e.Role, hosts, expires)
	if err != nil {
		return "", t, err
	}
	return clear, t, d.AddEnrolToken(ctx, e.Name, t.String(), old...)
}

// Fingerprint is the SHA-256 of a certificate in its binary form, in hex: how a server that is not enrolled yet knows the
// CA.
func Fingerprint(der []byte) string {
	sum := sha256.Sum256(der)
	return hex.EncodeToString(sum[:])
}

// cleanFingerprint takes the forms in which people write one: with colons, in capitals.
func cleanFingerprint(s string) (string, error) {
	s = strings.ToLower(strings.ReplaceAll(strings.TrimSpace(s), ":", ""))
	if b, err := hex.DecodeString(s); err != nil || len(b) != sha256.Size {
		return "", fmt.Errorf("the CA's fingerprint is 64 hexadecimal digits, not %q: shoalctl ca fingerprint prints it", s)
	}
	return s, nil
}

// enrollable are the roles of servers that enrol; operators do not.
var enrollable = []string{"switch", "box", "vault", "lb", "webmail", "provision", "storage", "filter", "enrol"}

// CheckRole refuses roles that do not enrol.
func CheckRole(role string) error {
	if !slices.Contains(enrollable, role) {
		return fmt.Errorf("servers of role %q do not enrol: roles are %s", role, strings.Join(enrollable, ", "))
	}
	return nil
}

// request and answer are the JSON of the exchange.
type request struct {
	Name  string `json:"name,omitempty"`
	Role  string `json:"role,omitempty"`
	Token string `json:"token,omitempty"`
	CSR   string `json:"csr"`
}

type answer struct {
	Certificate string   `json:"certificate"`
	CA          string   `json:"ca"`
	BindDN      string   `json:"bind_dn,omitempty"`
	Password    string   `json:"password,omitempty"`
	Suffix      string   `json:"suffix,omitempty"`
	Directory   []string `json:"directory,omitempty"`
}
