package kit

import (
	"errors"
	"fmt"
	"net"
	"sync"

	"shoal/daemons/internal/conf"
	"shoal/daemons/internal/pki"
)

// Undo is what takes a service apart again: one function for each part, in the order in which the parts were made. A
// service embeds it and adds to it while it is built. Not for several goroutines at once.
type Undo struct{ parts []func() error }

// Undone adds what closes the part that was just made.
func (u *Undo) Undone(by func() error) { u.parts = append(u.parts, by) }

// Close closes the parts, last first, each once. All are closed whatever fails; their errors are joined.
func (u *Undo) Close() error {
	var errs []error
	for len(u.parts) > 0 {
		last := u.parts[len(u.parts)-1]
		u.parts = u.parts[:len(u.parts)-1]
		errs = append(errs, last())
	}
	return errors.Join(errs...)
}

// Listening is a bound listener with what serves it until it is closed; nil is the answer then.
type Listening struct {
	Name     string
	Listener net.Listener
	Serve    func(net.Listener) error
}

// Serve serves all listeners, each in a goroutine of all. failed has room for one error of each.
func Serve(listeners []Listening, all *sync.WaitGroup, failed chan<- error) {
	for _, l := range listeners {
		all.Go(func() {
			if err := l.Serve(l.Listener); err != nil {
				failed <- fmt.Errorf("listener %q: %w", l.Name, err)
			}
		})
	}
}

// OwnIdentity makes sure that a certificate is that of this server in this role.
func OwnIdentity(creds *pki.Credentials, role, server string) error {
	if creds == nil {
		return fmt.Errorf("a %s needs an identity block", role)
	}
	if creds.Role() != role || creds.Name() != server {
		return fmt.Errorf("the certificate in the identity block is of shoal://%s/%s, but this server is shoal://%s/%s: install its own certificate, or correct server { name }",
			creds.Role(), creds.Name(), role, server)
	}
	return nil
}

// Public opens the certificate that clients see; nil where none is configured.
func (e *Env) Public(c *conf.PublicTLS) (*pki.Public, error) {
	if c == nil {
		return nil, nil
	}
	return pki.OpenPublic(c.CertFile, c.KeyFile, pki.WithClock(e.Clock.Now), pki.WithLog(e.Log))
}

// Clients opens the CA of users' certificates; nil where none is configured.
func (e *Env) Clients(c *conf.PublicTLS) (*pki.ClientCA, error) {
	if c == nil || c.ClientCAFile == "" {
		return nil, nil
	}
	return pki.OpenClientCA(c.ClientCAFile, pki.WithClock(e.Clock.Now))
}
