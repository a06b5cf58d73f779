package hint

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"sync/atomic"
	"time"

	"shoal/daemons/internal/clock"
	"shoal/daemons/internal/pki"
)

const (
	// recheck is how long an address counts as listed before the directory is asked again.
	recheck = time.Minute
	// Pause after a failed connection, during which hints are dropped at once.
	pauseFirst = 100 * time.Millisecond
	pauseLast  = 5 * time.Second
	// unlistedPause is the pause after the directory did not list the address.
	unlistedPause = 5 * time.Second
	// batch is how many hints are written at once.
	batch = 512
)

// peer is one server that hints are sent to. Its goroutine (run) owns everything but what the Sender's mutex guards.
type peer struct {
	s    *Sender
	addr string

	// Guarded by the Sender's mutex:
	waiting []item
	there   map[item]bool // what is in waiting
	wake    chan struct{} // holds a token when there is something new

	role   string        // box or switch
	name   string        // which one it is
	until  time.Duration // when that has to be looked up again
	conn   net.Conn
	lost   *atomic.Bool  // the peer closed conn
	pause  time.Duration // after the next failure
	resume time.Duration // nothing is tried before
	last   error         // why
	told   bool          // the present trouble was logged
	allow  bucket
}

func newPeer(s *Sender, addr string) *peer {
	return &peer{
		s: s, addr: addr, there: map[item]bool{}, wake: make(chan struct{}, 1),
		pause: pauseFirst, allow: newBucket(s.set.Rate, s.o.Clock.Boot()),
	}
}

type added int

const (
	addedNew added = iota
	addedTwice
	notAdded
)

// add is called with the Sender's mutex held.
func (p *peer) add(ref item) added {
	if p.there[ref] {
		return addedTwice
	}
	if len(p.waiting) >= p.s.set.Queue {
		return notAdded
	}
	p.there[ref] = true
	p.waiting = append(p.waiting, ref)
	select {
	case p.wake <- struct{}{}:
	default:
	}
	return addedNew
}

// take removes up to n waiting hints.
func (p *peer) take(n int) []item {
	p.s.mu.Lock()
	defer p.s.mu.Unlock()
	n = min(n, len(p.waiting))
	refs := p.waiting[:n:n]
	if p.waiting = p.waiting[n:]; len(p.waiting) == 0 {
		p.waiting = nil
	}
	for _, r := range refs {
		delete(p.there, r)
	}
	return refs
}

// leave removes the peer from the Sender, unless something came in.
func (p *peer) leave() bool {
	p.s.mu.Lock()
	defer p.s.mu.Unlock()
	if len(p.waiting) > 0 && !p.s.closed {
		return false
	}
	delete(p.s.peers, p.addr)
	return true
}

func (p *peer) run() {
	defer p.disconnect()
	idle := p.s.o.Clock.NewTimer(p.s.set.IdleTimeout)
	defer idle.Stop()
	for {
		select {
		case <-p.s.ctx.Done():
			p.leave()
			return
		case <-idle.C():
			if p.leave() {
				return
			}
			idle.Reset(p.s.set.IdleTimeout)
			continue
		case <-p.wake:
		}
		for p.some() {
		}
		idle.Reset(p.s.set.IdleTimeout)
	}
}

// some sends or drops some of what waits. It returns false when nothing waits.
func (p *peer) some() bool {
	now := p.s.o.Clock.Boot()
	got := p.allow.take(batch, now)
	if got == 0 {
		// Over the rate: what comes in meanwhile for the same mailboxes is one hint.
		return clock.Sleep(p.s.ctx, p.s.o.Clock, 20*time.Millisecond) == nil
	}
	refs := p.take(got)
	p.allow.level += float64(got - len(refs))
	if len(refs) == 0 {
		return false
	}
	if err := p.send(refs, now); err != nil {
		reason := "away"
		if errors.Is(err, errUnlisted) {
			reason = "unlisted"
		}
		p.s.metrics.dropped.WithLabelValues(reason).Add(float64(len(refs)))
		if !p.told && p.s.ctx.Err() == nil {
			p.told = true
			p.s.o.Log.Warn("hints cannot be sent", "event", "hint-"+reason, "addr", p.addr, "peer", p.name, "error", err)
		}
		return true
	}
	p.told = false
	return true
}

