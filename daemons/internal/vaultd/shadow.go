package vaultd

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"shoal/daemons/internal/conf"
	"shoal/daemons/internal/dirclient"
	"shoal/daemons/internal/dirstore"
	"shoal/daemons/internal/ldapsession"
	"shoal/daemons/internal/ldapwire"
	"shoal/daemons/internal/pki"
	"shoal/daemons/internal/replica"
)

// leaseParts is how often a lease is renewed in its time.
const leaseParts = 5

// openReplica makes what follows a master, where there is a block shadow; it does nothing before it is run.
func (v *vault) openReplica(c *Config) error {
	s := c.Shadow
	if s == nil {
		if v.env.Creds != nil {
			v.verify = v.env.Creds.ClientTLS(pki.RoleVault)
		}
		return nil
	}
	verify, err := s.verify(v.env.Creds)
	if err != nil {
		return err
	}
	v.verify = verify
	v.link = newLink(s, c.ShadowDN(), verify, v.masterURIs, v.env.Log.Warn)
	v.Undone(v.link.close)
	v.replica, err = replica.New(replica.Options{
		Store: v.store, Providers: s.Provider, TLS: verify, BindDN: c.ShadowDN(),
		Password: func() (string, error) {
			p, err := conf.ReadSecret(s.PasswordFile)
			return string(p), err
		},
		Timeout: s.Timeout, Probe: s.Probe, Retry: s.Retry,
		More: v.moreProviders, Accept: v.accept, Lease: v.grant, Renew: s.Lease / leaseParts,
		Clock: v.env.Clock, Log: v.env.Log, Metrics: v.env.Metrics,
	})
	return err
}

func (s *Shadow) verify(creds *pki.Credentials) (*tls.Config, error) {
	if s.CAFile == "" {
		return creds.ClientTLS(pki.RoleVault), nil
	}
	o, err := dirclient.OptionsOf(conf.Directory{CAFile: s.CAFile}, nil)
	return o.TLS, err
}

// moreProviders are the vaults that the directory lists: once there was a promotion, the master first.
func (v *vault) moreProviders() (first, last []string) {
	g := v.state()
	for _, p := range v.peers() {
		if g.Epoch > 0 && p.name == g.Master {
			first = append(first, p.uris...)
		} else {
			last = append(last, p.uris...)
		}
	}
	return first, last
}

// accept says whether a provider is followed: never one of an epoch before that which this vault knows. What is here
// and not there is written to a file before it is given up.
func (v *vault) accept(p *replica.Provider) (whole bool, err error) {
	g := v.state()
	switch {
	case !p.Vault && g.Epoch > 0:
		return false, fmt.Errorf("%s knows of no epochs, and this vault follows those of %s", p.URI, g)
	case !p.Vault:
		return false, nil
	case p.Epoch < g.Epoch || p.Epoch == g.Epoch && g.Master != "" && p.Master != "" && p.Master != g.Master:
		return false, fmt.Errorf("%s is of %s: this vault knows of %s and does not follow it", p.URI, reign{Epoch: p.Epoch, Master: p.Master}, g)
	case p.Mode == replica.ModeCandidate, !p.Named && p.Mode != replica.ModeMaster:
		return false, fmt.Errorf("%s is no master", p.URI)
	case len(p.Context) == 0:
		return false, fmt.Errorf("%s shows no contextCSN: its directory is empty or not complete", p.URI)
	}
	if beyond := beyond(v.store.ContextCSN(), p.Context); len(beyond) > 0 {
		file, n, err := v.saveLost(g, p)
		if err != nil {
			return false, fmt.Errorf("what this vault has and %s has not cannot be saved, so it is not followed: %w", p.URI, err)
		}
		v.env.Log.Warn("this vault had changes that the master has not: they were written to a file, and everything is fetched anew",
			"event", "directory-lost", "file", file, "changes", n, "newest", slices.Max(beyond), "provider", p.URI)
		whole = true
	}
	if p.Epoch > g.Epoch || g.Master == "" && p.Master != "" {
		n := reign{Epoch: p.Epoch, Master: p.Master, Mode: replica.ModeShadow}
		if err := v.setReign(n); err != nil {
			return false, err
		}
		v.env.Log.Info("the master of the directory is known", "event", "directory-reign", "epoch", n.Epoch, "master", n.Master, "was", g.String())
	}
	return whole, nil
}

