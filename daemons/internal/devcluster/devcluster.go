// Package devcluster runs the whole service on one machine, for `make up` and for the black-box tests:
// the directory with two shadows, two switches, two boxes and HAProxy in front, on a data folder and a range of loopback
// ports. Nothing in it is a stand-in: the daemons are the programs that run in production, on generated
// configurations, certificates and secrets.
//
// Run prepares the folder (layout.go: what lies where; ports.go: who listens where), starts everything in
// order, restarts what dies, follows the logs, and drains in order at the end. Only one Run can have a
// folder (lock.go). At the next start, configurations are written anew; the CA, secrets, directory and mail
// stay.
//
// Invariants: everything listens on loopback; secrets are in files of mode 0600 and never in arguments
// or logs; a daemon that Run started does not outlive it, even if Run's process is killed.
//
// Left out on purpose: users of their own for the daemons (they run as whoever started them), resource
// limits, several machines. Those are matters of the images.
package devcluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"shoal/daemons/internal/dirclient"
)

// Bounds of starting and stopping.
const (
	startWithin = 90 * time.Second
	drainGrace  = 20 * time.Second // of each kind of server, then it is killed
	failsAtOnce = 3                // ends in a row after which a start is given up
)

// Options of Run.
type Options struct {
	Layout
	Bin     string    // folder of switchd, boxd and vaultd
	Version string    // shown at the start
	Out     io.Writer // progress, how to connect, logs
	Quiet   bool      // do not follow the servers' logs
	JSON    bool      // say how to connect as JSON
	// Directory is the program that holds the directory: vaultd, or OpenLDAP's slapd in its place. "" is vaultd.
	Directory string
	// Hurry, when closed, ends the drain at once: what runs is killed.
	Hurry <-chan struct{}
}

// cluster is one running service.
type cluster struct {
	Options
	haproxy string
	slapd   string // "" where vaultd is the directory
	procs   map[string]*process
	mu      sync.Mutex // of Out
}

// Run starts the service and keeps it running until ctx ends, then drains it. An error at the start names
// the cause and what to do; what was started by then is stopped again.
func Run(ctx context.Context, o Options) error {
	c := &cluster{Options: o, procs: map[string]*process{}}
	unlock, err := c.prepare()
	if err != nil {
		return err
	}
	defer unlock()
	defer c.drain()

	started, cancel := context.WithTimeout(ctx, startWithin)
	defer cancel()
	begin := time.Now()
	if err := c.startAll(started); err != nil {
		if ctx.Err() != nil {
			return nil // stopped while starting
		}
		return err
	}
	c.say("ready after %.1f s", time.Since(begin).Seconds())
	if err := c.connectInfo(); err != nil {
		return err
	}
	if err := os.WriteFile(c.readyFile(), nil, 0o600); err != nil {
		return err
	}
	defer os.Remove(c.readyFile())
	c.follow(ctx)
	return nil
}

// readyFile is there while the service has been started whole and is not yet draining.
func (l Layout) readyFile() string { return l.path("run", "ready") }

// Ready says whether the service on this folder runs and has been started whole.
func (l Layout) Ready() bool {
	_, running := l.Running()
	_, ready := os.Stat(l.readyFile())
	return running == nil && ready == nil
}

// prepare makes everything on disk, with nothing running yet. The caller calls unlock at the end.
func (c *cluster) prepare() (unlock func(), err error) {
	if c.haproxy, err = findHAProxy(); err != nil {
		return nil, err
	}
	switch c.Directory {
	case "", DirectoryVault:
	case DirectorySlapd:
		if c.slapd, err = checkSlapd(); err != nil {
			return nil, err
		}
	default:
		return nil, fmt.Errorf("directory %q: %s or %s", c.Directory, DirectoryVault, DirectorySlapd)
	}
	for _, s := range fleet {
		if _, err := os.Stat(filepath.Join(c.Bin, s.program())); err != nil {
			return nil, fmt.Errorf("%s is not in %s: build the programs with make build: %w", s.program(), c.Bin, err)
		}
	}
	if err := c.claim(); err != nil {
		return nil, err
	}
	held, err := c.acquire()
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			held.release()
		}
	}()
	os.Remove(c.readyFile())
	if err := c.checkPorts(); err != nil {
		return nil, err
	}
	if err := c.ensureCerts(); err != nil {
		return nil, err
	}
	volumeID, err := c.ensureVolume()
	if err != nil {
		return nil, err
	}
	if err := c.writeConfigs(volumeID); err != nil {
		return nil, err
	}
	if err := c.checkHAProxy(c.haproxy); err != nil {
		return nil, err
	}
	return held.release, nil
}

// startAll starts the servers: the directory's master, then its content, then who reads it.
func (c *cluster) startAll(ctx context.Context) error {
	c.say("starting the service on %s", c.Data)
	if err := c.startServer(master); err != nil {
		return err
	}
	// A new directory gets the entries with which the shadows log in; later, a master writes only while its shadows
	// are there, and may be another one than at first.
	again := c.seeded()
	if !again {
		if err := c.waitReady(ctx, master); err != nil {
			return err
		}
		if err := c.seed(ctx); err != nil {
			return fmt.Errorf("content of the directory: %w", err)
		}
	}
	for _, s := range of(roleVault) {
		if s.shadow() {
			if err := c.startServer(s); err != nil {
				return err
			}
		}
	}
	if again {
		if err := c.waitReady(ctx, master); err != nil {
			return err
		}
		err := poll(ctx, func() (bool, error) {
			err := c.seed(ctx)
			if errors.Is(err, dirclient.ErrUnavailable) {
				return false, nil
			}
			return true, err
		})
		if err != nil {
			return fmt.Errorf("content of the directory: %w", err)
		}
	}
	if err := c.startHAProxy(); err != nil {
		return err
	}
	for _, s := range of(roleVault) {
		if err := c.waitReady(ctx, s); err != nil {
			return err
		}
	}
	if err := c.waitBackends(ctx, "be_ldap"); err != nil {
		return err
	}
	for _, role := range []string{roleBox, roleSwitch} {
		for _, s := range of(role) {
			if err := c.startServer(s); err != nil {
				return err
			}
		}
	}
	for _, role := range []string{roleBox, roleSwitch} {
		for _, s := range of(role) {
			if err := c.waitReady(ctx, s); err != nil {
				return err
			}
		}
	}
	return c.waitBackends(ctx, "")
}

