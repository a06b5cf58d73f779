package authn

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"time"

	"shoal/daemons/internal/clock"
	"shoal/daemons/internal/dirclient"
)

// A session is watched from its login to its end. When the directory tells of a change of the account, or of an app password below it, or of
// something that concerns all (Changed), and in any case every Settings.Recheck (Run), the account is looked up again. The session ends when
//
//   - the account or its domain is suspended or closed, or the account is gone,
//   - its password has changed since (shoalCredentialVersion), unless the session began with an app password or a provider's token,
//   - its app password was removed, has expired, or has lost the scope,
//   - its certificate was taken out of the account's entry, where it has to be there,
//   - all sessions were ended (shoalSessionEpoch).
//
// A directory that does not answer ends nothing.

// watched are the sessions of one account.
type watched struct {
	dn       string // lower case
	sessions map[*watch]struct{}
}

type watch struct {
	grant *Grant
	end   func(reason string)
}

// checkers is how many accounts are looked up at once.
const checkers = 8

// Watch calls end, once and on a goroutine of its own, when the session that g opened must end: its account was suspended, closed or
// deleted, or what it logged in with is worth nothing any more. The session calls stop when it ends by itself.
func (a *Authenticator) Watch(g *Grant, end func(reason string)) (stop func()) {
	w := &watch{grant: g, end: end}
	a.watching.Lock()
	defer a.watching.Unlock()
	of := a.watches[g.Account.ID]
	if of == nil {
		of = &watched{dn: strings.ToLower(g.Account.DN), sessions: map[*watch]struct{}{}}
		a.watches[g.Account.ID] = of
	}
	of.sessions[w] = struct{}{}
	return func() { a.forgetWatch(w) }
}

// forgetWatch takes a session out and says whether it was there.
func (a *authenticator) forgetWatch(w *watch) bool {
	a.watching.Lock()
	defer a.watching.Unlock()
	id := w.grant.Account.ID
	of := a.watches[id]
	if of == nil {
		return false
	}
	_, ok := of.sessions[w]
	if delete(of.sessions, w); len(of.sessions) == 0 {
		delete(a.watches, id)
	}
	return ok
}

// Changed takes the lower-case names of entries of the directory that have changed, nil for any: dirclient.Options.Changed. It does not block.
func (a *Authenticator) Changed(names map[string]bool) {
	var all bool
	accounts := map[string]bool{}
	for name := range names {
		switch rdn, above, _ := strings.Cut(name, ","); {
		case strings.HasPrefix(rdn, "uid="):
			accounts[name] = true
		case strings.HasPrefix(rdn, "cn=") && strings.HasPrefix(above, "uid="):
			accounts[above] = true
		case strings.HasPrefix(rdn, "associateddomain="):
			all = true
		}
	}
	if names == nil {
		all = true
	}
	var ids []string
	a.watching.Lock()
	if all {
		ids = slices.Collect(maps.Keys(a.watches))
	} else if len(accounts) > 0 {
		for id, of := range a.watches {
			if accounts[of.dn] {
				ids = append(ids, id)
			}
		}
	}
	a.watching.Unlock()
	if len(ids) > 0 {
		go a.recheck(context.Background(), ids)
	}
}

// Run looks at the accounts of running sessions from time to time, and writes last logins, until ctx ends.
func (a *Authenticator) Run(ctx context.Context) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		a.writeLogins(ctx)
	}()
	for clock.Sleep(ctx, a.clock, a.set.Recheck) == nil {
		a.watching.Lock()
		ids := slices.Collect(maps.Keys(a.watches))
		a.watching.Unlock()
		a.recheck(ctx, ids)
	}
	<-done
}

// recheck looks at accounts with sessions, some at once.
func (a *authenticator) recheck(ctx context.Context, ids []string) {
	slots := make(chan struct{}, checkers)
	for _, id := range ids {
		slots <- struct{}{}
		go func() {
			defer func() { <-slots }()
			ctx, cancel := context.WithTimeout(ctx, time.Minute)
			defer cancel()
			a.recheckOne(ctx, id)
		}()
	}
	for range checkers {
		slots <- struct{}{}
	}
}

func (a *authenticator) recheckOne(ctx context.Context, id string) {
	a.watching.Lock()
	of := a.watches[id]
	var sessions []*watch
	if of != nil {
		sessions = slices.Collect(maps.Keys(of.sessions))
	}
	a.watching.Unlock()
	if len(sessions) == 0 {
		return
	}
	acc, err := a.dir.AccountByID(ctx, id)
	gone := errors.Is(err, dirclient.ErrNoSuchAccount)
	if err != nil && !gone {
		return
	}
	var status error
	if !gone {
		if status = a.status(ctx, acc); status != nil && !errors.Is(status, ErrSuspended) {
			return
		}
	}
	for _, w := range sessions {
		reason := ""
		switch {
		case gone:
			reason = "account deleted"
		case status != nil:
			reason = status.Error()
		default:
			reason = a.ended(ctx, w.grant, acc)
		}
		if reason != "" && a.forgetWatch(w) {
			a.revoked(w.grant, reason)
			go w.end(reason)
		}
	}
}

// ended says why a session must end that is of an account in good standing; empty: it need not.
func (a *authenticator) ended(ctx context.Context, g *Grant, now *dirclient.Account) string {
	if now.SessionEpoch != g.Account.SessionEpoch {
		return "all sessions ended"
	}
	switch g.Credential {
	case CredentialPassword, CredentialToken:
		if now.CredentialVersion != g.Account.CredentialVersion {
			return "password changed"
		}
	case CredentialCertificate:
		if errors.Is(a.listed(ctx, g), ErrBadCredentials) {
			return "certificate removed"
		}
	case CredentialAppPassword:
		app, err := a.dir.AppPassword(ctx, now.DN, g.app.ID)
		switch {
		case errors.Is(err, dirclient.ErrNoSuchAppPassword):
			return "app password removed"
		case err != nil:
			return ""
		case !app.Created.Equal(g.app.Created):
			return "app password removed"
		case a.usable(app, g.Service) != nil:
			return "app password ended"
		}
	}
	return ""
}
