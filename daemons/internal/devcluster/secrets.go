package devcluster

import (
	"crypto/rand"
	"encoding/base32"
	"errors"
	"fmt"
	"os"
	"strings"

	"shoal/daemons/internal/pki"
)

// newSecret returns 100 random bits as 20 letters and digits.
func newSecret() string {
	var b [13]byte
	_, _ = rand.Read(b[:]) // never fails: it ends the process instead (crypto/rand)
	return strings.ToLower(base32.StdEncoding.EncodeToString(b[:]))[:20]
}

// ensureSecret reads a secret, or makes one at the first start. No line end follows it: ldapsearch -y would take it for
// a part of the password.
func (l Layout) ensureSecret(name string) (string, error) {
	text, err := os.ReadFile(l.secret(name))
	switch {
	case err == nil:
		return strings.TrimSuffix(string(text), "\n"), nil
	case !errors.Is(err, os.ErrNotExist):
		return "", fmt.Errorf("secret: %w", err)
	}
	secret := newSecret()
	if err := pki.WriteFile(l.secret(name), []byte(secret), 0o600); err != nil {
		return "", fmt.Errorf("secret: %w", err)
	}
	return secret, nil
}

// User is a demo account with its password.
type User struct {
	Address  string `json:"address"`
	Password string `json:"password"`
}

// demo accounts, made at the first start.
const demoDomain = "example.test"

var demoUsers = []string{"alice", "bob"}

// Users reads the demo accounts. Their file has a line each: address, space, password.
func (l Layout) Users() ([]User, error) {
	text, err := os.ReadFile(l.usersFile())
	if err != nil {
		return nil, fmt.Errorf("demo accounts: %w", err)
	}
	var users []User
	for line := range strings.Lines(string(text)) {
		address, password, ok := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		if !ok {
			return nil, fmt.Errorf("demo accounts: %s: a line is not \"address password\"", l.usersFile())
		}
		users = append(users, User{address, password})
	}
	return users, nil
}

func (l Layout) ensureUsers() ([]User, error) {
	users, err := l.Users()
	if err == nil || !errors.Is(err, os.ErrNotExist) {
		return users, err
	}
	var text strings.Builder
	for _, name := range demoUsers {
		u := User{name + "@" + demoDomain, newSecret()}
		users = append(users, u)
		fmt.Fprintf(&text, "%s %s\n", u.Address, u.Password)
	}
	if err := pki.WriteFile(l.usersFile(), []byte(text.String()), 0o600); err != nil {
		return nil, fmt.Errorf("demo accounts: %w", err)
	}
	return users, nil
}