func (c *cluster) startServer(s server) error {
	if s.role == roleVault && c.slapd != "" {
		return c.startSlapd(s)
	}
	return c.start(&process{
		name:   s.name,
		path:   filepath.Join(c.Bin, s.program()),
		args:   []string{"-config", c.conf(s.name)},
		stopBy: syscall.SIGTERM,
	})
}

func (c *cluster) startHAProxy() error {
	// -db: one process in the foreground, no master that would hold the signals back. -q: say things once, by the log.
	return c.start(&process{
		name:   balancerName,
		path:   c.haproxy,
		args:   []string{"-db", "-q", "-f", c.haproxyConf()},
		stopBy: syscall.SIGTERM,
	})
}

func (c *cluster) start(p *process) error {
	p.dir = c.run()
	p.log = c.log(p.name)
	p.pidFile = c.pidFile(p.name)
	p.grace = drainGrace
	p.say = c.say
	if err := rotate(p.log); err != nil {
		return err
	}
	if err := p.start(); err != nil {
		return fmt.Errorf("start %s: %w", p.name, err)
	}
	c.procs[p.name] = p
	return nil
}

// waitReady asks a server's management address until it says yes.
func (c *cluster) waitReady(ctx context.Context, s server) error {
	if s.role == roleVault && c.slapd != "" {
		return c.waitSlapd(ctx, s)
	}
	url := "http://" + c.own(s, portManagement) + "/readyz"
	last := "no answer yet"
	err := poll(ctx, func() (bool, error) {
		if err := c.checkAlive(s.name); err != nil {
			return false, err
		}
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return false, err
		}
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			last = err.Error()
			return false, nil
		}
		defer response.Body.Close()
		text, _ := io.ReadAll(io.LimitReader(response.Body, 4096))
		last = response.Status + ": " + strings.TrimSpace(string(text))
		return response.StatusCode == http.StatusOK, nil
	})
	if errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("%s was not ready within %v (%s); the end of its log:\n%s", s.name, startWithin, last, tailOf(c.log(s.name), 15))
	}
	return err
}

// waitBackends waits until the balancer finds every server of a backend up, of all backends if it is "".
func (c *cluster) waitBackends(ctx context.Context, backend string) error {
	var down []string
	err := poll(ctx, func() (bool, error) {
		if err := c.checkAlive(balancerName); err != nil {
			return false, err
		}
		stats, err := Balancer{c.haproxySocket()}.Servers(ctx)
		if err != nil {
			down = []string{err.Error()}
			return false, nil
		}
		down = nil
		for _, s := range stats {
			if strings.HasPrefix(s.Backend, "be_") && (backend == "" || s.Backend == backend) && !s.Up() {
				down = append(down, fmt.Sprintf("%s of %s is %s (%s)", s.Name, s.Backend, s.Status, s.Check))
			}
		}
		return len(down) == 0, nil
	})
	if errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("the balancer does not find every server up: %s", strings.Join(down, ", "))
	}
	return err
}

// checkAlive fails when a program ends again and again.
func (c *cluster) checkAlive(name string) error {
	if _, restarts := c.procs[name].alive(); restarts >= failsAtOnce {
		return fmt.Errorf("%s does not start; the end of its log %s:\n%s", name, c.log(name), tailOf(c.log(name), 15))
	}
	return nil
}

// poll calls f every 50 ms until it says true or fails, or ctx ends.
func poll(ctx context.Context, f func() (bool, error)) error {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		if ok, err := f(); ok || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// drain stops everything, in the order in which mail flows: nothing new comes in at the balancer; the
// switches finish what they have accepted and hand it to the boxes; then the boxes; then the directory, and
// last the balancer, through which the others talk.
func (c *cluster) drain() {
	if len(c.procs) == 0 {
		return
	}
	os.Remove(c.readyFile())
	c.say("draining")
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		select {
		case <-c.Hurry:
			cancel()
		case <-ctx.Done():
		}
	}()
	if c.procs[balancerName] != nil {
		balancer := Balancer{c.haproxySocket()}
		for _, f := range frontends {
			if f.proxy {
				if err := balancer.disableFrontend(ctx, f.name); err != nil {
					c.say("balancer: %v", err)
					break
				}
			}
		}
	}
	for _, role := range []string{roleSwitch, roleBox, roleVault} {
		var wg sync.WaitGroup
		for _, s := range of(role) {
			if p := c.procs[s.name]; p != nil {
				wg.Go(func() { p.stop(ctx) })
			}
		}
		wg.Wait()
	}
	if p := c.procs[balancerName]; p != nil {
		p.stop(ctx)
	}
	c.say("stopped; the mail stays in %s", c.Data)
}

// say prints a line of our own.
func (c *cluster) say(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	fmt.Fprintf(c.Out, "shoal: "+format+"\n", args...)
}
