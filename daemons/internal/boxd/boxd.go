// Package boxd is the role box: it serves mailboxes over IMAP and POP3, takes mail in over LMTP, and exchanges hints with the other
// boxes. It keeps nothing itself: mail is on the volumes, accounts are in the directory.
//
// Start: refused while a volume is not mounted, is another one than the configuration says, or was written by a newer
// version. A directory that is away does not stop the start (all servers of a service may be coming up at once): sessions
// answer "try again later" and the box is not ready until it has reached the directory once.
//
// Readiness: the volumes answer, and the directory does. A box that has reached the directory before stays ready without it
// for as long as answers of the past are used (cache_stale_life).
//
// The directory's entry of this box (roles, addresses) is written by the operator's tools. A box only reads it, and says in
// its log when it does not list the address under which this box takes hints, or gives a volume another id than the
// configuration.
//
// End: listeners close, clients get BYE (421 over LMTP), interest entries are taken out of the mailboxes, and what remains is
// closed in the reverse order of the start.
package boxd

import (
	"context"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"shoal/daemons/internal/authn"
	"shoal/daemons/internal/conf"
	"shoal/daemons/internal/deliver"
	"shoal/daemons/internal/dirclient"
	"shoal/daemons/internal/filter"
	"shoal/daemons/internal/hint"
	"shoal/daemons/internal/imapsession"
	"shoal/daemons/internal/kit"
	"shoal/daemons/internal/lmtpsession"
	"shoal/daemons/internal/mailstore"
	"shoal/daemons/internal/migrate"
	"shoal/daemons/internal/pki"
	"shoal/daemons/internal/popsession"
	"shoal/daemons/internal/sievesession"
	"shoal/daemons/internal/vfs"
)

// Spec is the daemon for kit.Main.
func Spec() kit.Spec {
	return kit.Spec{
		Name:      "boxd",
		Summary:   "serves mailboxes: IMAP and POP3 for clients, LMTP for switches",
		NewConfig: func() kit.Config { return &Config{} },
		// Nothing that a box times is finer than this (docs/performance.md).
		TimerSlack: time.Millisecond,
		Build: func(ctx context.Context, env *kit.Env, c kit.Config) (kit.Service, error) {
			return build(env, c.(*Config))
		},
	}
}

// box is one running box.
type box struct {
	env    *kit.Env
	public *pki.Public
	users  *pki.ClientCA // of users' certificates; nil: they have none
	dir    *dirclient.Client
	auth   *authn.Authenticator
	told   atomic.Pointer[authn.Authenticator] // auth, once it is there, for what runs before it is made
	comes  *migrate.Migrator
	store  *mailstore.Store
	sender *hint.Sender
	hints  *hint.Server
	imap   *imapsession.Server
	pop    *popsession.Server
	sieve  *sievesession.Server
	lmtp   *lmtpsession.Server
	watch  *directoryWatch
	finder *finder

	volumes   served
	absent    []conf.Volume // that were not there at the start
	listeners []kit.Listening
	kit.Undo
}

// build constructs a box in order; what was made is closed again when a later part fails.
func build(env *kit.Env, c *Config) (_ kit.Service, err error) {
	b := &box{env: env}
	// A box holds many quiet connections: garbage on top of what they keep is dearer than collecting it.
	kit.PaceCollector(kit.Garbage{Percent: 33, Quiet: 3 << 20, Busy: 24 << 20})
	defer func() {
		if err != nil {
			err = errors.Join(err, b.Close())
		}
	}()
	if err := kit.OwnIdentity(env.Creds, pki.RoleBox, env.Server); err != nil {
		return nil, err
	}
	if b.public, err = env.Public(c.PublicTLS); err != nil {
		return nil, err
	}
	if b.users, err = env.Clients(c.PublicTLS); err != nil {
		return nil, err
	}
	if err := b.buildDirectory(c); err != nil {
		return nil, err
	}
	if err := b.buildStore(c); err != nil {
		return nil, err
	}
	if err := b.buildLogin(c); err != nil {
		return nil, err
	}
	if err := b.buildSessions(c); err != nil {
		return nil, err
	}
	for _, l := range c.Listeners {
		if err := b.listen(l); err != nil {
			return nil, err
		}
	}
	return b, nil
}

