package dirclient

import (
	"crypto/rand"
	"encoding/base32"
	"fmt"
	"net"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"shoal/daemons/internal/mailaddr"
)

// Names that may stand in the directory. Server names are in commit records and in file names, so they are short
// and plain; account ids name folders.
var (
	serverNamePattern = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,14}$`)
	volumeNamePattern = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,30}$`)
	accountIDPattern  = regexp.MustCompile(`^[a-z0-9-]{8,40}$`)
	uuidPattern       = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$`)
	hashPattern       = regexp.MustCompile(`^\{[A-Z0-9-]{2,20}\}[!-~]{8,1000}$`)
	servicePattern    = regexp.MustCompile(`^[a-z][a-z0-9-]{0,30}$`)
)

// roles that a server entry may have.
var roles = []string{"switch", "box", "vault", "lb", "webmail", "provision", "storage", "filter", "enrol", "operator"}

// Bounds of a password in clear, in bytes. Much longer ones are refused so that hashing them costs no more.
const (
	minPasswordLength = 8
	maxPasswordLength = 1024
)

// CheckServerName: 1 to 15 of a-z, 0-9 and '-', not beginning with '-'.
func CheckServerName(name string) error {
	if !serverNamePattern.MatchString(name) {
		return fmt.Errorf("%w: server name %q: use 1 to 15 of a-z, 0-9 and '-', beginning with a letter or digit", ErrInvalidName, name)
	}
	return nil
}

// CheckVolumeName: 1 to 31 of a-z, 0-9 and '-', not beginning with '-'.
func CheckVolumeName(name string) error {
	if !volumeNamePattern.MatchString(name) {
		return fmt.Errorf("%w: volume name %q: use 1 to 31 of a-z, 0-9 and '-', beginning with a letter or digit", ErrInvalidName, name)
	}
	return nil
}

// CheckPassword refuses a clear password that is too short, too long, or holds control characters. What begins
// with "{SCHEME}" is taken for a hash made elsewhere.
func CheckPassword(password string) error {
	switch {
	case strings.HasPrefix(password, "{"):
		if hashPattern.MatchString(password) {
			return nil
		}
		return fmt.Errorf("%w: a password cannot begin with \"{\" unless it is a hash with its scheme, {ARGON2} for example", ErrInvalidName)
	case len(password) > maxPasswordLength:
		return fmt.Errorf("%w: the password is longer than %d bytes", ErrInvalidName, maxPasswordLength)
	}
	if utf8.RuneCountInString(password) < minPasswordLength {
		return fmt.Errorf("%w: the password is shorter than %d characters", ErrInvalidName, minPasswordLength)
	}
	if !utf8.ValidString(password) || strings.IndexFunc(password, unicode.IsControl) >= 0 {
		return fmt.Errorf("%w: the password holds control characters or is not UTF-8", ErrInvalidName)
	}
	return nil
}

// DomainName gives the stored form of a domain name: lower case, A-labels.
func DomainName(name string) (string, error) {
	a, err := mailaddr.New("x", strings.TrimSuffix(strings.TrimSpace(name), "."))
	if err != nil || strings.HasPrefix(a.Domain, "[") {
		return "", fmt.Errorf("%w: domain %q: write a domain name such as example.com", ErrInvalidName, name)
	}
	return mailaddr.DomainKey(a.Domain), nil
}

// AccountAddress gives the stored form of an account's address, and its two halves.
func AccountAddress(address string) (whole, local, domain string, err error) {
	a, err := mailaddr.Parse(strings.TrimSpace(address))
	if err != nil {
		return "", "", "", fmt.Errorf("%w: %w", ErrInvalidName, err)
	}
	if a.Domain == "" || strings.HasPrefix(a.Domain, "[") {
		return "", "", "", fmt.Errorf("%w: address %q: write the whole address, such as alice@example.com", ErrInvalidName, address)
	}
	k, err := mailaddr.Parse(a.Key())
	if err != nil {
		return "", "", "", fmt.Errorf("%w: %w", ErrInvalidName, err)
	}
	return k.String(), k.Local, k.Domain, nil
}

// addressKey is the form under which addresses are looked up.
func addressKey(s string) string {
	if a, err := mailaddr.Parse(strings.TrimSpace(s)); err == nil {
		return a.Key()
	}
	return lower(s)
}

func statusError(s string) error {
	return fmt.Errorf("%w: status %q: it is active, suspended or closed", ErrInvalidName, s)
}

// addressValues gives the shoalAddress values of a server, sorted.
func addressValues(addresses map[string][]string) ([]string, error) {
	var out []string
	for service, list := range addresses {
		if !servicePattern.MatchString(service) {
			return nil, fmt.Errorf("%w: service %q", ErrInvalidName, service)
		}
		for _, hp := range list {
			host, port, err := net.SplitHostPort(hp)
			n, perr := strconv.ParseUint(port, 10, 16)
			if err != nil || perr != nil || n == 0 || host == "" || strings.ContainsAny(hp, " \t\r\n") {
				return nil, fmt.Errorf("%w: address %q of service %s: write host:port", ErrInvalidName, hp, service)
			}
			out = append(out, service+" "+hp)
		}
	}
	slices.Sort(out)
	return out, nil
}

// newAccountID returns 128 random bits as 26 characters of a-z and 2-7.
func newAccountID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails: it ends the process instead (crypto/rand)
	return strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(b[:]))
}
