package vaultd

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"sync"
	"time"

	"shoal/daemons/internal/conf"
	"shoal/daemons/internal/dirclient"
	"shoal/daemons/internal/ldapsession"
)

// link is what a shadow tells its master: the state of the password policy that it has seen, in one modification for
// each entry and interval; and passwords that were right but are stored in an older form, by logging in there with them:
// so the master does what it does at every login, and the shadow needs no right to write passwords.
type link struct {
	shadow *Shadow
	dn     string
	tls    *tls.Config
	uris   func() []string
	warn   func(string, ...any)

	mu    sync.Mutex
	admin *dirclient.Admin // nil: not connected

	queue chan login
	known sync.Map // DN: true, of logins that were sent
}

type login struct {
	dn       string
	password []byte
}

const (
	forwardQueue = 256                    // logins that wait; more are let go: the next bind is another chance
	forwardPause = 100 * time.Millisecond // between two: a master is not overrun when a whole directory is of an older form
)

func newLink(s *Shadow, dn string, verify *tls.Config, uris func() []string, warn func(string, ...any)) *link {
	return &link{shadow: s, dn: dn, tls: verify, uris: uris, warn: warn, queue: make(chan login, forwardQueue)}
}

// forward takes a login for the master, once for each name while the process lives.
func (l *link) forward(dn string, password []byte) {
	if _, sent := l.known.LoadOrStore(dn, true); sent {
		return
	}
	select {
	case l.queue <- login{dn, password}:
	default:
		l.known.Delete(dn)
	}
}

// run sends logins until ctx ends.
func (l *link) run(ctx context.Context) {
	pause := time.NewTimer(0)
	defer pause.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-pause.C:
		}
		select {
		case <-ctx.Done():
			return
		case next := <-l.queue:
			a, err := dirclient.Connect(ctx, l.options(next.dn, string(next.password)))
			if err == nil {
				err = a.Close()
			}
			if err != nil {
				l.known.Delete(next.dn)
				l.warn("a password in an older form could not be shown to the master", "entry", next.dn, "error", err)
			}
		}
		pause.Reset(forwardPause)
	}
}

func (l *link) options(dn, password string) dirclient.AdminOptions {
	return dirclient.AdminOptions{URIs: l.uris(), TLS: l.tls, DN: dn, Password: password, Timeout: l.shadow.Timeout}
}

// report tells the master what was seen of failed logins.
func (l *link) report(ctx context.Context, list []ldapsession.StateChange) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range list {
		if err := l.tell(ctx, c); err != nil {
			return fmt.Errorf("tell the master about %s: %w", c.DN, err)
		}
	}
	return nil
}

func (l *link) tell(ctx context.Context, c ldapsession.StateChange) error {
	if l.admin == nil {
		password, err := conf.ReadSecret(l.shadow.PasswordFile)
		if err != nil {
			return err
		}
		if l.admin, err = dirclient.Connect(ctx, l.options(l.dn, string(password))); err != nil {
			l.admin = nil
			return err
		}
	}
	var changes []dirclient.Change
	for _, ch := range c.Changes() {
		op := dirclient.OpAdd
		if ch.Replace {
			op = dirclient.OpReplace
		}
		changes = append(changes, dirclient.Change{Op: op, Name: ch.Attribute, Values: ch.Values})
	}
	if len(changes) == 0 {
		return nil
	}
	err := l.admin.Modify(ctx, c.DN, changes...)
	if errors.Is(err, dirclient.ErrExists) {
		// Some of it was told before: the rest goes one by one.
		for i := 0; i < len(changes) && (err == nil || errors.Is(err, dirclient.ErrExists)); i++ {
			ch := changes[i]
			if ch.Op == dirclient.OpReplace {
				err = l.admin.Modify(ctx, c.DN, ch)
				continue
			}
			for j := 0; j < len(ch.Values) && (err == nil || errors.Is(err, dirclient.ErrExists)); j++ {
				err = l.admin.Modify(ctx, c.DN, dirclient.Change{Op: ch.Op, Name: ch.Name, Values: ch.Values[j : j+1]})
			}
		}
	}
	if err == nil || errors.Is(err, dirclient.ErrNoSuchEntry) || errors.Is(err, dirclient.ErrExists) {
		return nil // it is gone, or was told already
	}
	_ = l.admin.Close() // the next report makes another connection
	l.admin = nil
	return err
}

func (l *link) close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.admin == nil {
		return nil
	}
	err := l.admin.Close()
	l.admin = nil
	return err
}
