package dirclient

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/go-ldap/ldap/v3"
)

// pool holds the connections of one purpose (searches, or password checks) to all servers. At most cap(slots)
// are in use at once; a call that finds none free waits until its context ends.
type pool struct {
	name    string
	service bool // bound as the server itself; otherwise only binds happen on them
	c       *Client
	slots   chan struct{}

	mu    sync.Mutex
	hosts []*host
	next  int // where the choice among equally busy servers starts
	done  bool
}

// host is what a pool has at one server.
type host struct {
	ep    *endpoint
	idle  []*conn
	inUse int
}

func newPool(c *Client, name string, service bool, size int) *pool {
	p := &pool{name: name, service: service, c: c, slots: make(chan struct{}, size)}
	for _, ep := range c.endpoints {
		p.hosts = append(p.hosts, &host{ep: ep})
	}
	return p
}

// acquire returns a connection to the least busy server that is up and not in avoid. release gives it back.
func (p *pool) acquire(ctx context.Context, avoid map[*endpoint]bool) (*conn, error) {
	select {
	case p.slots <- struct{}{}:
	default:
		select {
		case p.slots <- struct{}{}:
		case <-ctx.Done():
			return nil, fmt.Errorf("%w: all %d connections for %s were busy: %w", ErrUnavailable, cap(p.slots), p.name, ctx.Err())
		}
	}
	for {
		h, cn := p.choose(avoid)
		if h == nil {
			<-p.slots
			if err := p.c.allDown(); err != nil {
				return nil, err
			}
			return nil, fmt.Errorf("%w: no other server to ask", ErrUnavailable)
		}
		if cn != nil {
			p.c.metrics.inUse.WithLabelValues(p.name).Inc()
			return cn, nil
		}
		cn, err := p.c.connect(ctx, h.ep, p.service)
		if err == nil {
			p.c.metrics.inUse.WithLabelValues(p.name).Inc()
			return cn, nil
		}
		p.mu.Lock()
		h.inUse--
		p.mu.Unlock()
		if ctx.Err() != nil {
			// The caller gave up: no verdict about the server.
			<-p.slots
			return nil, fmt.Errorf("%w: %s: %w", ErrUnavailable, h.ep.uri, err)
		}
		p.c.markDown(h.ep, err)
	}
}

// choose counts one more use of the best host, and takes an idle connection there if there is one.
func (p *pool) choose(avoid map[*endpoint]bool) (*host, *conn) {
	var dead []*conn
	defer func() {
		for _, cn := range dead {
			cn.close()
		}
	}()
	p.mu.Lock()
	defer p.mu.Unlock()
	var best *host
	for i := range p.hosts {
		h := p.hosts[(p.next+i)%len(p.hosts)]
		if up, _ := h.ep.up(); !up || avoid[h.ep] {
			continue
		}
		if best == nil || h.inUse < best.inUse {
			best = h
		}
	}
	if best == nil || p.done {
		return nil, nil
	}
	p.next++
	best.inUse++
	for n := len(best.idle); n > 0; n = len(best.idle) {
		cn := best.idle[n-1]
		best.idle = best.idle[:n-1]
		if !cn.dead() {
			cn.reused = true
			return best, cn
		}
		dead = append(dead, cn)
	}
	return best, nil
}

// release gives a connection back; good says whether it may be used again.
func (p *pool) release(cn *conn, good bool) {
	p.mu.Lock()
	for _, h := range p.hosts {
		if h.ep == cn.ep {
			h.inUse--
		}
	}
	p.mu.Unlock()
	p.c.metrics.inUse.WithLabelValues(p.name).Dec()
	if good {
		p.put(cn)
	} else {
		cn.close()
	}
	<-p.slots
}

// put adds a connection that nobody uses to the idle ones.
func (p *pool) put(cn *conn) {
	p.mu.Lock()
	keep := !p.done && !cn.dead()
	if keep {
		for _, h := range p.hosts {
			if h.ep == cn.ep {
				if keep = len(h.idle) < cap(p.slots); keep {
					h.idle = append(h.idle, cn)
				}
			}
		}
	}
	p.mu.Unlock()
	if !keep {
		cn.close()
	}
}

// drop closes the idle connections to ep.
func (p *pool) drop(ep *endpoint) {
	var dead []*conn
	p.mu.Lock()
	for _, h := range p.hosts {
		if h.ep == ep {
			dead, h.idle = append(dead, h.idle...), nil
		}
	}
	p.mu.Unlock()
	for _, cn := range dead {
		cn.close()
	}
}

// close ends the pool; connections in use are closed when they are released.
func (p *pool) close() {
	p.mu.Lock()
	p.done = true
	p.mu.Unlock()
	for _, h := range p.hosts {
		p.drop(h.ep)
	}
}

// call runs f, a read, on a connection of the pool, and again elsewhere where that can help. ctx bounds the
// whole and must have a deadline. attempt bounds one try as long as another server could be asked instead.
func (p *pool) call(ctx context.Context, f func(*ldap.Conn) error) error {
	avoid := map[*endpoint]bool{}
	var last error
	for try := 1; ; try++ {
		cn, err := p.acquire(ctx, avoid)
		if err != nil && last != nil {
			return fmt.Errorf("%w: %w", err, last)
		}
		if err != nil {
			return err
		}
		tctx, cancel := ctx, context.CancelFunc(func() {})
		if p.service && p.c.others(cn.ep, avoid) {
			tctx, cancel = context.WithTimeout(ctx, p.c.opt.AttemptTimeout)
		}
		err = cn.do(tctx, f)
		timedOut := errors.Is(tctx.Err(), context.DeadlineExceeded)
		gaveUp := errors.Is(ctx.Err(), context.Canceled)
		cancel()
		if err == nil {
			p.release(cn, true)
			return nil
		}
		p.release(cn, !broken(err) && !timedOut && !gaveUp)
		if gaveUp || !tryElsewhere(err) && !timedOut {
			return err
		}
		switch {
		case timedOut && p.service:
			// It took the request and did not answer in time. (A password check may just be in a queue.)
			p.c.markDown(cn.ep, fmt.Errorf("no answer in time: %w", err))
		case broken(err) && cn.reused:
			// The server closed an old connection, perhaps because it was restarted: the others of that
			// age are as old. A new connection will tell.
			p.drop(cn.ep)
		case broken(err):
			p.c.markDown(cn.ep, err)
		default:
			avoid[cn.ep] = true // busy or unavailable, in its own words
		}
		if last = err; ctx.Err() != nil || try > 2*len(p.hosts)+1 {
			return err
		}
		p.c.metrics.retries.Inc()
	}
}

// others says whether a server other than ep could be asked.
func (c *Client) others(ep *endpoint, avoid map[*endpoint]bool) bool {
	for _, o := range c.endpoints {
		if o == ep || avoid[o] {
			continue
		}
		if up, _ := o.up(); up {
			return true
		}
	}
	return false
}

// bind binds the connection as dn. Nothing else may be on the way on it (RFC 4511 §4.2.1).
func (cn *conn) bind(ctx context.Context, dn, password string) error {
	return cn.do(ctx, func(l *ldap.Conn) error { return l.Bind(dn, password) })
}