// beyond lists the CSNs of have that are above those of theirs.
func beyond(have, theirs []string) (list []string) {
	for _, c := range have {
		if c > csnOf(theirs, dirstore.CSNServer(c)) {
			list = append(list, c)
		}
	}
	return list
}

func csnOf(list []string, server string) string {
	for _, c := range list {
		if dirstore.CSNServer(c) == server {
			return c
		}
	}
	return ""
}

// grant makes a renewal of the master's lease. From before it is sent on, this vault votes for nobody else.
func (v *vault) grant(stamp string) (string, bool) {
	g := v.state()
	if g.Mode != replica.ModeShadow || v.store.Cookie() == "" {
		return "", false
	}
	d, voters := v.config.Shadow.Lease, v.knownVoters(g.Master)
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.reign != g {
		return "", false
	}
	v.promised = v.env.Clock.Boot() + promise(d)
	return (&replica.LeaseRequest{Epoch: g.Epoch, For: d, Stamp: stamp, Voters: electorate(voters)}).String(), true
}

// promise is for how long a grant is kept to: a little longer than it says, for the master's clock may be slower.
func promise(lease time.Duration) time.Duration { return lease + lease/50 }

// refer says where updates go; nobody for a master.
func (v *vault) refer() []string {
	g, s := v.state(), v.config.Shadow
	switch {
	case g.Mode == replica.ModeMaster:
		return nil
	case g.Epoch == 0 && s != nil && len(s.Referral) > 0:
		return s.Referral
	}
	if g.Master != "" && g.Master != v.name {
		if uris := v.urisOf(g.Master); len(uris) > 0 {
			return uris
		}
	}
	if g.Epoch == 0 && s != nil {
		return s.Provider
	}
	return nil
}

// lacks says what a shadow with an agreement has not, and who has it; nil for a vault that has the whole directory.
func (v *vault) lacks() (*dirstore.Agreement, []string) {
	text := replica.CookieContent(v.store.Cookie())
	if text == "" {
		return nil, nil
	}
	a, err := dirstore.ParseAgreement(text)
	if err != nil || a.Whole() {
		a = dirstore.Agreement{Filter: "(&)"} // it cannot be told what is missing
	}
	return &a, v.refer()
}

// follows makes of what was a master's database a shadow's: its cookie stands for what it has.
func (v *vault) follows() error {
	csns := v.store.ContextCSN()
	return v.store.Do(v.rootDN, &dirstore.Context{CSNs: csns, Cookie: (&ldapwire.SyncCookie{RID: "001", CSNs: csns}).Append(nil)})
}

// shadowStatus adds how the shadow stands.
func (v *vault) shadowStatus(status map[string]any) {
	s := v.replica.Status()
	status["provider"] = s.Provider
	status["replication"] = string(s.State)
	status["replication_error"] = s.Error
	status["cookie"], _, _ = strings.Cut(v.store.Cookie(), ",content=")
	if a, _ := v.lacks(); a != nil {
		status["content"] = a
	}
	status["lag_seconds"] = s.Lag.Seconds()
	status["last_contact"] = "never"
	if !s.LastContact.IsZero() {
		status["last_contact"] = s.LastContact.UTC().Format(time.RFC3339)
	}
}

// masterURIs are where this vault speaks to the master itself.
func (v *vault) masterURIs() []string {
	if s := v.config.Shadow; s != nil && v.state().Epoch == 0 {
		return s.Provider
	}
	return v.refer()
}

// errNoLink says that there is no way to tell the master.
var errNoLink = errors.New("this vault is not the master and has no block shadow: there is no password to tell the master with")

// report writes what was seen of failed logins, or tells the master.
func (v *vault) report(ctx context.Context, list []ldapsession.StateChange) error {
	switch {
	case len(v.refer()) == 0:
		if err := v.gate(ctx, false); err != nil {
			return err
		}
		return ldapsession.Report(v.store, v.rootDN)(ctx, list)
	case v.link == nil:
		return errNoLink
	}
	return v.link.report(ctx, list)
}

// forward lets the master see a password that is stored in an older form.
func (v *vault) forward(dn string, password []byte) {
	if v.link != nil {
		v.link.forward(dn, password)
	}
}