func (b *box) buildDirectory(c *Config) error {
	o, err := dirclient.OptionsOf(c.Directory, b.env.Creds)
	if err != nil {
		return err
	}
	o.Log, o.Metrics, o.Clock = b.env.Log, b.env.Metrics, b.env.Clock
	o.Changed = func(names map[string]bool) {
		if a := b.told.Load(); a != nil {
			a.Changed(names)
		}
	}
	if b.dir, err = dirclient.New(o); err != nil {
		return err
	}
	b.Undone(b.dir.Close)
	b.sender, err = hint.NewSender(hint.SenderOptions{
		Server: b.env.Server, Directory: b.dir, TLS: b.env.Creds.ClientTLS(pki.RoleBox, pki.RoleSwitch), Settings: &c.Hints,
		Log: b.env.Log, Metrics: b.env.Metrics, Clock: b.env.Clock,
	})
	if err != nil {
		return err
	}
	b.Undone(b.sender.Close)
	return nil
}

func (b *box) buildStore(c *Config) (err error) {
	address, err := c.hintAddress()
	if err != nil {
		return err
	}
	b.store, err = mailstore.New(mailstore.Options{
		Server: b.env.Server, FS: vfs.OS(), Clock: b.env.Clock, Log: b.env.Log, Metrics: b.env.Metrics,
		HintAddress: address, Notify: b.sender.Notify,
		Retention: c.Store.Retention, ReCheck: c.Store.ReCheck, CacheBytes: int64(c.Store.Cache), SummaryBytes: int64(c.Store.SummaryCache),
		StageMemory: int(c.Store.StageMemory), VolumeCalls: c.Store.VolumeCalls, CallTimeout: c.Store.CallTimeout,
		Maintain: true,
	})
	if err != nil {
		return err
	}
	b.Undone(b.store.Close)
	if b.absent, err = openVolumes(b.store, c.Volumes, b.env.Log); err != nil {
		return err
	}
	for _, v := range c.Volumes {
		b.volumes.add(v)
	}
	b.watch = newDirectoryWatch(b.dir, b.env, address, &b.volumes, c.Directory.CacheStaleLife, b.store.SetVolumeClosed)
	b.finder = &finder{folder: c.Store.VolumeFolder, store: b.store, dir: b.dir, volumes: &b.volumes, env: b.env}
	b.hints, err = hint.NewServer(hint.ServerOptions{
		Store: b.store, Reports: reports{b}, TLS: b.env.Creds.ServerTLS(pki.RoleBox, pki.RoleSwitch), Settings: &c.Hints,
		Log: b.env.Log, Metrics: b.env.Metrics, Clock: b.env.Clock,
	})
	if err != nil {
		return err
	}
	b.Undone(b.hints.Close)
	return nil
}

func (b *box) buildSessions(c *Config) (err error) {
	o := imapsession.Options{
		Store: b.store, Auth: b.auth, Directory: b.dir, Server: b.env.Server, Version: kit.Version,
		Log: b.env.Log, Metrics: b.env.Metrics, Clock: b.env.Clock, Limits: c.IMAP,
	}
	if b.public != nil {
		o.TLS = b.public.TLS()
		if b.users != nil {
			b.users.Ask(o.TLS)
		}
	}
	if b.imap, err = imapsession.New(o); err != nil {
		return err
	}
	b.Undone(b.imap.Close)
	b.pop, err = popsession.New(popsession.Options{
		Store: b.store, Auth: b.auth, TLS: o.TLS, Server: b.env.Server,
		Log: b.env.Log, Metrics: b.env.Metrics, Clock: b.env.Clock, Limits: c.POP,
	})
	if err != nil {
		return err
	}
	b.Undone(b.pop.Close)
	b.sieve, err = sievesession.New(sievesession.Options{
		Store: b.store, Auth: b.auth, TLS: o.TLS, Server: b.env.Server,
		Log: b.env.Log, Metrics: b.env.Metrics, Clock: b.env.Clock, Limits: c.ManageSieve, Redirects: c.Sieve.Redirects,
	})
	if err != nil {
		return err
	}
	b.Undone(b.sieve.Close)
	scripts, err := b.buildFilter(c)
	if err != nil {
		return err
	}
	connections := 0 // the listeners bound them; the server adds no bound of its own
	for _, l := range c.Listeners {
		if kind(l) == kindLMTP {
			connections += l.MaxConnections
		}
	}
	duplicates := c.LMTP.DuplicateWindow
	if duplicates == 0 {
		duplicates = -1
	}
	b.lmtp, err = lmtpsession.New(lmtpsession.Options{
		Hostname: b.env.Server, Store: b.store, Accounts: b.dir,
		TLS:             b.env.Creds.ServerTLS(pki.RoleSwitch, pki.RoleOperator),
		MaxMessageBytes: int64(c.LMTP.MaxMessage), MaxRecipients: c.LMTP.MaxRecipients, ReadTimeout: c.LMTP.ReadTimeout,
		Filter:  scripts,
		Domains: b.dir, Separators: c.Sieve.Separators,
		MaxConnections: connections, DeferOverQuota: c.LMTP.OverQuota == "defer", DuplicateWindow: duplicates,
		Log: b.env.Log, Metrics: b.env.Metrics, Clock: b.env.Clock,
	})
	if err != nil {
		return err
	}
	b.Undone(b.lmtp.Close)
	return nil
}

