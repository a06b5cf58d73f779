package kit

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"shoal/daemons/internal/conf"
	"shoal/daemons/internal/pki"
)

// Bounds of the end of a daemon, beyond the drain: how long Run may take to return after its context
// ended, and how long Close may take.
const (
	runGrace   = 5 * time.Second
	closeGrace = 5 * time.Second
)

// reloadTimeout bounds the taking up of a new configuration.
const reloadTimeout = 30 * time.Second

// errStopped ends a daemon that was told to stop before it was built, or a second time.
var errStopped = errors.New("told to stop at once")

// process is one run of a daemon.
type process struct {
	spec    Spec
	path    string
	world   world
	level   *slog.LevelVar
	log     *slog.Logger
	env     *Env
	stats   *processStats
	sd      *systemd
	started time.Time

	drainAsked chan struct{} // by the control API
	draining   atomic.Bool

	mu      sync.Mutex
	config  Config  // in use; replaced by a reload
	service Service // nil until it is built
}

func newProcess(spec Spec, path string, config Config, w world) *process {
	c := config.Common()
	p := &process{
		spec: spec, path: path, world: w, config: config, level: new(slog.LevelVar),
		started: w.clock.Now(), drainAsked: make(chan struct{}, 1),
	}
	p.log = newLogger(logBlock(c), p.level, w.stderr, spec.Name, c.Server.Name)
	p.env = &Env{
		Log: p.log, Metrics: prometheus.NewRegistry(), Clock: w.clock, Server: c.Server.Name,
		Boot: bootName(p.started), Control: http.NewServeMux(),
	}
	p.sd = newSystemd(p.log)
	return p
}

// logBlock and drainBlock are the blocks of a configuration, or their defaults.
func logBlock(c Common) conf.Log {
	if c.Log != nil {
		return *c.Log
	}
	var l conf.Log
	conf.SetDefaults(&l)
	return l
}

func drainBlock(c Common) conf.Drain {
	if c.Drain != nil {
		return *c.Drain
	}
	var d conf.Drain
	conf.SetDefaults(&d)
	return d
}

// run starts the daemon, serves, and ends it.
func (p *process) run() (err error) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	defer func() {
		if !errors.Is(err, errStopped) { // at once means that nothing is waited for
			err = errors.Join(err, p.env.cleanups.run())
		}
	}()
	if err := p.start(); err != nil {
		return err
	}
	if err := p.build(ctx); err != nil {
		return err
	}
	return p.serve(ctx, cancel)
}

// start does what comes before the role, in the order that the package comment gives.
func (p *process) start() error {
	common := p.config.Common()
	p.log.Info("starting", "version", Version, "commit", revision(), "go", runtime.Version(), "config", p.path, "boot", p.env.Boot)
	files, err := raiseFileLimit()
	if err != nil {
		return err
	}
	listeners := conf.Find[conf.Listener](p.config)
	wanted := uint64(256)
	for _, l := range listeners {
		wanted += uint64(l.MaxConnections)
	}
	if wanted > files {
		p.log.Warn("the limit of open files is below what max_connections allows: raise LimitNOFILE= in the unit, or lower max_connections",
			"limit", files, "wanted", wanted)
	}
	all := listeners
	if common.Management != nil {
		all = append(all, conf.Listener{Name: "management", Address: common.Management.Address})
	}
	if common.Control != nil {
		if common.Identity == nil {
			return fmt.Errorf("%s: the control block needs an identity block: its clients are known by certificates", p.path)
		}
		all = append(all, conf.Listener{Name: "control", Address: common.Control.Address})
	}
	if err := bindAll(p.env, all); err != nil {
		return err
	}
	if err := dropRoot(common.Server.User, p.log); err != nil {
		return err
	}
	if err := checkFiles(context.Background(), p.config, p.world.clock); err != nil {
		return err
	}
	var expiry func() time.Time
	if id := common.Identity; id != nil {
		creds, err := pki.Load(identityFiles(id), pki.WithClock(p.world.clock.Now), pki.WithLog(p.log))
		if err != nil {
			return err
		}
		p.env.Creds, expiry = creds, creds.NotAfter
		p.warnExpiry("certificate of this server", creds.NotAfter())
	}
	p.stats = newProcessStats(p.env.Metrics, p.spec.Name, expiry)
	p.stats.loaded.Set(float64(p.world.clock.Now().Unix()))
	if common.Management != nil {
		if err := p.serveManagement(common.Management.Address); err != nil {
			return err
		}
	}
	return nil
}

// expiryNotice is how long before its end a certificate is worth a warning at the start.
const expiryNotice = 14 * 24 * time.Hour

func (p *process) warnExpiry(what string, at time.Time) {
	if left := at.Sub(p.world.clock.Now()); left < expiryNotice {
		p.log.Warn(what+" expires soon: renew it", "expires", at, "days", int(left.Hours()/24))
	}
}

