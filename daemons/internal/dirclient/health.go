package dirclient

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"shoal/daemons/internal/conf"
)

// Pace of the probes of a directory server that is away.
const (
	probeFirst = 50 * time.Millisecond
	probeLast  = 2 * time.Second
)

// health of one endpoint: up until an attempt shows otherwise, then down until a probe succeeds. Calls never
// wait for a server that is down.
type health struct {
	mu   sync.Mutex
	down bool
	err  error // why it is down
}

// up says whether calls may be sent there, and otherwise why not.
func (h *health) up() (bool, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return !h.down, h.err
}

// markDown records that ep cannot be used and starts the probe that ends this.
func (c *Client) markDown(ep *endpoint, cause error) {
	ep.mu.Lock()
	was := ep.down
	ep.down, ep.err = true, cause
	ep.mu.Unlock()
	if was {
		return
	}
	c.metrics.up.WithLabelValues(ep.uri).Set(0)
	c.log.Warn("directory server is away", "event", "directory-down", "uri", ep.uri, "error", cause)
	c.search.drop(ep)
	c.bind.drop(ep)

	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return
	}
	c.probes.Add(1)
	go func() {
		defer c.probes.Done()
		c.probe(ep)
	}()
}

// probe tries ep again and again until it answers a service bind or the client is closed.
func (c *Client) probe(ep *endpoint) {
	wait := probeFirst
	for {
		t := time.NewTimer(wait/2 + rand.N(wait/2+1))
		select {
		case <-c.ctx.Done():
			t.Stop()
			return
		case <-t.C:
		}
		cn, err := c.connect(c.ctx, ep, true)
		if err == nil {
			ep.mu.Lock()
			ep.down, ep.err = false, nil
			ep.mu.Unlock()
			c.metrics.up.WithLabelValues(ep.uri).Set(1)
			c.log.Info("directory server is back", "event", "directory-up", "uri", ep.uri)
			c.search.put(cn)
			return
		}
		ep.mu.Lock()
		ep.err = err
		ep.mu.Unlock()
		wait = min(2*wait, probeLast)
	}
}

// connect makes a connection to ep and, for searches, binds it as the server itself.
func (c *Client) connect(ctx context.Context, ep *endpoint, service bool) (*conn, error) {
	ctx, cancel := context.WithTimeout(ctx, c.opt.DialTimeout)
	defer cancel()
	cn, err := dial(ctx, ep, c.opt.TLS)
	if err != nil {
		return nil, err
	}
	if !service {
		return cn, nil
	}
	password, err := conf.ReadSecret(c.opt.PasswordFile)
	if err != nil {
		cn.close()
		return nil, err
	}
	if err := cn.bind(ctx, c.opt.BindDN, string(password)); err != nil {
		cn.close()
		err = resultError("bind as "+c.opt.BindDN, err)
		if errors.Is(err, ErrInvalidCredentials) {
			// Not the user's fault: a wrong setting must never look like a wrong password of a user.
			return nil, fmt.Errorf("the directory refuses bind_dn %s with the password in %s", c.opt.BindDN, c.opt.PasswordFile)
		}
		return nil, err
	}
	return cn, nil
}

// allDown returns nil while at least one server may be asked, and otherwise an ErrUnavailable which says for
// each server what is wrong with it.
func (c *Client) allDown() error {
	var why []error
	for _, ep := range c.endpoints {
		up, err := ep.up()
		if up {
			return nil
		}
		why = append(why, fmt.Errorf("%s: %w", ep.uri, err))
	}
	if len(why) == 1 {
		return fmt.Errorf("%w: %w", ErrUnavailable, why[0])
	}
	return fmt.Errorf("%w: %w", ErrUnavailable, joined(why))
}

// joined is errors.Join on one line.
type joined []error

func (j joined) Error() string {
	s := ""
	for i, e := range j {
		if i > 0 {
			s += "; "
		}
		s += e.Error()
	}
	return s
}

func (j joined) Unwrap() []error { return j }
