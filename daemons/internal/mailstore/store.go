package mailstore

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"
	"weak"

	"github.com/prometheus/client_golang/prometheus"

	"shoal/daemons/internal/clock"
	"shoal/daemons/internal/vfs"
)

// Options of a store. Server, FS, Clock and Log must be set; a zero value elsewhere means the default.
type Options struct {
	// Server is the name of this server: [a-z0-9][a-z0-9-]{0,14}, unique in the service, not "floor".
	Server string
	FS     vfs.FS
	Clock  clock.Clock
	Log    *slog.Logger
	// Metrics is where the counters are registered; nil: nowhere.
	Metrics prometheus.Registerer
	// HintAddress is what this server writes into interest entries: where other servers send hints.
	// Empty: this server registers no interest (tools).
	HintAddress string
	// Notify is called after a commit for each other server that has a live interest in the mailbox.
	// It must not block.
	Notify func(addr string, ref Ref)
	// Retention is R: how long a snapshot must have stood before the log below it may go, and how long
	// expunged messages and deleted mailboxes are kept. Default 24 h; the same on all servers.
	Retention time.Duration
	// ReCheck is how often a watched mailbox is read again without any hint. Default 5 min.
	ReCheck time.Duration
	// CacheBytes bounds the folded mailboxes kept in memory. Default 256 MiB.
	CacheBytes int64
	// SummaryBytes bounds the derived records (Mailbox.Derived) kept in memory. Default 64 MiB; below 0 none are
	// kept, neither in memory nor on volumes.
	SummaryBytes int64
	// StageMemory is the size up to which a message on its way is kept in memory. Default 256 KiB.
	StageMemory int
	// VolumeCalls bounds the file operations in progress per volume. Default 128.
	VolumeCalls int
	// CallTimeout is how long a caller waits for a volume that does not answer. Default 30 s.
	CallTimeout time.Duration
	// Maintain starts the background work: snapshots, compaction, collection, purge.
	Maintain bool
}

func (o *Options) defaults() error {
	switch {
	case !validServer(o.Server):
		return fmt.Errorf("server name %q: want 1 to 15 of a-z, 0-9 and -, not beginning with -, and not %q", o.Server, "floor")
	case o.Clock != nil && o.Clock.Now().Before(bootEpoch):
		return fmt.Errorf("the clock shows %v: set it; names of messages rest on it", o.Clock.Now().UTC().Format(time.RFC3339))
	case o.FS == nil || o.Clock == nil || o.Log == nil:
		return errors.New("mailstore: FS, Clock and Log must be set")
	}
	def := func(d *time.Duration, v time.Duration) {
		if *d <= 0 {
			*d = v
		}
	}
	def(&o.Retention, 24*time.Hour)
	def(&o.ReCheck, 5*time.Minute)
	def(&o.CallTimeout, 30*time.Second)
	if o.CacheBytes <= 0 {
		o.CacheBytes = 256 << 20
	}
	if o.SummaryBytes == 0 {
		o.SummaryBytes = 64 << 20
	}
	if o.StageMemory <= 0 {
		o.StageMemory = 256 << 10
	}
	if o.VolumeCalls <= 0 {
		o.VolumeCalls = 128
	}
	return nil
}

// Ref names a mailbox for a hint. An empty Mailbox means the account's list of mailboxes.
type Ref struct{ Volume, Account, Mailbox string }

// Store is the mail store as one server sees it. Its methods may be called from any goroutine.
type Store struct {
	o       Options
	fs      vfs.FS
	clk     clock.Clock
	log     *slog.Logger
	origin  string
	ctr     atomic.Uint64
	metrics *metrics
	bufs    sync.Pool
	knobs   knobs

	mu      sync.Mutex
	closed  bool
	volumes map[string]*volume
	claimed map[string]bool // links in runs/ that this run has tried to make

	cache cache
	packs *packCache // nil: none
	work  worker
}

// knobs are for tests: they make the rare frequent, or break a rule to show that a test would notice.
// Outside tests they have the values of defaultKnobs.
type knobs struct {
	segmentLen, completeEvery, deltaEvery uint64

	noFence bool // floors are neither made nor looked at
	noSync  bool // directories are not synced
	noData  bool // nor is the data of message files
	// unverified: what was read stays in the fold when the listing of w/ that should verify it fails.
	unverified bool
}

var defaultKnobs = knobs{segmentLen: segmentLen, completeEvery: completeEvery, deltaEvery: deltaEvery}