// build builds the role; a signal meanwhile ends the start.
func (p *process) build(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type result struct {
		service Service
		err     error
	}
	built := make(chan result, 1)
	go func() {
		s, err := p.spec.Build(ctx, p.env, p.config)
		built <- result{s, err}
	}()
	for stopped := false; ; {
		select {
		case r := <-built:
			switch {
			case r.err != nil:
				return r.err
			case stopped:
				return errors.Join(errStopped, r.service.Close())
			}
			p.mu.Lock()
			p.service = r.service
			p.mu.Unlock()
			return p.serveControl()
		case s := <-p.world.signals:
			if s == syscall.SIGHUP {
				continue // the configuration has just been read
			}
			if stopped {
				return errStopped
			}
			stopped = true
			p.log.Info("told to stop during the start", "signal", s.String())
			cancel()
		}
	}
}

// serve runs the role until it is told to stop, and ends it.
func (p *process) serve(ctx context.Context, cancel context.CancelFunc) error {
	ran := make(chan error, 1)
	go func() { ran <- p.service.Run(ctx) }()
	p.sd.ready("Serving")
	p.log.Info("ready to serve")

	var feed <-chan time.Time
	if p.sd.watchdog > 0 {
		t := time.NewTicker(p.sd.watchdog)
		defer t.Stop()
		feed = t.C
	}
	var feeding atomic.Bool
	reloaded := make(chan struct{}, 1)
	reloading, again := false, false
	drained := make(chan struct{})
	drain := func(why string) {
		p.draining.Store(true)
		p.stats.draining.Set(1)
		p.log.Info("draining", "why", why)
		go func() { p.drain(ctx); close(drained) }()
	}
	for {
		select {
		case s := <-p.world.signals:
			switch {
			case s == syscall.SIGHUP && p.draining.Load():
				p.log.Info("not reloading: the daemon drains")
			case s == syscall.SIGHUP && reloading:
				again = true
				p.log.Info("a reload is under way: another follows it")
			case s == syscall.SIGHUP:
				reloading = true
				go func() { p.reload(ctx); reloaded <- struct{}{} }()
			case !p.draining.Load():
				drain(s.String())
			default:
				p.log.Warn("second signal: ending at once", "signal", s.String())
				return errStopped
			}
		case <-reloaded:
			if reloading = again && !p.draining.Load(); reloading {
				again = false
				go func() { p.reload(ctx); reloaded <- struct{}{} }()
			}
		case <-p.drainAsked:
			if !p.draining.Load() {
				drain("control API")
			}
		case <-feed:
			if feeding.CompareAndSwap(false, true) {
				go func() { p.sd.feed(ctx, p.service); feeding.Store(false) }()
			}
		case err := <-ran:
			if err == nil {
				err = errors.New("the service ended by itself")
			}
			return errors.Join(err, p.close())
		case <-drained:
			cancel()
			return p.finish(ran)
		}
	}
}

// drain lets the sessions end, within the bound of the configuration even if the role hangs.
func (p *process) drain(ctx context.Context) {
	d := drainBlock(p.current().Common())
	p.sd.stopping(d.Delay + d.Timeout + runGrace + closeGrace)
	if d.Delay > 0 {
		t := p.world.clock.NewTimer(d.Delay)
		select {
		case <-t.C():
		case <-ctx.Done():
			t.Stop()
			return
		}
	}
	ctx, cancel := context.WithTimeout(ctx, d.Timeout)
	defer cancel()
	begin := p.world.clock.Boot()
	err := within(ctx, func() error { return p.service.Drain(ctx) })
	took := p.world.clock.Boot() - begin
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		p.log.Warn("drain took longer than its timeout: what is left is cut off", "timeout", d.Timeout.String())
	case err != nil && ctx.Err() == nil:
		p.log.Error("drain failed", "error", err)
	case err == nil:
		p.log.Info("drained", "took", took.String())
	}
}

// finish waits for Run, whose context has ended, and closes.
func (p *process) finish(ran <-chan error) error {
	var failed error
	t := time.NewTimer(runGrace)
	defer t.Stop()
	select {
	case err := <-ran:
		if err != nil && !errors.Is(err, context.Canceled) {
			failed = err
		}
	case <-t.C:
		p.log.Warn("the service does not end: leaving without it", "after", runGrace.String())
	case s := <-p.world.signals:
		p.log.Warn("second signal: ending at once", "signal", s.String())
		return errStopped
	}
	if err := errors.Join(failed, p.close()); err != nil {
		return err
	}
	p.log.Info("stopped")
	return nil
}

// close closes the role, within a bound.
func (p *process) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), closeGrace)
	defer cancel()
	if err := within(ctx, p.service.Close); err != nil {
		return fmt.Errorf("close: %w", err)
	}
	return nil
}

// current is the configuration in use.
func (p *process) current() Config {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.config
}

// running is the service, or nil while it is built.
func (p *process) running() Service {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.service
}

// hostname is for the status page only.
func hostname() string {
	name, err := os.Hostname()
	if err != nil {
		return "unknown"
	}
	return name
}
