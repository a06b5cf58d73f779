package queue

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"shoal/daemons/internal/clock"
	"shoal/daemons/internal/vfs"
)

// Options of a queue. Server, Path, ID, FS, Clock and Log must be set; a zero value elsewhere means the default.
type Options struct {
	Server string // name of this switch
	Path   string // root of the queue's volume
	ID     string // id that its marker must have
	FS     vfs.FS
	Clock  clock.Clock
	Log    *slog.Logger
	// Metrics is where counters are registered; nil: nowhere.
	Metrics prometheus.Registerer
	// Beat is how often a sign of life is given and the others are looked at. Default 10 s.
	Beat time.Duration
	// DeadAfter is how old a switch's last sign of life must be before its entries are taken over. Default 60 s.
	DeadAfter time.Duration
	// MaxEntries bounds the entries kept in memory; more stay on disk until there is room. Default 1,000,000.
	MaxEntries int
	// BatchBytes bounds what is written with one sync. Default 8 MiB.
	BatchBytes int
}

func (o *Options) setDefaults() {
	if o.Beat == 0 {
		o.Beat = 10 * time.Second
	}
	if o.DeadAfter == 0 {
		o.DeadAfter = 60 * time.Second
	}
	if o.MaxEntries == 0 {
		o.MaxEntries = 1_000_000
	}
	if o.BatchBytes == 0 {
		o.BatchBytes = 8 << 20
	}
}

// Queue is the queue as one run of one switch sees it. Its methods may be called from any goroutine.
type Queue struct {
	o       Options
	origin  atomic.Pointer[string] // changes when this process was taken for dead (rebirth)
	network bool                   // the file server makes each call stable by itself
	metrics *metrics

	writes  chan *write   // to the batch writer
	written chan struct{} // closed when the batch writer has ended

	mu      sync.Mutex
	due     schedule                // entries that wait for their time
	entries map[entryKey]*entry     // all entries owned by this run and known in memory
	batches map[batchKey]*batch     // batches that hold such entries
	logs    map[string]*progressLog // by the origin whose directory they are in
	wake    chan struct{}           // something may be due earlier than was thought
	closed  bool
	lastSeq uint64

	beatAt time.Duration // of the last sign of life that was given, on the clock that counts suspension

	stop context.CancelFunc
	done sync.WaitGroup
}

type batchKey struct {
	origin string
	seq    uint64
}

type entryKey struct {
	batchKey
	index int
}

// batch is one batch file with entries of ours.
type batch struct {
	key  batchKey
	live int // entries of ours that are not final
	all  int // entries in the file
	gone int // entries known to be final
}

// entry is what is kept in memory of one entry.
type entry struct {
	key        entryKey
	generation int // of our claim; 0: we wrote it
	attempts   int
	due        int64 // Unix seconds
	accepted   int64
	expires    int64
	size       int64
	warned     bool
	leased     bool
	heap       int          // place in the schedule, or -1
	final      map[int]bool // recipients with a final state, when some have one and some not
	fresh      *indexEntry  // kept until the first attempt, which mostly comes at once
	reason     string       // last answer of a deferred recipient
}

func (k entryKey) id() string { return k.origin + "." + name{k.seq, k.index}.String() }

// Init makes the directory path a queue with the given id. It fails when path holds the marker of another queue,
// and does nothing when it is that queue already.
func Init(fs vfs.FS, path, id string) error {
	have, err := readMarker(fs, path)
	switch {
	case err == nil && have == id:
		return nil
	case err == nil:
		return fmt.Errorf("%s: %w: it is queue %s, not %s", path, ErrWrongQueue, have, id)
	case !errors.Is(err, ErrNotQueue):
		return err
	}
	if err := fs.Mkdir(path + "/r"); err != nil && !errors.Is(err, syscall.EEXIST) {
		return fmt.Errorf("mkdir %s/r: %w", path, err)
	}
	tmp := path + "/" + markerName + ".new"
	if err := writeSynced(fs, tmp, []byte(fmt.Sprintf("shoal-queue %d.0\nid %s\n", formatMajor, id))); err != nil {
		return err
	}
	if err := fs.Rename(tmp, path+"/"+markerName); err != nil {
		return fmt.Errorf("rename %s: %w", tmp, err)
	}
	return fs.SyncDir(path)
}

func readMarker(fs vfs.FS, path string) (string, error) {
	text, err := readAll(fs, path+"/"+markerName, 4096)
	if errors.Is(err, syscall.ENOENT) {
		return "", fmt.Errorf("%s: %w: it has no marker file %s; mount the queue's volume there, or make it one with shoalctl", path, ErrNotQueue, markerName)
	}
	if err != nil {
		return "", err
	}
	id, err := parseMarker(string(text))
	if err != nil {
		return "", fmt.Errorf("%s/%s: %w", path, markerName, err)
	}
	return id, nil
}

