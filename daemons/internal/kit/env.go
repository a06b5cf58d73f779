package kit

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"shoal/daemons/internal/clock"
	"shoal/daemons/internal/pki"
)

// Env is what the process gives to the role that is built in it. A test may make one by hand: Log,
// Metrics and Clock are enough.
type Env struct {
	Log     *slog.Logger
	Metrics *prometheus.Registry
	Clock   clock.Clock
	Server  string // name of this server
	// Boot names this run of the program among all runs on this server: milliseconds since 2026-01-01
	// UTC in base 36 at the start. With the server's name it begins the names of files and records.
	Boot string
	// Creds is the identity of this server; nil when the configuration has no identity block.
	Creds *pki.Credentials
	// Control is where a role adds its commands to the control API, during Build. Requests reach it
	// only from operators (see Operator); patterns begin with a method: "GET /v1/queue".
	Control *http.ServeMux

	cleanups cleanups
	prebound map[string]net.Listener // bound before root was given up, by name; taken by Listen
	once     sync.Once
	stats    *listenerStats
}

// bootEpoch is where Env.Boot counts from.
var bootEpoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// bootName is the Env.Boot of a process that starts at t.
func bootName(t time.Time) string {
	return strconv.FormatInt(t.Sub(bootEpoch).Milliseconds(), 36)
}

// OnClose has a function called when the process ends, or when its construction fails: after Close, last
// registered first.
func (e *Env) OnClose(name string, f func() error) { e.cleanups.add(name, f) }

// cleanups is a stack of named functions that undo a construction.
type cleanups struct {
	mu    sync.Mutex
	stack []cleanup
}

type cleanup struct {
	name string
	f    func() error
}

func (c *cleanups) add(name string, f func() error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stack = append(c.stack, cleanup{name, f})
}

// run calls all functions, last first, once; it returns their errors joined, each with its name.
func (c *cleanups) run() error {
	var all []error
	for {
		c.mu.Lock()
		if len(c.stack) == 0 {
			c.mu.Unlock()
			return errors.Join(all...)
		}
		top := c.stack[len(c.stack)-1]
		c.stack = c.stack[:len(c.stack)-1]
		c.mu.Unlock()
		if err := top.f(); err != nil {
			all = append(all, fmt.Errorf("close %s: %w", top.name, err))
		}
	}
}
