// Package switchd is the role switch: it takes mail in over SMTP, from other servers and from users who log in, asks the
// directory who gets it, and hands it over LMTP to the boxes while it comes in. What cannot be delivered at once, and what
// goes to other systems, it keeps in the queue, which it shares with the other switches (package queue) and works (package relay).
//
// Where mail goes is one setting, lmtp { addresses }: the balancer in front of all boxes, or a box assigned to this switch by
// its name in the directory, or the one with the other as its fallback.
//
// Start: a directory or a box that is away does not stop it. Clients are answered "try again later" meanwhile.
//
// Readiness: the directory has been reached once, and either answers or did so within the time for which answers of
// the past are used (cache_stale_life). A box that is away does not make a switch unready: every other switch would be so too,
// and a client that is told 451 knows more than one that finds no server.
//
// End: listeners close, clients get 421 as soon as they are in no transaction, and what remains is closed in the reverse
// order of the start.
package switchd

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"

	"shoal/daemons/internal/authn"
	"shoal/daemons/internal/deliver"
	"shoal/daemons/internal/dirclient"
	"shoal/daemons/internal/hint"
	"shoal/daemons/internal/kit"
	"shoal/daemons/internal/migrate"
	"shoal/daemons/internal/outbound"
	"shoal/daemons/internal/pki"
	"shoal/daemons/internal/queue"
	"shoal/daemons/internal/route"
	"shoal/daemons/internal/smtpsession"
)

// Spec is the daemon for kit.Main.
func Spec() kit.Spec {
	return kit.Spec{
		Name:      "switchd",
		Summary:   "takes mail in over SMTP and hands it to the boxes",
		NewConfig: func() kit.Config { return &Config{} },
		Build: func(ctx context.Context, env *kit.Env, c kit.Config) (kit.Service, error) {
			return build(env, c.(*Config))
		},
	}
}

// mailSwitch is one running switch.
type mailSwitch struct {
	env       *kit.Env
	public    *pki.Public
	users     *pki.ClientCA // of users' certificates; nil: they have none
	dir       *dirclient.Client
	auth      *authn.Authenticator
	sender    *hint.Sender
	hints     *hint.Server
	router    *route.Router
	boxes     *deliver.Transport
	directory *dirclient.Presence
	queue     *queue.Queue     // nil: none is configured
	remote    *outbound.Client // with queue
	work      *worker          // with queue
	traces    *smtpsession.Traces

	servers   map[string]*smtpsession.Server // by kind
	listeners []kit.Listening
	kit.Undo
}

// build constructs a switch in order; what was made is closed again when a later part fails.
func build(env *kit.Env, c *Config) (_ kit.Service, err error) {
	s := &mailSwitch{env: env, servers: make(map[string]*smtpsession.Server)}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close())
		}
	}()
	if err := kit.OwnIdentity(env.Creds, pki.RoleSwitch, env.Server); err != nil {
		return nil, err
	}
	if s.public, err = env.Public(c.PublicTLS); err != nil {
		return nil, err
	}
	if s.users, err = env.Clients(c.PublicTLS); err != nil {
		return nil, err
	}
	if err := s.buildDirectory(c); err != nil {
		return nil, err
	}
	if err := s.buildDelivery(c); err != nil {
		return nil, err
	}
	s.traces = smtpsession.NewTraces(env.Server, env.Clock)
	if c.Queue != nil {
		if err := s.buildQueue(c); err != nil {
			return nil, err
		}
	}
	if err := s.buildSessions(c); err != nil {
		return nil, err
	}
	for _, l := range c.Listeners {
		options := []kit.ListenOption{kit.WithFarewell("421 4.3.2 Too many connections, try again later\r\n")}
		serve := s.hints.Serve
		if kind(l) == kindHint {
			options = nil
		} else {
			serve = s.servers[kind(l)].Serve
		}
		bound, err := env.Listen(l, options...)
		if err != nil {
			return nil, err
		}
		s.listeners = append(s.listeners, kit.Listening{Name: l.Name, Listener: bound, Serve: serve})
	}
	return s, nil
}

