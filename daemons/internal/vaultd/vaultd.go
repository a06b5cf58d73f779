// Package vaultd is the role vault: it serves the directory over LDAP, from a database of its own.
//
// Start: refused while the database is another process's, of another suffix or of a newer format. A
// new database gets the entries that the service builds on (see tree.go).
//
// Access, fixed in this version (see access.go): everybody reads the root DSE and the subschema;
// the servers read everything, an account reads its own entry, the root DN reads and writes; nobody
// reads or compares passwords.
//
// A vault with a block shadow is a copy of another one (shadow.go): it makes no entries of its own, refers
// updates to the master, and answers nothing before it has got the whole directory once.
//
// TLS: LDAP clients are shown the certificate of public_tls, or that of identity, by which Shoal's own
// servers know a vault.
//
// End: listeners close, operations under way are finished and answered, clients get a notice of
// disconnection, and the database is closed.
package vaultd

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"shoal/daemons/internal/access"
	"shoal/daemons/internal/conf"
	"shoal/daemons/internal/dirstore"
	"shoal/daemons/internal/kit"
	"shoal/daemons/internal/ldapsession"
	"shoal/daemons/internal/ldapwire"
	"shoal/daemons/internal/pki"
	"shoal/daemons/internal/replica"

	"github.com/prometheus/client_golang/prometheus"
)

// Spec is the daemon for kit.Main.
func Spec() kit.Spec {
	return kit.Spec{
		Name:      "vaultd",
		Summary:   "serves the directory: LDAP",
		NewConfig: func() kit.Config { return &Config{} },
		Tasks:     tasks(),
		Build: func(_ context.Context, env *kit.Env, c kit.Config) (kit.Service, error) {
			return build(env, c.(*Config))
		},
	}
}

// vault is one running vault.
type vault struct {
	env       *kit.Env
	tls       *pki.Public
	store     *dirstore.Store
	server    *ldapsession.Server
	access    *access.Engine
	passwords *ldapsession.Passwords
	replacing sync.Mutex // held by an import or a restore of the control API
	indexes   []string   // of the configuration in force
	config    *Config
	clientCA  *pki.ClientCA // nil: users have no certificates
	link      *link         // to the master; nil without a block shadow
	name      string        // of this server
	rootDN    string
	replica   *replica.Replica // nil without a block shadow
	verify    *tls.Config      // of other vaults; nil where there is nothing to verify them with
	leases    *leases

	mu       sync.Mutex // of reign, promised
	reign    reign
	promised time.Duration // since boot: until when no other master gets this vault's vote
	changing sync.Mutex    // held while the role changes; of the fields below
	parent   context.Context
	cancel   context.CancelFunc
	acting   sync.WaitGroup

	listeners []listening
	kit.Undo
}

type listening struct {
	l   net.Listener
	how ldapsession.Listening
}

// build constructs a vault in order; what was made is closed again when a later part fails.
func build(env *kit.Env, c *Config) (_ kit.Service, err error) {
	v := &vault{env: env, config: c, name: strings.ToLower(c.Server.Name), rootDN: c.RootDN(), leases: newLeases(env.Clock)}
	// The database is mapped, so little is alive in the heap of a busy vault.
	kit.PaceCollector(kit.Garbage{Percent: 100, Quiet: 4 << 20, Busy: 8 << 20})
	defer func() {
		if err != nil {
			err = errors.Join(err, v.Close())
		}
	}()
	if err := v.openTLS(c); err != nil {
		return nil, err
	}
	if err := v.openStore(c); err != nil {
		return nil, err
	}
	if err := v.openReplica(c); err != nil {
		return nil, err
	}
	if err := v.openReign(c); err != nil {
		return nil, err
	}
	if err := v.openServer(c); err != nil {
		return nil, err
	}
	if env.Control != nil { // without a control API nobody can give these commands
		v.control(c)
		v.promotions()
	}
	for _, l := range c.Listeners {
		n, err := env.Listen(l)
		if err != nil {
			return nil, err
		}
		v.listeners = append(v.listeners, listening{n, ldapsession.Listening{
			Name: l.Name, TLS: l.TLS, AllowPlain: slices.Contains(c.AllowPlain, l.Name)}})
	}
	if c.Ldapi != nil {
		n, err := c.Ldapi.listen()
		if err != nil {
			return nil, err
		}
		v.listeners = append(v.listeners, listening{n, ldapsession.Listening{Name: "ldapi", Local: true, AllowPlain: true}})
	}
	return v, nil
}

func (v *vault) openTLS(c *Config) (err error) {
	cert, key := "", ""
	switch {
	case c.PublicTLS != nil:
		cert, key = c.PublicTLS.CertFile, c.PublicTLS.KeyFile
	case c.Identity != nil:
		cert, key = c.Identity.CertFile, c.Identity.KeyFile
	default:
		return nil
	}
	v.tls, err = pki.OpenPublic(cert, key, pki.WithClock(v.env.Clock.Now), pki.WithLog(v.env.Log))
	return err
}

func (v *vault) openStore(c *Config) error {
	opt, err := c.options(v.env.Log)
	if err != nil {
		return err
	}
	opt.Clock, opt.Metrics = v.env.Clock, v.env.Metrics
	v.store, err = dirstore.Open(opt)
	if err != nil {
		return err
	}
	v.indexes = c.Database.Indexes
	v.Undone(v.store.Close)
	return nil
}

