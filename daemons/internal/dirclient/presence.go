package dirclient

import (
	"context"
	"sync"
	"time"
)

// Presence remembers when the directory was last there. What it was asked for lives in a cache, so a server goes on
// for a while without it.
type Presence struct {
	client *Client
	grace  time.Duration

	mu      sync.Mutex
	reached bool          // at least once
	last    time.Duration // when last, on Clock.Boot
}

// NewPresence starts with a directory that was never reached. grace is how long a server counts as ready without it.
func NewPresence(c *Client, grace time.Duration) *Presence {
	return &Presence{client: c, grace: grace}
}

// Ping asks the directory and notes when it answered.
func (p *Presence) Ping(ctx context.Context) error {
	err := p.client.Ping(ctx)
	if err == nil {
		p.mu.Lock()
		p.reached, p.last = true, p.client.opt.Clock.Boot()
		p.mu.Unlock()
	}
	return err
}

// Reached is whether the directory ever answered.
func (p *Presence) Reached() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.reached
}

// Ready is Ping, but for an error that the grace covers.
func (p *Presence) Ready(ctx context.Context) error {
	err := p.Ping(ctx)
	p.mu.Lock()
	defer p.mu.Unlock()
	if err != nil && p.reached && p.client.opt.Clock.Boot()-p.last <= p.grace {
		return nil
	}
	return err
}

// Wait is how long to wait before the directory is asked again by somebody who asks it now and then: every, and a
// second while it was never reached.
func (p *Presence) Wait(every time.Duration) time.Duration {
	if !p.Reached() {
		return min(every, time.Second)
	}
	return every
}