func (s *mailSwitch) buildDirectory(c *Config) error {
	o, err := dirclient.OptionsOf(c.Directory, s.env.Creds)
	if err != nil {
		return err
	}
	o.Log, o.Metrics, o.Clock = s.env.Log, s.env.Metrics, s.env.Clock
	var auth atomic.Pointer[authn.Authenticator] // made after the client, which tells it of changes
	o.Changed = func(names map[string]bool) {
		if a := auth.Load(); a != nil {
			a.Changed(names)
		}
	}
	if s.dir, err = dirclient.New(o); err != nil {
		return err
	}
	s.Undone(s.dir.Close)
	s.directory = dirclient.NewPresence(s.dir, c.Directory.CacheStaleLife)
	s.sender, err = hint.NewSender(hint.SenderOptions{
		Server: s.env.Server, Directory: s.dir, TLS: s.env.Creds.ClientTLS(pki.RoleBox, pki.RoleSwitch), Settings: &c.Hints,
		Log: s.env.Log, Metrics: s.env.Metrics, Clock: s.env.Clock,
	})
	if err != nil {
		return err
	}
	s.Undone(s.sender.Close)
	from := migrate.Options{Client: s.dir, Server: s.env.Server, Settings: c.Migration.Settings(), Log: s.env.Log, Metrics: s.env.Metrics, Clock: s.env.Clock}
	from.Reach(c.Directory, o.TLS, s.env.Clock)
	comes, err := migrate.New(from) // a first login may be by submission
	if err != nil {
		return err
	}
	s.Undone(comes.Close)
	options := authn.Options{
		Directory: comes.Directory(), Suffix: s.dir.Suffix(), Settings: &c.Login, Metrics: s.env.Metrics, Clock: s.env.Clock,
		Server: s.env.Server, Peers: s.sender, Log: s.env.Log,
	}
	if s.public != nil {
		options.Certificate = s.public.Shown
	}
	if s.users != nil {
		options.Clients = s.users.Addresses
	}
	s.auth, err = authn.New(options)
	if err != nil {
		return err
	}
	auth.Store(s.auth)
	if s.env.Control != nil {
		s.env.Control.HandleFunc("GET /v1/logins", s.auth.ServeLogins)
	}
	s.hints, err = hint.NewServer(hint.ServerOptions{
		Reports: s.auth, TLS: s.env.Creds.ServerTLS(pki.RoleBox, pki.RoleSwitch), Settings: &c.Hints,
		Log: s.env.Log, Metrics: s.env.Metrics, Clock: s.env.Clock,
	})
	if err != nil {
		return err
	}
	s.Undone(s.hints.Close)
	s.router, err = route.New(route.Options{Directory: s.dir, Settings: c.Route, Metrics: s.env.Metrics})
	return err
}

func (s *mailSwitch) buildDelivery(c *Config) (err error) {
	s.boxes, err = deliver.New(deliver.Options{
		Settings: c.LMTP, Box: s.box, TLS: s.env.Creds.ClientTLS(pki.RoleBox), Name: c.hostname(),
		Log: s.env.Log, Metrics: s.env.Metrics, Clock: s.env.Clock,
	})
	if err != nil {
		return err
	}
	s.Undone(s.boxes.Close)
	return nil
}

// box gives the LMTP addresses of a box, as the directory has them now.
func (s *mailSwitch) box(ctx context.Context, name string) ([]string, error) {
	boxes, err := s.dir.Servers(ctx, pki.RoleBox)
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(boxes, func(b dirclient.Server) bool { return b.Name == name })
	if i < 0 {
		return nil, errors.New("the directory has no such box")
	}
	return boxes[i].Addresses[dirclient.ServiceLMTP], nil
}

func (s *mailSwitch) buildSessions(c *Config) error {
	metrics := smtpsession.NewMetrics(s.env.Metrics)
	for _, l := range c.Listeners {
		k := kind(l)
		if s.servers[k] != nil || k == kindHint {
			continue
		}
		o := smtpsession.Options{
			Hostname: c.hostname(), Listener: k, Submission: k == kindSubmission || k == kindSubmissions, Relay: k == kindRelay, ImplicitTLS: k == kindSubmissions,
			Router: s.router, Transport: s.boxes, Auth: s.auth, Traces: s.traces, Limits: c.SMTP,
			Log: s.env.Log, Metrics: metrics, Clock: s.env.Clock,
		}
		if k != kindSMTP {
			o.Limits = c.Submission
		}
		if s.queue != nil {
			o.Queue, o.Destination, o.Life = s.queue, s.remote.Destination, c.Relay.ExpireAfter
		}
		switch {
		case k == kindRelay:
			o.TLS = s.env.Creds.ServerTLS(pki.RoleBox)
		case s.public != nil:
			o.TLS = s.public.TLS()
			if s.users != nil && o.Submission { // another server that sends mail is not asked for one
				s.users.Ask(o.TLS)
			}
		}
		server, err := smtpsession.New(o)
		if err != nil {
			return err
		}
		s.servers[k] = server
		s.Undone(server.Close)
	}
	return nil
}

// Run serves until ctx ends.
func (s *mailSwitch) Run(ctx context.Context) error {
	failed := make(chan error, len(s.listeners)+1)
	var all sync.WaitGroup
	kit.Serve(s.listeners, &all, failed)
	all.Go(func() { s.watchDirectory(ctx) })
	all.Go(func() { s.auth.Run(ctx) })
	if s.work != nil {
		s.work.start(failed)
	}
	select {
	case <-ctx.Done():
		return nil // Close ends the rest
	case err := <-failed:
		return err
	}
}

// Drain lets each transaction come to its end.
func (s *mailSwitch) Drain(ctx context.Context) error {
	var mu sync.Mutex
	var errs []error
	var all sync.WaitGroup
	for _, server := range s.servers {
		all.Go(func() {
			err := server.Shutdown(ctx)
			mu.Lock()
			errs = append(errs, err)
			mu.Unlock()
		})
	}
	all.Wait()
	if s.work != nil {
		s.work.stop(ctx) // nothing more comes in; what is under way may end
	}
	return errors.Join(errs...)
}

// Reload takes up what may change while the switch serves.
func (s *mailSwitch) Reload(context.Context, kit.Config) error {
	if s.public != nil {
		if err := s.public.Reload(); err != nil {
			return err
		}
	}
	if s.users != nil {
		if err := s.users.Reload(); err != nil {
			return err
		}
	}
	s.dir.Flush()
	return nil
}
