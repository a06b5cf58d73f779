package dirclient

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"shoal/daemons/internal/clock"
)

// cache keeps answers of one kind by key, the least recently used leaving first. For each key at most one
// question is on its way; who asks meanwhile waits for that answer.
//
// An entry is either a value or one of the "no such" errors. A value past its life is still given while the
// directory does not answer, up to stale beyond its life. A "no such" never is: an account made an hour ago
// must not bounce its mail because the directory is away.
type cache[V any] struct {
	kind            string
	max             int
	ttl, neg, stale time.Duration
	clock           clock.Clock
	metrics         *metrics

	mu      sync.Mutex
	entries map[string]*list.Element // of *cached[V]
	order   *list.List               // front: used last
	flights map[string]*flight[V]
	epoch   uint64 // moves with flush and end: an older question's answer is not kept
}

type cached[V any] struct {
	key   string
	value V
	none  error // the "no such" error, or nil
	at    time.Duration
	ended bool // no longer true for sure: good only while no directory answers
}

type flight[V any] struct {
	done  chan struct{}
	value V
	err   error
}

func newCache[V any](kind string, o Options, m *metrics, size int) *cache[V] {
	return &cache[V]{
		kind: kind, max: max(size, 1), ttl: o.CacheTTL, neg: o.NegativeTTL, stale: o.StaleFor,
		clock: o.Clock, metrics: m,
		entries: map[string]*list.Element{}, order: list.New(), flights: map[string]*flight[V]{},
	}
}

// get answers from the cache or through fetch, which runs on a goroutine of its own (so that the first asker's
// end does not take the answer from the others). away is called without the lock; it returns an error while it
// is known that fetch would fail.
func (c *cache[V]) get(ctx context.Context, key string, away func() error, fetch func() (V, error)) (V, error) {
	c.mu.Lock()
	now := c.clock.Boot()
	if el := c.entries[key]; el != nil {
		e := el.Value.(*cached[V])
		age := now - e.at
		if e.none != nil && age < c.neg {
			c.order.MoveToFront(el)
			c.mu.Unlock()
			c.metrics.cache.WithLabelValues(c.kind, "negative").Inc()
			return e.value, e.none
		}
		if e.none == nil && age < c.ttl && !e.ended {
			c.order.MoveToFront(el)
			c.mu.Unlock()
			c.metrics.cache.WithLabelValues(c.kind, "hit").Inc()
			return e.value, nil
		}
	}
	f := c.flights[key]
	if f == nil {
		f = &flight[V]{done: make(chan struct{})}
		c.flights[key] = f
		go c.fly(key, f, c.epoch, away, fetch)
		c.metrics.cache.WithLabelValues(c.kind, "miss").Inc()
	} else {
		c.metrics.cache.WithLabelValues(c.kind, "joined").Inc()
	}
	c.mu.Unlock()
	select {
	case <-f.done:
		return f.value, f.err
	case <-ctx.Done():
		var zero V
		return zero, fmt.Errorf("%w: %w", ErrUnavailable, ctx.Err())
	}
}

func (c *cache[V]) fly(key string, f *flight[V], epoch uint64, away func() error, fetch func() (V, error)) {
	err := away()
	var v V
	if err == nil {
		v, err = fetch()
	}
	none := errors.Is(err, ErrNoSuchAppPassword) || errors.Is(err, ErrNoSuchAccount) || errors.Is(err, ErrNoSuchAlias) || errors.Is(err, ErrNoSuchDomain)

	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.flights, key)
	defer close(f.done)
	switch {
	case err == nil || none:
		if c.epoch == epoch {
			c.keep(&cached[V]{key: key, value: v, at: c.clock.Boot()}, err)
		}
	case errors.Is(err, ErrUnavailable):
		if el := c.entries[key]; el != nil {
			e := el.Value.(*cached[V])
			if e.none == nil && c.stale >= 0 && c.clock.Boot()-e.at < c.ttl+c.stale {
				c.order.MoveToFront(el)
				c.metrics.cache.WithLabelValues(c.kind, "stale").Inc()
				v, err = e.value, nil
			}
		}
	}
	f.value, f.err = v, err
}

func (c *cache[V]) keep(e *cached[V], none error) {
	e.none = none
	if el := c.entries[e.key]; el != nil {
		el.Value = e
		c.order.MoveToFront(el)
		return
	}
	c.entries[e.key] = c.order.PushFront(e)
	for len(c.entries) > c.max {
		last := c.order.Back()
		c.order.Remove(last)
		delete(c.entries, last.Value.(*cached[V]).key)
	}
}

// flush ends the life of all answers.
func (c *cache[V]) flush() { c.end(func(V) bool { return true }) }

// end ends the life of the answers that concern says so of, and of everything that there is no such of. What was known
// is kept for the time when no directory answers.
func (c *cache[V]) end(concern func(V) bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.epoch++
	for key, el := range c.entries {
		switch e := el.Value.(*cached[V]); {
		case e.none != nil:
			c.order.Remove(el)
			delete(c.entries, key)
		case concern(e.value):
			e.ended = true
		}
	}
}

func (c *cache[V]) len() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.entries)
}
