package authn

import (
	"context"
	"crypto/rand"
	"encoding/base32"
	"errors"
	"fmt"
	"strings"

	"shoal/daemons/internal/dirclient"
)

// An app password is made here and never chosen: 24 letters and digits, the first four of which are its id and the others 100 random bits.
// It is shown in groups of four; blanks and hyphens in what a client sends do not count.
//
//	app-password = id secret
//	id           = 4( "a"-"z" / "2"-"7" )
//	secret       = 20( "a"-"z" / "2"-"7" )
//
// By its form and its id a server knows which entry of the directory to bind as, so that one bind decides, however many an account has.
// A password of the account's own that looks like one is tried as such when the account has no app password of that id.
const (
	appIDLength = 4
	appLength   = 24
)

// NewAppPassword makes an app password: its id, the secret as the directory gets it, and as it is shown.
func NewAppPassword() (id, secret, shown string) {
	var b [15]byte
	_, _ = rand.Read(b[:]) // never fails: it ends the process instead
	secret = strings.ToLower(base32.StdEncoding.EncodeToString(b[:]))
	var groups []string
	for i := 0; i < appLength; i += 4 {
		groups = append(groups, secret[i:i+4])
	}
	return secret[:appIDLength], secret, strings.Join(groups, "-")
}

// parseAppPassword says whether a password has the form of an app password.
func parseAppPassword(password string) (id, secret string, ok bool) {
	if len(password) < appLength || len(password) > 2*appLength {
		return "", "", false
	}
	b := make([]byte, 0, appLength)
	for i := 0; i < len(password); i++ {
		switch c := password[i]; {
		case c == ' ' || c == '-':
		case c >= 'A' && c <= 'Z':
			b = append(b, c|0x20)
		case c >= 'a' && c <= 'z' || c >= '2' && c <= '7':
			b = append(b, c)
		default:
			return "", "", false
		}
	}
	if len(b) != appLength {
		return "", "", false
	}
	return string(b[:appIDLength]), string(b), true
}

// appPassword finds the app password of an account that a password may be; nil: it is none.
func (a *authenticator) appPassword(ctx context.Context, acc *dirclient.Account, password string) (*dirclient.AppPassword, string, error) {
	id, secret, ok := parseAppPassword(password)
	if !ok {
		return nil, "", nil
	}
	app, err := a.dir.AppPassword(ctx, acc.DN, id)
	switch {
	case errors.Is(err, dirclient.ErrNoSuchAppPassword):
		return nil, "", nil
	case err != nil:
		return nil, "", fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return app, secret, nil
}

// usable says whether an app password opens a service now.
func (a *authenticator) usable(app *dirclient.AppPassword, service string) error {
	switch {
	case !app.Expires.IsZero() && !a.clock.Now().Before(app.Expires):
		return errExpired
	case !app.Allows(service):
		return ErrScope
	}
	return nil
}