// New returns a store without volumes.
func New(o Options) (*Store, error) {
	if err := o.defaults(); err != nil {
		return nil, err
	}
	m, err := newMetrics(o.Metrics)
	if err != nil {
		return nil, fmt.Errorf("mailstore: metrics: %w", err)
	}
	s := &Store{
		o: o, fs: o.FS, clk: o.Clock, log: o.Log, metrics: m,
		knobs:   defaultKnobs,
		origin:  newOrigin(o.Server, o.Clock.Now()),
		volumes: map[string]*volume{},
	}
	s.cache = cache{max: o.CacheBytes, all: map[string]weak.Pointer[journal]{}, recent: list.New(), at: map[*journal]*list.Element{}}
	if o.SummaryBytes > 0 {
		s.packs = &packCache{max: o.SummaryBytes, boxes: map[string]*packBox{}, recent: list.New()}
	}
	s.work.start(s)
	return s, nil
}

// Close ends the background work and removes this server's interest entries.
func (s *Store) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	s.mu.Unlock()
	s.work.stop()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	var errs []error
	for _, j := range s.cache.journals() {
		errs = append(errs, j.dropInterest(ctx))
	}
	s.mu.Lock()
	volumes := slices.Collect(maps.Values(s.volumes))
	s.mu.Unlock()
	for _, v := range volumes {
		v.settle()
		v.keepWorkers(false)
	}
	return errors.Join(errs...)
}

func (s *Store) volume(name string) (*volume, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, fmt.Errorf("store: %w", ErrClosed)
	}
	v := s.volumes[name]
	if v == nil {
		return nil, fmt.Errorf("volume %q: %w: this server is not configured for it, or has not found it yet", name, ErrUnavailable)
	}
	return v, nil
}

func (s *Store) allVolumes() []*volume {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]*volume, 0, len(s.volumes))
	for _, v := range s.volumes {
		out = append(out, v)
	}
	return out
}

func (s *Store) nextNonce() nonce { return nonce{s.origin, s.ctr.Add(1)} }

// cache finds the journal of a log. There is never more than one per log in a store, because one
// server must have one commit in flight per log: the map holds all that somebody still uses, the list holds
// on to those used last, within a bound of memory.
type cache struct {
	mu     sync.Mutex
	max    int64
	total  int64
	all    map[string]weak.Pointer[journal]
	recent *list.List // of cached, most recently used first
	at     map[*journal]*list.Element
}

type cached struct {
	j      *journal
	weight int64
}

func (s *Store) journal(v *volume, kind *logKind, dir string, ref Ref) *journal {
	c := &s.cache
	c.mu.Lock()
	defer c.mu.Unlock()
	if j := c.all[dir].Value(); j != nil {
		return j
	}
	j := newJournal(s, v, kind, dir, ref)
	c.all[dir] = weak.Make(j)
	runtime.AddCleanup(j, func(dir string) {
		c.mu.Lock()
		defer c.mu.Unlock()
		if p, ok := c.all[dir]; ok && p.Value() == nil {
			delete(c.all, dir)
		}
	}, dir)
	return j
}

// lookup returns the journal of a log if somebody uses it.
func (c *cache) lookup(dir string) *journal {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.all[dir].Value()
}

func (c *cache) journals() []*journal {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []*journal
	for _, p := range c.all {
		if j := p.Value(); j != nil {
			out = append(out, j)
		}
	}
	return out
}

type weighed interface{ weight() int64 }

// touch notes a use of j and lets go of what has not been used for long.
func (s *Store) touch(j *journal) {
	c := &s.cache
	p := j.pub.Load()
	if p == nil {
		return
	}
	var w int64 = 512
	if x, ok := p.state.(weighed); ok {
		w += x.weight()
	}
	var out []*journal
	c.mu.Lock()
	if e := c.at[j]; e != nil {
		x := e.Value.(*cached)
		c.total += w - x.weight
		x.weight = w
		c.recent.MoveToFront(e)
	} else {
		c.at[j] = c.recent.PushFront(&cached{j: j, weight: w})
		c.total += w
	}
	for c.total > c.max && c.recent.Len() > 1 {
		e := c.recent.Back()
		x := e.Value.(*cached)
		c.recent.Remove(e)
		delete(c.at, x.j)
		c.total -= x.weight
		out = append(out, x.j)
	}
	c.mu.Unlock()
	for _, j := range out {
		j.evict()
	}
}

// evict drops the fold of a log that is not busy. Handles stay valid and read it again when used.
func (j *journal) evict() {
	select {
	case j.drive <- struct{}{}:
		j.forget()
		j.pub.Store(nil)
		j.unlock()
	default:
	}
}
