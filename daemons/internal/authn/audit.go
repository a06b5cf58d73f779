package authn

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"time"
)

// Event is one login, or the end of a session by revocation, in the audit trail. Passwords and tokens are never in it.
type Event struct {
	Time       time.Time `json:"time"`
	Server     string    `json:"server"`
	Result     string    `json:"result"` // ok, bad, scope, suspended, throttled, unavailable; revoked: a session was ended
	Service    string    `json:"service"`
	Mechanism  string    `json:"mechanism"`
	Remote     string    `json:"remote"`
	TLS        bool      `json:"tls"`
	User       string    `json:"user,omitempty"`       // as the client wrote it
	Account    string    `json:"account,omitempty"`    // whose it is, where that is known
	Credential string    `json:"credential,omitempty"` // password, app-password, token, provider
	Name       string    `json:"name,omitempty"`       // of the app password, or of who issued the token
	Reason     string    `json:"reason,omitempty"`
}

// trail keeps the last events.
type trail struct {
	mu     sync.Mutex
	events []Event
	next   int // where the next one goes, once events is full
}

func (t *trail) add(e Event, most int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.events) < most {
		t.events = append(t.events, e)
		return
	}
	t.events[t.next] = e
	t.next = (t.next + 1) % len(t.events)
}

// Logins gives the last events that match says yes to, the newest first, at most limit of them. match must not keep the event.
func (a *Authenticator) Logins(limit int, match func(*Event) bool) []Event {
	t := &a.recent
	t.mu.Lock()
	defer t.mu.Unlock()
	list := []Event{}
	for i := len(t.events) - 1; i >= 0 && len(list) < limit; i-- {
		e := &t.events[(t.next+i)%len(t.events)]
		if match == nil || match(e) {
			list = append(list, *e)
		}
	}
	return list
}

// audit notes the outcome of a login.
func (a *authenticator) audit(from From, user string, g *Grant, err error) {
	e := a.event(from, g)
	e.Result, e.User = resultOf(err), printable(user)
	if err != nil {
		e.Reason = printable(err.Error())
	}
	a.write(e)
}

// revoked notes that a session was ended.
func (a *authenticator) revoked(g *Grant, reason string) {
	e := a.event(g.From, g)
	e.Result, e.Reason = "revoked", reason
	a.metrics.revoked.Inc()
	a.write(e)
}

func (a *authenticator) event(from From, g *Grant) Event {
	e := Event{Time: a.clock.Now().UTC(), Server: a.server, Service: from.Service, Mechanism: from.Mechanism, Remote: from.Remote, TLS: from.TLS}
	if g != nil {
		e.Credential, e.Name = g.Credential, g.Name
		if g.Account != nil {
			e.Account = g.Account.Address
		}
	}
	return e
}

func (a *authenticator) write(e Event) {
	a.recent.add(e, a.set.Audit)
	attrs := []any{"event", "login", "result", e.Result, "service", e.Service, "mechanism", e.Mechanism, "remote", e.Remote, "tls", e.TLS}
	for _, s := range []struct{ key, value string }{{"name", e.User}, {"account", e.Account}, {"credential", e.Credential}, {"credential_name", e.Name}, {"reason", e.Reason}} {
		if s.value != "" {
			attrs = append(attrs, s.key, s.value)
		}
	}
	level := slog.LevelInfo
	if e.Result == "unavailable" {
		level = slog.LevelWarn
	}
	a.log.Log(context.Background(), level, "login "+e.Result, attrs...)
}

// printable is the beginning of a text from a client, fit for a log.
func printable(s string) string {
	if len(s) > 200 {
		s = s[:200]
	}
	return strings.Map(func(r rune) rune {
		if r < 0x20 || r == 0x7f {
			return '?'
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
}
