package authn

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"shoal/daemons/internal/dirclient"
	"shoal/daemons/internal/mailaddr"
	"shoal/daemons/internal/scram"
)

// SCRAM is checked here, with the verifiers of the directory: the client proves that it knows the account's password, and no password
// comes this way.
//
// A server says which mechanisms it offers before it knows who comes, and a client takes the strongest: one whose account has no verifier
// then fails, where it would have got in by PLAIN. So with Settings.Scram "auto" SCRAM is offered where every account that could come has
// verifiers: all accounts of all domains or, to clients that asked for a host of Settings.ScramHosts by name (TLS, RFC 6066 §3), all
// accounts of that host's domains. The directory knows whether they have: dirclient.ScramComplete.
//
// A name without a verifier gets one that nothing matches (scram.Fake): its salt is the same each time and at every server, because the
// servers share the key that it is made with, and the exchange fails where a wrong password fails, after as many questions to the directory.

// Values of Settings.Scram.
const (
	ScramAuto = "auto"
	ScramOn   = "on"
	ScramOff  = "off"
)

// ScramHost is a block scram_host of the block login: a host name that clients of some domains ask for. The label is the name.
type ScramHost struct {
	Host string `hcl:"host,label"`
	// Domains are those whose users come there.
	Domains []string `hcl:"domains" example:"[\"example.test\"]"`
}

const (
	scramFresh = 30 * time.Second // how long it is good that accounts are complete
	scramRetry = 5 * time.Second  // and how long that they are not
	scramWait  = 2 * time.Second  // how long a connection waits for the first one
)

// completeness is what is known of whether accounts have verifiers.
type completeness struct {
	mu      sync.Mutex
	hosts   map[string][]string // domains by host name; not changed after construction
	domains map[string]*complete
	key     []byte // of scram.Fake
	rounds  int
}

// complete is the answer for one domain, "" for all.
type complete struct {
	yes    bool
	at     time.Duration
	asking chan struct{} // not nil: a question is on its way
}

func (c *completeness) init(s *Settings) error {
	c.hosts, c.domains = map[string][]string{}, map[string]*complete{}
	for _, h := range s.ScramHosts {
		if h.Host == "" || len(h.Domains) == 0 {
			return fmt.Errorf("scram_host %q: it needs a host name and domains", h.Host)
		}
		for _, d := range h.Domains {
			if _, err := mailaddr.New("x", d); err != nil {
				return fmt.Errorf("scram_host %q: %w", h.Host, err)
			}
			host := hostKey(h.Host)
			c.hosts[host] = append(c.hosts[host], mailaddr.DomainKey(strings.ToLower(d)))
		}
	}
	return nil
}

func hostKey(name string) string { return strings.ToLower(strings.TrimSuffix(name, ".")) }

// ScramOffered says whether a client is offered a mechanism of SCRAM. host is the name that it asked for in TLS, empty for none.
func (a *Authenticator) ScramOffered(h *scram.Hash, host string) bool {
	if h == scram.SHA1 && !a.set.ScramSHA1 {
		return false
	}
	switch a.set.Scram {
	case ScramOn:
		return true
	case ScramOff:
		return false
	}
	domains := a.complete.hosts[hostKey(host)]
	if len(domains) == 0 {
		domains = []string{""}
	}
	for _, d := range domains {
		if !a.isComplete(d) {
			return false
		}
	}
	return true
}

// isComplete answers from what is known, and sees to it that it stays fresh. Only the first to ask waits, and not long.
func (a *authenticator) isComplete(domain string) bool {
	c := &a.complete
	c.mu.Lock()
	d := c.domains[domain]
	first := d == nil
	if first {
		d = &complete{}
		c.domains[domain] = d
	}
	now := a.clock.Boot()
	if d.asking == nil && (first || now-d.at >= scramFresh || !d.yes && now-d.at >= scramRetry) {
		d.asking = make(chan struct{})
		go a.askComplete(domain, d)
	}
	asked, known := d.asking, d.at > 0
	c.mu.Unlock()
	if !known && asked != nil {
		enough := a.clock.NewTimer(scramWait)
		select {
		case <-asked:
		case <-enough.C():
		}
		enough.Stop()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return d.yes
}

// askComplete asks the directory about a domain. While that does not answer, what was known is true still.
func (a *authenticator) askComplete(domain string, d *complete) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	key, rounds, err := a.scramKey(ctx)
	yes := false
	if err == nil && key != nil {
		yes, err = a.dir.ScramComplete(ctx, domain)
	}
	c := &a.complete
	c.mu.Lock()
	defer c.mu.Unlock()
	d.at = max(a.clock.Boot(), 1)
	if err == nil {
		if yes != d.yes {
			a.log.Info("SCRAM is offered to those whose accounts have verifiers", "event", "scram", "domain", domain, "offered", yes)
		}
		d.yes = yes
	}
	if key != nil {
		c.key, c.rounds = key, rounds
	}
	close(d.asking)
	d.asking = nil
}

