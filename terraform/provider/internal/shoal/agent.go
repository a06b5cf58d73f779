package shoal

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"sync"
	"time"
)

// maxAnswer bounds an answer, in bytes; askWithin one request, connectWithin the connection that it needs.
const (
	maxAnswer = 16 << 20
	// A change of a pool has HAProxy look at its whole configuration and load it: on a slow processor that takes a while.
	askWithin     = 3 * time.Minute
	connectWithin = 20 * time.Second
)

// ErrNotFound is what the other side does not have.
var ErrNotFound = errors.New("not found")

// Agents speaks to the API of shoal-agent on any machine. Terraform asks for ten things at once: an agent that makes changes
// one after the other gets them one after the other, so that each has its time for itself.
type Agents struct {
	client *http.Client

	mu    sync.Mutex
	turns map[string]chan struct{} // by agent, of one place: who holds it changes something there
}

// NewAgents makes a client.
func NewAgents(o Operator) (*Agents, error) {
	config, err := o.TLS("lb", "storage", "vault", "enrol", "switch", "box", "webmail", "provision", "filter")
	if err != nil {
		return nil, err
	}
	return &Agents{
		client: &http.Client{Timeout: askWithin, Transport: &http.Transport{
			TLSClientConfig: config, MaxIdleConnsPerHost: 4, TLSHandshakeTimeout: connectWithin,
			DialContext: (&net.Dialer{Timeout: connectWithin}).DialContext,
		}},
		turns: map[string]chan struct{}{},
	}, nil
}

// turn waits until nobody else changes something at an agent.
func (a *Agents) turn(ctx context.Context, agent string) (done func(), err error) {
	a.mu.Lock()
	t := a.turns[agent]
	if t == nil {
		t = make(chan struct{}, 1)
		a.turns[agent] = t
	}
	a.mu.Unlock()
	select {
	case t <- struct{}{}:
		return func() { <-t }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Do sends a request to the agent at host:port and decodes its answer into answer unless that is nil. status is that of a
// success. ErrNotFound for what is not there.
func (a *Agents) Do(ctx context.Context, agent, method, path string, in, answer any) (status int, err error) {
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return 0, err
		}
		body = bytes.NewReader(b)
	}
	if method != http.MethodGet {
		done, err := a.turn(ctx, agent)
		if err != nil {
			return 0, err
		}
		defer done()
	}
	req, err := http.NewRequestWithContext(ctx, method, "https://"+agent+path, body)
	if err != nil {
		return 0, err
	}
	res, err := a.client.Do(req)
	if err != nil {
		var failed *url.Error
		if errors.As(err, &failed) { // it repeats the request
			err = failed.Err
		}
		return 0, fmt.Errorf("the agent at %s cannot be reached: %w", agent, err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	if err != nil {
		return 0, fmt.Errorf("the agent at %s: %w", agent, err)
	}
	if res.StatusCode/100 != 2 {
		var told struct{ Error string }
		if err := json.Unmarshal(b, &told); err != nil || told.Error == "" {
			told.Error = "it answers " + res.Status
		}
		err := fmt.Errorf("the agent at %s: %s", agent, told.Error)
		if res.StatusCode == http.StatusNotFound {
			err = fmt.Errorf("%w: %w", ErrNotFound, err)
		}
		return res.StatusCode, err
	}
	if answer != nil && len(b) > 0 {
		if err := json.Unmarshal(b, answer); err != nil {
			return res.StatusCode, fmt.Errorf("the agent at %s: its answer cannot be read: %w", agent, err)
		}
	}
	return res.StatusCode, nil
}