// Open begins a run on the queue. ErrNotQueue, ErrWrongQueue, ErrNewerFormat.
func Open(o Options) (*Queue, error) {
	o.setDefaults()
	if !validServer(o.Server) {
		return nil, fmt.Errorf("queue: bad server name %q", o.Server)
	}
	id, err := readMarker(o.FS, o.Path)
	if err != nil {
		return nil, err
	}
	if id != o.ID {
		return nil, fmt.Errorf("%s: %w: it is queue %s, the configuration says %s", o.Path, ErrWrongQueue, id, o.ID)
	}
	st, err := o.FS.Statfs(o.Path)
	if err != nil {
		return nil, fmt.Errorf("statfs %s: %w", o.Path, err)
	}
	q := &Queue{
		o: o, network: st.Network, metrics: newMetrics(o.Metrics),
		writes: make(chan *write, 1024), written: make(chan struct{}), wake: make(chan struct{}, 1),
		entries: map[entryKey]*entry{}, batches: map[batchKey]*batch{}, logs: map[string]*progressLog{},
	}
	if err := q.begin(); err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(context.Background())
	q.stop = stop
	q.done.Add(2)
	go func() { defer q.done.Done(); defer close(q.written); q.writer(ctx) }()
	go func() { defer q.done.Done(); q.keepAlive(ctx) }()
	return q, nil
}

// begin makes the directory of this run.
func (q *Queue) begin() error {
	fs := q.o.FS
	for now := q.o.Clock.Now(); ; now = now.Add(time.Millisecond) {
		origin := originAt(q.o.Server, now)
		q.origin.Store(&origin)
		err := fs.Mkdir(q.dir(q.Origin()))
		if err == nil {
			break
		}
		if !errors.Is(err, syscall.EEXIST) {
			return q.ioErr("mkdir", q.dir(q.Origin()), err)
		}
	}
	for _, d := range []string{"/b", "/c"} {
		if err := fs.Mkdir(q.dir(q.Origin()) + d); err != nil {
			return q.ioErr("mkdir", q.dir(q.Origin())+d, err)
		}
	}
	if _, err := q.beat(); err != nil {
		return err
	}
	for _, d := range []string{q.dir(q.Origin()), q.o.Path + "/r"} {
		if err := q.syncDir(d); err != nil {
			return err
		}
	}
	return nil
}

// Origin names this run.
func (q *Queue) Origin() string { return *q.origin.Load() }

// Close ends the run in good order: others may take its entries at once. Leases that are out may still be
// finished before it.
func (q *Queue) Close() error {
	q.mu.Lock()
	if q.closed {
		q.mu.Unlock()
		return nil
	}
	q.closed = true
	empty := len(q.entries) == 0
	q.mu.Unlock()
	q.stop()
	q.done.Wait()
	q.mu.Lock()
	for _, l := range q.logs {
		l.close()
	}
	q.mu.Unlock()
	dir := q.dir(q.Origin())
	if err := q.o.FS.Symlink("-", dir+"/closed"); err != nil && !errors.Is(err, syscall.EEXIST) {
		return q.ioErr("symlink", dir+"/closed", err)
	}
	if empty {
		// Nothing of ours is left: no need to leave it to the others.
		_, _ = q.sweep(dir, q.Origin())
	}
	return nil
}

func (q *Queue) dir(origin string) string { return q.o.Path + "/r/" + origin }

func (q *Queue) batchPath(k batchKey) string {
	return fmt.Sprintf("%s/b/%d", q.dir(k.origin), k.seq)
}

func (q *Queue) claimPath(k entryKey, generation int) string {
	return fmt.Sprintf("%s/c/%d.%d.%d", q.dir(k.origin), k.seq, k.index, generation)
}

// syncDir makes the names in a directory durable where the file system does not do it by itself.
func (q *Queue) syncDir(dir string) error {
	if q.network {
		return nil
	}
	if err := q.o.FS.SyncDir(dir); err != nil {
		return q.ioErr("sync", dir, err)
	}
	return nil
}

func (q *Queue) ioErr(op, path string, err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return fmt.Errorf("%s %s: %w: %w", op, path, ErrNoSpace, err)
	}
	return fmt.Errorf("%s %s: %w", op, path, err)
}

func writeSynced(fs vfs.FS, path string, data []byte) error {
	f, err := fs.Create(path)
	if err != nil {
		return fmt.Errorf("create %s: %w", path, err)
	}
	if _, err = f.Write(data); err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		_ = fs.Unlink(path)
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

// readAll reads a file of at most limit bytes.
func readAll(fs vfs.FS, path string, limit int64) ([]byte, error) {
	info, err := fs.Lstat(path)
	if err != nil {
		return nil, fmt.Errorf("stat %s: %w", path, err)
	}
	if info.Size > limit {
		return nil, fmt.Errorf("%s: %d bytes, at most %d expected: %w", path, info.Size, limit, ErrCorrupt)
	}
	f, err := fs.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	defer f.Close()
	b := make([]byte, info.Size)
	n, err := f.ReadAt(b, 0)
	if err != nil && err != io.EOF {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	return b[:n], nil
}