func (v *vault) openServer(c *Config) error {
	password, err := conf.ReadSecret(c.Root.PasswordFile)
	if err != nil {
		return err
	}
	v.passwords = ldapsession.NewPasswords(ldapsession.PasswordParameters{
		Memory: int(c.Password.Memory >> 10), Passes: c.Password.Passes, Threads: c.Password.Threads,
	}, c.Password.Workers, c.Password.Queue)
	v.passwords.Remember(c.Password.CacheLife, c.Password.CacheSize, v.env.Clock)
	v.env.Metrics.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "shoal_vault_passwords_known_total",
		Help: "Passwords that were found right because they had been a short while ago, without being hashed."}, func() float64 { return float64(v.passwords.Known()) }))
	v.passwords.Scram(c.Password.ScramIterations, c.Password.scramHashes()...)
	v.env.Metrics.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "shoal_vault_passwords_waiting",
		Help: "Passwords that are being hashed or verified, or wait for it."}, func() float64 { return float64(v.passwords.Waiting()) }))
	if v.access, err = access.New(v.store, c.RootDN(), v.env.Log); err != nil {
		return err
	}
	o := ldapsession.Options{
		Store: v.store, Passwords: v.passwords, RootDN: c.RootDN(), RootPassword: string(password),
		Rights: rights(v.access, v.env.Log), Watched: v.access.Watched, Limits: c.Limits.session(), Vendor: kit.Version,
		Clock: v.env.Clock, Log: v.env.Log, Metrics: v.env.Metrics,
	}
	if o.SASL, err = v.sasl(c); err != nil {
		return err
	}
	o.PolicyDN, o.ReportInterval = c.PolicyDN(), c.Password.StateInterval
	o.Policy = &ldapsession.Policy{Quality: 1, MinLength: c.Password.MinLength}
	o.Unruled = unruled(v.store)
	if v.tls != nil {
		o.TLS = v.tls.TLS()
		if v.clientCA != nil {
			v.clientCA.Ask(o.TLS)
		}
		if o.SASL.Certificate != nil {
			o.TLS.ClientAuth = tls.RequestClientCert
			o.TLS.ClientCAs = nil // certificates of the internal CA are asked for too
		}
	}
	o.Refer, o.Lacks, o.Gate, o.Ready = v.refer, v.lacks, v.gate, v.readyToAnswer
	o.Extensions = map[string]ldapsession.Extension{ldapwire.OIDLease: v.renewal, access.OID: v.asked}
	o.Report, o.Forward = v.report, v.forward
	if v.server, err = ldapsession.New(o); err != nil {
		return err
	}
	v.Undone(v.server.Close)
	return v.showReign()
}

func (l *Limits) session() ldapsession.Limits {
	return ldapsession.Limits{Entries: l.Entries, Time: l.Time, Message: int(l.Message), MessageAnonymous: int(l.MessageAnonymous),
		FilterTerms: l.FilterTerms, FilterDepth: l.FilterDepth, Sorted: l.Sorted, Operations: l.Operations, Idle: l.Idle, Unbound: l.Unbound, Write: l.Write}
}

// Run serves until ctx ends.
func (v *vault) Run(ctx context.Context) error {
	failed := make(chan error, len(v.listeners))
	var all sync.WaitGroup
	v.changing.Lock()
	v.parent = ctx
	v.act()
	v.changing.Unlock()
	defer v.rest() // the store must not be closed under it
	for _, l := range v.listeners {
		all.Go(func() {
			if err := v.server.Serve(l.l, l.how); !errors.Is(err, ldapsession.ErrServerClosed) {
				failed <- err
			}
		})
	}
	select {
	case <-ctx.Done():
		return nil // Close ends the rest
	case err := <-failed:
		return err
	}
}

// Drain finishes what is under way and takes leave of the clients.
func (v *vault) Drain(ctx context.Context) error { return v.server.Shutdown(ctx) }

// Reload takes up limits, indexes, the root password and the certificate.
func (v *vault) Reload(_ context.Context, c kit.Config) error {
	n := c.(*Config)
	password, err := conf.ReadSecret(n.Root.PasswordFile)
	if err != nil {
		return err
	}
	if v.tls != nil {
		if err := v.tls.Reload(); err != nil {
			return err
		}
	}
	if !slices.Equal(n.Database.Indexes, v.indexes) {
		if err := v.store.SetIndexes(n.Database.Indexes); err != nil {
			return err
		}
		v.indexes = n.Database.Indexes
	}
	if v.clientCA != nil {
		if err := v.clientCA.Reload(); err != nil {
			return err
		}
	}
	v.server.SetLimits(n.Limits.session())
	v.server.SetRootPassword(string(password))
	return nil
}

// Ready returns nil when the database can be read and holds the top entry: that of a shadow once it has
// got the whole directory, however old that is by now.
func (v *vault) Ready(context.Context) error {
	if err := v.store.Check(); err != nil {
		return err
	}
	return v.readyToAnswer()
}

// Status is shown to operators.
func (v *vault) Status(context.Context) map[string]any {
	age := ""
	csns := v.store.ContextCSN()
	for _, c := range csns {
		age = dirstore.Age(c, v.env.Clock.Now()).Round(time.Second).String()
	}
	status := map[string]any{
		"suffix":         v.store.Suffix(),
		"entries":        v.store.Entries(),
		"context_csn":    csns,
		"last_change":    age,
		"database_bytes": v.store.Size(),
		"connections":    v.server.Connections(),
		"passwords":      fmt.Sprintf("%d waiting", v.passwords.Waiting()),
	}
	if b := v.store.Building(); len(b.Indexes) > 0 {
		status["indexes_building"] = fmt.Sprintf("%s: %d of %d entries", strings.Join(b.Indexes, " "), b.Done, b.Total)
	}
	v.reignStatus(status)
	return status
}