// scramKey reads the key of the salts of names that nobody has; nil: the directory has none yet.
func (a *authenticator) scramKey(ctx context.Context) (key []byte, rounds int, err error) {
	text, err := a.dir.ScramKey(ctx)
	if err != nil || text == "" {
		return nil, 0, err
	}
	return scram.ParseFakeKey(text)
}

// fake is the verifier of a name that has none.
func (a *authenticator) fake(ctx context.Context, h *scram.Hash, name string) scram.Verifier {
	c := &a.complete
	c.mu.Lock()
	key, rounds := c.key, c.rounds
	c.mu.Unlock()
	if key == nil {
		if k, n, err := a.scramKey(ctx); err == nil && k != nil {
			key, rounds = k, n
			c.mu.Lock()
			c.key, c.rounds = k, n
			c.mu.Unlock()
		} else {
			key, rounds = a.key, scram.DefaultIterations
		}
	}
	return scram.Fake(h, key, name, rounds)
}

// ScramVerifier is what one exchange checks its client with.
type ScramVerifier struct {
	scram.Verifier
	dn      string // of the account; empty: nobody's, and no proof is right
	version int64  // of the account's password
	locked  bool
}

// ScramVerifier gives the verifier of a user's name. A name that has none gets one that nothing matches. The error is ErrUnavailable.
func (a *Authenticator) ScramVerifier(ctx context.Context, from From, user string, h *scram.Hash) (*ScramVerifier, error) {
	name := user[:min(len(user), maxUser)]
	acc, _, dn, err := a.account(ctx, name)
	if err == nil {
		var stored *dirclient.Verifiers
		if stored, err = a.dir.Verifiers(ctx, dn); err == nil {
			if v, ok := scram.Find(h, stored.Texts); ok && acc != nil {
				return &ScramVerifier{Verifier: v, dn: acc.DN, version: stored.Version, locked: stored.Locked}, nil
			}
			if address, _ := a.name(name); address != "" {
				name = address
			}
			return &ScramVerifier{Verifier: a.fake(ctx, h, name)}, nil
		}
		err = fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	_, err = a.done(from, user, &Grant{From: from, Account: acc}, false, err)
	return nil, err
}

// Scram ends an exchange: prove checks the client's proof with v and says what was wrong with it, nil for nothing. Limits and errors are
// as of Password.
func (a *Authenticator) Scram(ctx context.Context, from From, user string, v *ScramVerifier, prove func() error) (*Grant, error) {
	return a.Prove(ctx, from, user, func(_ context.Context, acc *dirclient.Account) error {
		err := prove()
		switch {
		case err != nil:
			if v.dn == "" && acc != nil && errors.Is(err, scram.ErrProof) {
				return fmt.Errorf("%w: the account has no verifier for %s", ErrBadCredentials, v.Hash.Name)
			}
			return fmt.Errorf("%w: %w", ErrBadCredentials, err)
		case acc == nil || acc.DN != v.dn:
			return fmt.Errorf("%w: it is another account's by now", ErrBadCredentials)
		case v.locked:
			return fmt.Errorf("%w: the password policy has locked the account, or wants a new password", ErrBadCredentials)
		}
		acc.CredentialVersion = v.version // what the session stands on, whatever has changed since
		return nil
	})
}

// Refuse notes a login that was refused before there was anything to check, and counts it as a failure of the address. It
// returns ErrBadCredentials with the reason.
func (a *Authenticator) Refuse(from From, user string, why error) error {
	a.failed("", from.Remote)
	_, err := a.done(from, user, nil, false, fmt.Errorf("%w: %w", ErrBadCredentials, why))
	return err
}

// ServerCertificate is the certificate (DER) that clients are shown, for the channel binding tls-server-end-point; nil: it is not known.
func (a *Authenticator) ServerCertificate() []byte {
	if a.certificate == nil {
		return nil
	}
	return a.certificate()
}

// holds says whether a certificate is in a list.
func holds(list [][]byte, der []byte) bool {
	for _, c := range list {
		if bytes.Equal(c, der) {
			return true
		}
	}
	return false
}