// buildFilter makes what runs the accounts' scripts, and the way to the switches for what they send.
func (b *box) buildFilter(c *Config) (*filter.Filter, error) {
	o := filter.Options{
		Store: b.store, Domains: b.dir, Hostname: b.env.Server, Version: kit.Version, Settings: c.Sieve,
		Log: b.env.Log, Metrics: b.env.Metrics, Clock: b.env.Clock,
	}
	if c.Relay != nil {
		out, err := deliver.New(deliver.Options{
			Settings: *c.Relay, TLS: b.env.Creds.ClientTLS(pki.RoleSwitch), Name: b.env.Server,
			Log: b.env.Log, Metrics: b.env.Metrics, Clock: b.env.Clock,
		})
		if err != nil {
			return nil, err
		}
		b.Undone(out.Close)
		o.Outbox = out
	}
	return filter.New(o)
}

// listen binds a listener and says who serves it.
func (b *box) listen(c conf.Listener) error {
	var serve func(net.Listener) error
	var options []kit.ListenOption
	switch kind(c) {
	case kindIMAP:
		serve = b.imap.Serve
		options = append(options, kit.WithFarewell("* BYE too many connections, try again later\r\n"))
	case kindIMAPS:
		serve = b.imap.ServeTLS
	case kindPOP:
		serve = b.pop.Serve
		options = append(options, kit.WithFarewell("-ERR [SYS/TEMP] too many connections, try again later\r\n"))
	case kindPOPS:
		serve = b.pop.ServeTLS
	case kindSieve:
		serve = b.sieve.Serve
		options = append(options, kit.WithFarewell("BYE (TRYLATER) \"Too many connections, try again later\"\r\n"))
	case kindLMTP:
		serve = b.lmtp.Serve
		options = append(options, kit.WithFarewell("421 4.3.2 Too many connections, try again later\r\n"))
	case kindHint:
		serve = b.hints.Serve
	}
	l, err := b.env.Listen(c, options...)
	if err != nil {
		return err
	}
	b.listeners = append(b.listeners, kit.Listening{Name: c.Name, Listener: l, Serve: serve})
	return nil
}

// Run serves until ctx ends.
func (b *box) Run(ctx context.Context) error {
	failed := make(chan error, len(b.listeners))
	var all sync.WaitGroup
	kit.Serve(b.listeners, &all, failed)
	all.Go(func() { b.watch.run(ctx) })
	all.Go(func() { b.auth.Run(ctx) })
	all.Go(func() { awaitVolumes(ctx, b.env.Clock, b.store, b.absent, b.env.Log) })
	all.Go(func() { b.finder.run(ctx) })
	all.Go(func() { b.comes.Run(ctx) })
	select {
	case <-ctx.Done():
		return nil // Close ends the rest
	case err := <-failed:
		return err
	}
}

// Drain says goodbye to the sessions. Hints are taken until the end.
func (b *box) Drain(ctx context.Context) error {
	var all sync.WaitGroup
	errs := make([]error, 4)
	for i, shutdown := range []func(context.Context) error{b.imap.Shutdown, b.pop.Shutdown, b.sieve.Shutdown, b.lmtp.Shutdown} {
		all.Go(func() { errs[i] = shutdown(ctx) })
	}
	all.Wait()
	return errors.Join(errs...)
}

// Reload takes up what may change while the box serves.
func (b *box) Reload(_ context.Context, c kit.Config) error {
	if err := b.addVolumes(c.(*Config)); err != nil {
		return err
	}
	if b.public != nil {
		if err := b.public.Reload(); err != nil {
			return err
		}
	}
	if b.users != nil {
		if err := b.users.Reload(); err != nil {
			return err
		}
	}
	b.imap.SetLimits(c.(*Config).IMAP)
	b.pop.SetLimits(c.(*Config).POP)
	b.sieve.SetLimits(c.(*Config).ManageSieve)
	b.dir.Flush()
	return nil
}
