package vaultd

import (
	"crypto/tls"
	"time"

	"shoal/daemons/internal/conf"
	"shoal/daemons/internal/dirclient"
	"shoal/daemons/internal/dirstore"
	"shoal/daemons/internal/pki"
	"shoal/daemons/internal/replica"
)

// referral is where updates are sent.
func (s *Shadow) referral() []string {
	if len(s.Referral) > 0 {
		return s.Referral
	}
	return s.Provider
}

func (v *vault) openReplica(c *Config) error {
	s := c.Shadow
	var verify *tls.Config
	if s.CAFile == "" {
		verify = v.env.Creds.ClientTLS(pki.RoleVault)
	} else {
		o, err := dirclient.OptionsOf(conf.Directory{CAFile: s.CAFile}, nil)
		if err != nil {
			return err
		}
		verify = o.TLS
	}
	var err error
	v.replica, err = replica.New(replica.Options{
		Store: v.store, Providers: s.Provider, TLS: verify, BindDN: c.ShadowDN(),
		Password: func() (string, error) {
			p, err := conf.ReadSecret(s.PasswordFile)
			return string(p), err
		},
		Timeout: s.Timeout, Probe: s.Probe, Retry: s.Retry,
		Clock: v.env.Clock, Log: v.env.Log, Metrics: v.env.Metrics,
	})
	return err
}

// beMaster makes the entries that the service builds on. If the database was a shadow's, it forgets
// that: what is written from now on is in no cookie of the old master.
func (v *vault) beMaster(c *Config) error {
	r, err := v.store.Read()
	if err != nil {
		return err
	}
	ordered := r.LogOrdered()
	r.Close()
	if v.store.Cookie() != "" || !ordered {
		forget := &dirstore.Context{CSNs: v.store.ContextCSN(), Cookie: []byte{}, Refresh: dirstore.RefreshEnds}
		if err := v.store.Do(c.RootDN(), forget); err != nil {
			return err
		}
	}
	return bootstrap(v.store, c.RootDN())
}

// shadowStatus adds how the shadow stands.
func (v *vault) shadowStatus(status map[string]any) {
	s := v.replica.Status()
	status["mode"] = "shadow"
	status["provider"] = s.Provider
	status["replication"] = string(s.State)
	status["replication_error"] = s.Error
	status["cookie"] = v.store.Cookie()
	status["lag_seconds"] = s.Lag.Seconds()
	status["last_contact"] = "never"
	if !s.LastContact.IsZero() {
		status["last_contact"] = s.LastContact.UTC().Format(time.RFC3339)
	}
}
