package deliver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"time"

	"shoal/daemons/internal/clock"
)

// Transport is a pool of connections to a set of equal LMTP servers.
type Transport struct {
	o     Options
	s     Settings
	m     *metrics
	slots chan struct{} // one per connection in use

	mu     sync.Mutex
	idle   map[string][]*conn       // by address, the latest used last
	down   map[string]time.Duration // address -> when to try it again, on Clock.Boot
	reaper clock.Timer              // pending while idle is not empty
	closed bool
}

// New checks the options and builds a Transport. It connects to nothing yet.
func New(o Options) (*Transport, error) {
	if err := o.Settings.Validate(); err != nil {
		return nil, fmt.Errorf("deliver: %w", err)
	}
	for _, a := range o.Settings.Addresses {
		if strings.HasPrefix(a, boxPrefix) && o.Box == nil {
			return nil, fmt.Errorf("deliver: %q: there is no directory to look it up in", a)
		}
	}
	if o.Settings.MaxOpen <= 0 {
		return nil, errors.New("deliver: MaxOpen is not set: begin with DefaultSettings")
	}
	if o.Name == "" {
		o.Name = "localhost"
	}
	if o.Dial == nil {
		o.Dial = new(net.Dialer).DialContext
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Clock == nil {
		o.Clock = clock.System()
	}
	return &Transport{o: o, s: o.Settings, m: newMetrics(o.Metrics), slots: make(chan struct{}, o.Settings.MaxOpen),
		idle: make(map[string][]*conn), down: make(map[string]time.Duration)}, nil
}

// Begin starts a transaction. Nothing is sent before its first Rcpt. The transaction must be ended by
// Data or Close; when ctx ends, it fails.
func (t *Transport) Begin(ctx context.Context, env Envelope) (*Transaction, error) {
	t.mu.Lock()
	closed := t.closed
	t.mu.Unlock()
	if closed {
		return nil, ErrClosed
	}
	return &Transaction{t: t, ctx: ctx, env: env}, nil
}

// Ping reports whether at least one server takes connections and answers, within ctx.
func (t *Transport) Ping(ctx context.Context) error {
	addresses, err := t.addresses(ctx)
	if err != nil {
		return err
	}
	for _, a := range addresses {
		c, e := t.get(ctx, a)
		if e == nil {
			deadline, bounded := ctx.Deadline()
			if !bounded {
				deadline = time.Now().Add(t.s.CommandTimeout)
			}
			if e = c.noop(deadline); e == nil {
				t.put(c)
				return nil
			}
			c.close()
			if c.reused { // it may have been closed long ago: that says nothing about the server
				t.dropIdle(a)
				if c, e = t.get(ctx, a); e == nil {
					t.put(c)
					return nil
				}
			}
		}
		err = e
	}
	return fmt.Errorf("%w: %w", ErrUnavailable, err)
}

// Close closes the connections that are not in use. Those in use end with their transactions.
func (t *Transport) Close() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = true
	for a, list := range t.idle {
		for _, c := range list {
			c.close()
		}
		delete(t.idle, a)
	}
	if t.reaper != nil {
		t.reaper.Stop()
		t.reaper = nil
	}
	return nil
}

// addresses gives the servers in the order in which to try them: those that failed lately come last.
func (t *Transport) addresses(ctx context.Context) ([]string, error) {
	var list []string
	var failed error
	for _, a := range t.s.Addresses {
		name, named := strings.CutPrefix(a, boxPrefix)
		if !named {
			list = append(list, a)
			continue
		}
		found, err := t.o.Box(ctx, name)
		if err == nil && len(found) == 0 {
			err = errors.New("the directory has no LMTP address for it")
		}
		if err != nil {
			failed = fmt.Errorf("box %s: %w", name, err)
		}
		list = append(list, found...)
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("%w: %w", ErrUnavailable, failed)
	}
	now := t.o.Clock.Boot()
	up, down := make([]string, 0, len(list)), []string(nil)
	t.mu.Lock()
	for _, a := range list {
		if t.down[a] > now {
			down = append(down, a)
		} else {
			up = append(up, a)
		}
	}
	t.mu.Unlock()
	return append(up, down...), nil
}

// get gives a connection to a: one that is waiting, or a new one.
func (t *Transport) get(ctx context.Context, a string) (*conn, error) {
	oldest := t.o.Clock.Boot() - t.s.IdleTimeout
	t.mu.Lock()
	for n := len(t.idle[a]); n > 0; n = len(t.idle[a]) {
		c := t.idle[a][n-1]
		t.idle[a][n-1] = nil
		t.idle[a] = t.idle[a][:n-1]
		if c.used >= oldest {
			t.mu.Unlock()
			c.reused = true
			return c, nil
		}
		c.close()
	}
	t.mu.Unlock()
	c, err := t.dial(ctx, a)
	if err != nil {
		t.failed(a, err)
		return nil, err
	}
	t.mu.Lock()
	delete(t.down, a)
	t.mu.Unlock()
	return c, nil
}

// failed notes that a does not answer.
func (t *Transport) failed(a string, err error) {
	t.m.failures.Inc()
	t.mu.Lock()
	_, known := t.down[a]
	t.down[a] = t.o.Clock.Boot() + t.s.RetryDown
	t.mu.Unlock()
	if !known {
		t.o.Log.Warn("LMTP server does not answer", "event", "lmtp_down", "address", a, "error", err)
	}
}

// dropIdle closes the waiting connections to a: one of them turned out to be dead.
func (t *Transport) dropIdle(a string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, c := range t.idle[a] {
		c.close()
	}
	delete(t.idle, a)
}

// put gives a connection back that is in no transaction.
func (t *Transport) put(c *conn) {
	c.used = t.o.Clock.Boot()
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed || len(t.idle[c.address]) >= t.s.MaxIdle {
		c.close()
		return
	}
	t.idle[c.address] = append(t.idle[c.address], c)
	if t.reaper == nil {
		t.reaper = t.o.Clock.AfterFunc(t.s.IdleTimeout, t.reap)
	}
}

// reap closes connections that nobody used for IdleTimeout.
func (t *Transport) reap() {
	t.mu.Lock()
	defer t.mu.Unlock()
	oldest := t.o.Clock.Boot() - t.s.IdleTimeout
	for a, list := range t.idle {
		n := 0
		for n < len(list) && list[n].used <= oldest {
			list[n].close()
			n++
		}
		if t.idle[a] = append([]*conn(nil), list[n:]...); n == len(list) {
			delete(t.idle, a)
		}
	}
	t.reaper = nil
	if len(t.idle) > 0 && !t.closed {
		t.reaper = t.o.Clock.AfterFunc(t.s.IdleTimeout, t.reap)
	}
}

// acquire waits for one of the MaxOpen places.
func (t *Transport) acquire(ctx context.Context) error {
	select {
	case t.slots <- struct{}{}:
		return nil
	default:
	}
	select {
	case t.slots <- struct{}{}:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", ErrBusy, context.Cause(ctx))
	}
}

func (t *Transport) release() { <-t.slots }
