package relay

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"log/slog"
	mathrand "math/rand/v2"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"shoal/daemons/internal/clock"
	"shoal/daemons/internal/conf"
	"shoal/daemons/internal/deliver"
	"shoal/daemons/internal/mailaddr"
	"shoal/daemons/internal/outbound"
	"shoal/daemons/internal/queue"
	"shoal/daemons/internal/route"
)

// Settings are the attributes of the block relay in a switch's configuration, with their defaults.
type Settings struct {
	// MaxActive bounds the entries being tried, all together; PerDestination those for one destination, LocalConcurrency
	// those for the boxes. FirstConcurrency is how many a destination gets before it has shown that it takes mail.
	MaxActive        int `hcl:"max_active,optional" default:"1000" min:"1" max:"100000"`
	PerDestination   int `hcl:"per_destination,optional" default:"20" min:"1" max:"10000"`
	LocalConcurrency int `hcl:"local_concurrency,optional" default:"50" min:"1" max:"10000"`
	FirstConcurrency int `hcl:"first_concurrency,optional" default:"5" min:"1" max:"10000"`
	// MaxRetry is the longest wait between two tries.
	MaxRetry time.Duration `hcl:"max_retry,optional" default:"4h" min:"1m" max:"48h"`
	// WarnAfter is when the sender is told that a message is delayed (0: never), ExpireAfter when it is given up.
	WarnAfter   time.Duration `hcl:"warn_after,optional" default:"4h" max:"240h"`
	ExpireAfter time.Duration `hcl:"expire_after,optional" default:"120h" min:"1m" max:"720h"`
	// MaxHops is how many Received fields a message may have.
	MaxHops int `hcl:"max_hops,optional" default:"100" min:"1" max:"1000"`
	// MaxReturn is the largest message that a failure report holds whole.
	MaxReturn conf.Size `hcl:"max_return,optional" default:"100 KiB" min:"1 KiB" max:"50 MiB"`
}

// DefaultSettings are the defaults of Settings.
func DefaultSettings() Settings {
	var s Settings
	conf.SetDefaults(&s)
	return s
}

// Router decides who takes mail for an address (*route.Router does). An error is temporary.
type Router interface {
	Route(ctx context.Context, a mailaddr.Address) (route.Decision, error)
}

// Local hands messages to the boxes (LMTP does).
type Local interface {
	// Deliver gives one result for each recipient, in their order. open gives the content from its beginning.
	Deliver(ctx context.Context, e deliver.Envelope, rcpts []LocalRcpt, open func() io.Reader) []LocalResult
}

// LocalRcpt is a recipient: the address that a box knows, and the one that the sender wrote, whose detail (RFC 5233) the box may go by.
type LocalRcpt struct{ Address, Original mailaddr.Address }

// LocalResult is the outcome for one recipient: Err nil, *deliver.Error, or another error of package deliver.
type LocalResult struct {
	Err  error
	Text string
}

// Remote hands messages to other mail systems (*outbound.Client does).
type Remote interface {
	Destination(domain string) string
	Send(ctx context.Context, domain string, m *outbound.Message, rcpts []outbound.Rcpt) outbound.Result
}

// Options of New. All but NewID, Log, Metrics and Clock are required.
type Options struct {
	Queue    *queue.Queue
	Router   Router
	Local    Local
	Remote   Remote
	Settings Settings      // see DefaultSettings
	Hostname string        // in reports
	NewID    func() string // ids of reports, as traces; nil: random ones
	Log      *slog.Logger
	Metrics  prometheus.Registerer
	Clock    clock.Clock
}

// Runner works one queue.
type Runner struct {
	o     Options
	s     Settings
	m     *metrics
	slots chan struct{}

	ctx    context.Context // of the attempts
	cancel context.CancelFunc
	all    sync.WaitGroup // attempts

	mu    sync.Mutex
	dests map[string]*destination
	swept time.Time
}

// New builds a Runner.
func New(o Options) (*Runner, error) {
	if o.Queue == nil || o.Router == nil || o.Local == nil || o.Remote == nil || o.Hostname == "" {
		return nil, errors.New("relay: Queue, Router, Local, Remote and Hostname are required")
	}
	if o.Settings.MaxActive <= 0 || o.Settings.PerDestination <= 0 || o.Settings.MaxRetry <= 0 {
		return nil, errors.New("relay: settings are missing: begin with DefaultSettings")
	}
	if o.NewID == nil {
		o.NewID = rand.Text
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Clock == nil {
		o.Clock = clock.System()
	}
	r := &Runner{o: o, s: o.Settings, m: newMetrics(o.Metrics), slots: make(chan struct{}, o.Settings.MaxActive), dests: map[string]*destination{}}
	r.ctx, r.cancel = context.WithCancel(context.Background())
	return r, nil
}

// Run takes entries until ctx ends, or the queue is closed. The attempts under way then are left to Close.
func (r *Runner) Run(ctx context.Context) error {
	for {
		select {
		case r.slots <- struct{}{}:
		case <-ctx.Done():
			return nil
		}
		l, err := r.o.Queue.Next(ctx)
		if err != nil {
			<-r.slots
			if ctx.Err() != nil || errors.Is(err, queue.ErrClosed) {
				return nil
			}
			return err
		}
		r.m.active.Inc()
		r.all.Go(func() {
			defer func() { <-r.slots; r.m.active.Dec() }()
			r.try(l)
		})
	}
}

// Close waits for the attempts under way until ctx ends, and breaks off the rest: they are tried again later, by whoever owns the
// queue's entries then. Run must have returned.
func (r *Runner) Close(ctx context.Context) error {
	done := make(chan struct{})
	go func() { r.all.Wait(); close(done) }()
	select {
	case <-done:
	case <-ctx.Done():
	}
	r.cancel()
	<-done
	return nil
}

// delays are the waits after the first tries.
var delays = []time.Duration{time.Minute, 5 * time.Minute, 15 * time.Minute, 30 * time.Minute, time.Hour, 2 * time.Hour}

// retry is when to try again after the given number of tries.
func (r *Runner) retry(tries int) time.Duration {
	d := r.s.MaxRetry
	if tries <= len(delays) {
		d = min(d, delays[max(tries, 1)-1])
	}
	return jitter(d)
}

// jitter is d, a fifth more or less.
func jitter(d time.Duration) time.Duration {
	return d - d/5 + mathrand.N(d*2/5+1)
}

// LMTP is Local by a deliver.Transport.
type LMTP struct{ Transport *deliver.Transport }

// Deliver implements Local.
func (t LMTP) Deliver(ctx context.Context, e deliver.Envelope, rcpts []LocalRcpt, open func() io.Reader) []LocalResult {
	out := make([]LocalResult, len(rcpts))
	all := func(err error) []LocalResult {
		for i := range out {
			if out[i].Err == nil {
				out[i].Err = err
			}
		}
		return out
	}
	tx, err := t.Transport.Begin(ctx, e)
	if err != nil {
		return all(err)
	}
	defer tx.Close()
	var offered []int
	for i, a := range rcpts {
		if out[i].Err = tx.RcptFor(a.Address, a.Original); out[i].Err == nil {
			offered = append(offered, i)
		}
	}
	if len(offered) == 0 {
		return out
	}
	results, err := tx.Data(open())
	if err != nil {
		return all(err)
	}
	for k, i := range offered {
		out[i] = LocalResult{Err: results[k].Err, Text: results[k].Text}
	}
	return out
}