var errPausing = errors.New("waiting before the next attempt to connect")

// send writes hints, over a new connection if there is none or the old one turns out to be dead.
func (p *peer) send(refs []item, now time.Duration) error {
	if now < p.resume {
		return fmt.Errorf("%w: %w", errPausing, p.last)
	}
	if now >= p.until {
		ctx, cancel := context.WithTimeout(p.s.ctx, p.s.set.ConnectTimeout)
		role, name, err := p.s.listed(ctx, p.addr)
		cancel()
		if err != nil {
			p.disconnect()
			p.resume, p.last = now+unlistedPause, err
			return err
		}
		if name != p.name || role != p.role {
			p.disconnect()
		}
		p.role, p.name, p.until = role, name, now+recheck
	}
	if p.name == p.s.o.Server {
		return nil // our own entry: whoever committed here knows already
	}
	var out []byte
	sent := 0
	for _, r := range refs {
		var ok bool
		if out, ok = appendItem(out, r); ok {
			sent++
		} else {
			p.s.metrics.dropped.WithLabelValues("invalid").Inc()
		}
	}
	if sent == 0 {
		return nil
	}
	old := p.conn != nil && !p.lost.Load()
	for {
		err := p.write(out)
		if err == nil {
			p.pause = pauseFirst
			p.s.metrics.sent.Add(float64(sent))
			return nil
		}
		p.disconnect()
		if old && p.s.ctx.Err() == nil {
			old = false // the peer may have been restarted: one new connection
			continue
		}
		p.resume, p.last = p.s.o.Clock.Boot()+p.pause, err
		p.pause = min(2*p.pause, pauseLast)
		return err
	}
}

func (p *peer) write(b []byte) error {
	if p.conn == nil || p.lost.Load() {
		p.disconnect()
		if err := p.connect(); err != nil {
			return err
		}
	}
	if err := p.conn.SetWriteDeadline(time.Now().Add(p.s.set.WriteTimeout)); err != nil {
		return err
	}
	_, err := p.conn.Write(b)
	return err
}

// connect opens a connection and makes sure that the peer is the box that the directory says.
func (p *peer) connect() error {
	ctx, cancel := context.WithTimeout(p.s.ctx, p.s.set.ConnectTimeout)
	defer cancel()
	d := tls.Dialer{Config: p.s.o.TLS}
	conn, err := d.DialContext(ctx, "tcp", p.addr)
	if err != nil {
		return err
	}
	c := conn.(*tls.Conn)
	if err := p.greet(c); err != nil {
		_ = c.Close()
		return err
	}
	lost := &atomic.Bool{}
	p.conn, p.lost = c, lost
	p.s.metrics.peers.Inc()
	p.s.running.Add(1)
	go func() {
		// The peer says nothing more, but its closing should be noticed before the next hint is lost.
		defer p.s.running.Done()
		_, _ = io.Copy(io.Discard, io.LimitReader(c, 1<<16))
		lost.Store(true)
		p.s.metrics.peers.Dec()
	}()
	return nil
}

func (p *peer) greet(c *tls.Conn) error {
	role, name, err := pki.PeerIdentity(c.ConnectionState())
	if err != nil {
		return err
	}
	if role != p.role || name != p.name {
		return fmt.Errorf("%w: %s is listed for %s %s, but %s/%s answered", pki.ErrWrongRole, p.addr, p.role, p.name, role, name)
	}
	if err := c.SetDeadline(time.Now().Add(p.s.set.ConnectTimeout)); err != nil {
		return err
	}
	line, err := bufio.NewReaderSize(c, maxLine).ReadSlice('\n')
	if err != nil {
		return fmt.Errorf("greeting: %w", err)
	}
	if err := parseGreeting(line[:len(line)-1]); err != nil {
		return err
	}
	if _, err := c.Write(appendGreeting(nil)); err != nil {
		return err
	}
	return c.SetDeadline(time.Time{})
}

// disconnect closes the connection, if there is one.
func (p *peer) disconnect() {
	if p.conn == nil {
		return
	}
	_ = p.conn.Close()
	p.conn = nil
}
