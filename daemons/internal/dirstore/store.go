package dirstore

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"shoal/daemons/internal/clock"
	"shoal/daemons/internal/dirschema"
)

// formatName and formatMajor are the marker of the file: "shoal-directory 1.0".
const (
	formatName  = "shoal-directory"
	formatMajor = "1"
	formatMinor = "0"
)

// fileName is the database in its folder.
const fileName = "directory.db"

var (
	bucketMeta  = []byte("meta")
	bucketAttr  = []byte("attr")
	bucketEntry = []byte("entry")
	bucketTree  = []byte("tree")
	bucketIndex = []byte("index")
	bucketLog   = []byte("log")

	keyFormat     = []byte("format")
	keySuffix     = []byte("suffix")
	keyContextCSN = []byte("contextcsn")
	keyEntries    = []byte("entries")
	keyLogFloor   = []byte("logfloor")
	keyIndexes    = []byte("indexes")
	keyCookie     = []byte("cookie")
	keyDropped    = []byte("droppedindexes")
	keyReplaced   = []byte("replaced") // newest CSN that was ever known when the content was replaced
)

// Options of a store. Path, Suffix, Schema, Clock and Log are required.
type Options struct {
	Path    string // folder of the database, made when missing
	Suffix  string // DN of the top entry
	Schema  *dirschema.Schema
	Indexes []string // beyond DefaultIndexes: "attribute" or "attribute:sub"
	Clock   clock.Clock
	Log     *slog.Logger
	Metrics prometheus.Registerer // may be nil
	// SID is the server id in the CSNs made here, 0 for a single master.
	SID int
	// GroupCommit is how many waiting writes share one transaction at most; 0 stands for 256.
	GroupCommit int
	// ChangeLog is how long changes stay in the log; 0 stands for a week.
	ChangeLog time.Duration
	// Maintain, if set, may adjust an entry before it is checked and stored: old is nil for an add.
	// It runs in the writer, one call at a time, and not for replicated entries.
	Maintain func(old, entry *Entry)
	// Check, if set, refuses an entry that is added, changed or imported, beyond the schema; not replicated ones.
	Check func(entry *Entry) error
	// Watch names attributes whose changes Watched counts.
	Watch []string
	// Unsynced leaves out all flushing: for bulk loads and tests, not safe in a crash.
	Unsynced bool

	// For tests.
	openFile   func(string, int, os.FileMode) (*os.File, error) // to fail what the database writes
	fault      func(step string) error                          // to fail a load, or to die in it
	loadMemory int                                              // of a load, to make it spill; 0 stands for 32 MiB
	logFile    func(logFile) logFile                            // to fail what the redo log writes, or to see it
	flushing   func()                                           // called when the database is flushed for a checkpoint
	// checkpointAt is after how many octets of the redo log a checkpoint is made; 0 stands for 16 MiB.
	checkpointAt int64
}

// Store is an open database. Its methods may be called from any goroutine.
type Store struct {
	opt    Options
	swap   sync.RWMutex // held for writing while a load puts its database into the place of db
	base   *database
	schema *dirschema.Schema
	attrs  attributes

	suffix       []byte // normal form
	suffixText   string
	kept, usable atomic.Pointer[indexSet] // see build.go
	building     atomic.Pointer[IndexBuild]
	builder      atomic.Pointer[builder]
	context      atomic.Pointer[[]csn]
	cookie       atomic.Pointer[string]
	entries      atomic.Int64
	special      atomic.Uint32 // Special
	watching     typeSet       // Options.Watch
	watched      atomic.Uint64 // see Watched
	logSequence  atomic.Uint64
	logFloor     csn // writer only
	clock        csnClock
	sid          atomic.Int32 // server id in the CSNs made here
	queue        chan *Write
	redo         *redoLog     // of the writer; nil: commits flush the database
	closing      sync.RWMutex // held for reading while a write is put into the queue
	closed       bool
	writerDone   chan struct{}
	watch        sync.Mutex
	changed      chan struct{}
	metrics      metrics
	readers      sync.Pool
	loading      atomic.Bool
	frozen       atomic.Bool    // updates are refused: the content is being replaced
	fenced       atomic.Bool    // see Fence
	retired      sync.WaitGroup // databases that were replaced and still have readers
	selections   selectionCache
	objectClass  *dirschema.AttributeType
	member       *dirschema.AttributeType // from which memberOf is made; nil where the schema has none
	entryUUID    *dirschema.AttributeType
	virtualBytes virtualAttributes
}

// SubschemaDN names the subschema subentry, which subschemaSubentry of every entry points to.
const SubschemaDN = "cn=subschema"

// ErrClosed is returned for operations on a closed store.
var ErrClosed = errors.New("directory store is closed")

// Open opens the database, makes an empty one if there is none, and begins to build indexes that are new. A
// store without its suffix entry is empty: the first entry added must be that one.
func Open(opt Options) (*Store, error) {
	if opt.GroupCommit == 0 {
		opt.GroupCommit = 256
	}
	if opt.ChangeLog == 0 {
		opt.ChangeLog = 7 * 24 * time.Hour
	}
	s := &Store{opt: opt, schema: opt.Schema, queue: make(chan *Write, opt.GroupCommit),
		writerDone: make(chan struct{}), changed: make(chan struct{})}
	s.watches(opt.Watch)
	s.attrs.init(opt.Schema)
	s.SetSID(opt.SID)
	s.objectClass = opt.Schema.Attribute([]byte("objectClass"))
	s.member = opt.Schema.Attribute([]byte("member"))
	s.entryUUID = opt.Schema.Attribute([]byte("entryUUID"))
	s.readers.New = func() any { return &Reader{store: s} }
	dn, err := opt.Schema.ParseDN([]byte(opt.Suffix))
	if err != nil || len(dn) == 0 {
		return nil, fmt.Errorf("suffix %q is not a distinguished name", opt.Suffix)
	}
	for _, r := range dn {
		for _, a := range r {
			if a.Type == nil {
				return nil, fmt.Errorf("suffix %q: attribute type %s is not in the schema", opt.Suffix, a.Name)
			}
		}
	}
	if s.suffix, err = dn.AppendNormal(nil); err != nil {
		return nil, fmt.Errorf("suffix %q: %w", opt.Suffix, err)
	}
	s.suffixText = dn.String()
	s.initVirtual()
	wanted, err := s.parseIndexes(append(append([]string(nil), DefaultIndexes...), opt.Indexes...))
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(opt.Path, 0o700); err != nil {
		return nil, fmt.Errorf("directory database: %w", err)
	}
	file := filepath.Join(opt.Path, fileName)
	left, err := opt.leftLog(file)
	var db *bbolt.DB
	if err == nil {
		db, err = opt.open(file)
	}
	switch {
	case errors.Is(err, bolterrors.ErrTimeout):
		return nil, fmt.Errorf("directory database %s is in use by another process: stop that one first, or give this one another database path", file)
	case errors.Is(err, fs.ErrPermission):
		return nil, fmt.Errorf("directory database %s may not be opened by user id %d: change its owner: %w", file, os.Geteuid(), err)
	case err != nil:
		return nil, fmt.Errorf("directory database %s: %w", file, err)
	}
	if left != nil {
		n, err := left.replay(db)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("directory database %s: its redo log: %w", file, err), db.Close())
		}
		opt.Log.Info("directory: the database was not closed: what it lacked came from its redo log", "commits", n)
	}
	s.base = newDatabase(db)
	if err := os.RemoveAll(filepath.Join(opt.Path, loadFolder)); err != nil { // of a process that died
		err = fmt.Errorf("directory database: leftovers of a load: %w", err)
		return nil, errors.Join(err, db.Close())
	}
	if err := s.load(file, wanted); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	if err := s.startLog(); err != nil {
		return nil, errors.Join(fmt.Errorf("directory database %s: %w", file, err), db.Close())
	}
	s.metrics.init(s)
	go s.writer()
	s.startBuild()
	return s, nil
}

// database is the file in use, with what is remembered of it.
type database struct {
	bolt  *bbolt.DB
	nodes atomic.Pointer[nodeCache]
}

func newDatabase(db *bbolt.DB) *database {
	d := &database{bolt: db}
	d.nodes.Store(newNodeCache(0))
	return d
}

// mapSize is how much of the address space a database may take. To take more, bbolt would wait for the end of all read
// transactions, among which is the redo log's anchor.
const mapSize = 1 << 38

// open opens a database file as the store uses it.
func (o *Options) open(file string) (*bbolt.DB, error) {
	return bbolt.Open(file, 0o600, &bbolt.Options{Timeout: time.Second, FreelistType: bbolt.FreelistMapType,
		NoFreelistSync: true, InitialMmapSize: mapSize, NoSync: o.Unsynced, NoGrowSync: o.Unsynced, NoStatistics: true, OpenFile: o.openFile})
}

// bolt is the database in use now.
func (s *Store) bolt() *bbolt.DB {
	s.swap.RLock()
	defer s.swap.RUnlock()
	return s.base.bolt
}

// load reads what the store keeps in memory, and makes the buckets of a new database.
func (s *Store) load(file string, wanted []*index) error {
	err := s.bolt().Update(func(tx *bbolt.Tx) error {
		meta := tx.Bucket(bucketMeta)
		if meta == nil {
			return s.create(tx)
		}
		if err := checkFormat(string(meta.Get(keyFormat))); err != nil {
			return err
		}
		if have := string(meta.Get(keySuffix)); have != string(s.suffix) {
			return fmt.Errorf("it holds the suffix %s, not %s: correct the suffix setting, or use another database path", have, s.suffix)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("directory database %s: %w", file, err)
	}
	err = s.bolt().View(func(tx *bbolt.Tx) error {
		if err := tx.Bucket(bucketAttr).ForEach(func(k, v []byte) error {
			return s.attrs.load(int(binary.BigEndian.Uint16(k)), string(v))
		}); err != nil {
			return err
		}
		s.remember(tx)
		return nil
	})
	if err != nil {
		return fmt.Errorf("directory database %s: %w", file, err)
	}
	if err := s.openIndexes(wanted); err != nil {
		return fmt.Errorf("directory database %s: indexes: %w", file, err)
	}
	return s.lookForSpecial(s.base.bolt)
}

// remember takes from a transaction what the writer keeps in memory.
func (s *Store) remember(tx *bbolt.Tx) {
	meta := tx.Bucket(bucketMeta)
	context := splitCSNs(string(meta.Get(keyContextCSN)))
	s.context.Store(&context)
	for _, c := range context {
		s.clock.seen(c)
	}
	s.logFloor = string(meta.Get(keyLogFloor))
	cookie := string(meta.Get(keyCookie))
	s.cookie.Store(&cookie)
	if v := meta.Get(keyEntries); len(v) == 8 {
		s.entries.Store(int64(binary.BigEndian.Uint64(v)))
	}
	if k, _ := tx.Bucket(bucketLog).Cursor().Last(); len(k) == 8 {
		s.logSequence.Store(binary.BigEndian.Uint64(k))
	}
}

// relearn is called after a transaction whose end is not known: its commit failed, but the database may have
// its last page all the same. What is kept in memory must be what the next transaction finds.
func (s *Store) relearn() {
	err := s.base.bolt.View(func(tx *bbolt.Tx) error {
		s.attrs.saved = 0
		if k, _ := tx.Bucket(bucketAttr).Cursor().Last(); len(k) == 2 {
			s.attrs.saved = int(binary.BigEndian.Uint16(k)) + 1
		}
		s.remember(tx)
		return nil
	})
	if err != nil {
		s.opt.Log.Error("directory: the database cannot be read after a failed write", "error", err)
	}
}

func (s *Store) create(tx *bbolt.Tx) error {
	for _, b := range [][]byte{bucketMeta, bucketAttr, bucketEntry, bucketTree, bucketIndex, bucketLog} {
		if _, err := tx.CreateBucket(b); err != nil {
			return err
		}
	}
	meta := tx.Bucket(bucketMeta)
	for k, v := range map[string]string{
		string(keyFormat):     formatName + " " + formatMajor + "." + formatMinor,
		string(keySuffix):     string(s.suffix),
		string(keyContextCSN): "",
		string(keyLogFloor):   "",
		string(keyIndexes):    "",
		string(keyEntries):    "\x00\x00\x00\x00\x00\x00\x00\x00",
	} {
		if err := meta.Put([]byte(k), []byte(v)); err != nil {
			return err
		}
	}
	return nil
}

func checkFormat(marker string) error {
	name, version, _ := strings.Cut(marker, " ")
	major, _, _ := strings.Cut(version, ".")
	switch {
	case name != formatName:
		return fmt.Errorf("this is no directory database of Shoal (its marker is %q)", marker)
	case major != formatMajor && marker != redoFormat:
		return fmt.Errorf("its format is %s, this program reads %s.x and 2.0: start the program of the version that wrote it", version, formatMajor)
	}
	return nil
}

// Close waits for the writes that were accepted, then closes the database. Readers must be closed
// before.
func (s *Store) Close() error {
	s.stopBuild()
	s.stopWriter()
	s.retired.Wait()
	err := s.endLog()
	if s.redo != nil {
		s.redo.release()
	}
	return errors.Join(err, s.base.bolt.Close())
}

// startLog begins the redo log of a store that flushes. No writer is at work.
func (s *Store) startLog() (err error) {
	if !s.opt.Unsynced {
		s.redo, err = s.opt.beginLog(s.base.bolt)
	}
	return err
}

// endLog makes the database whole without its redo log. No writer is at work.
func (s *Store) endLog() error {
	l := s.redo
	if l == nil {
		return nil
	}
	if err := l.finish(); err != nil {
		return err
	}
	s.redo = nil
	return older(s.base.bolt)
}

// stopWriter takes no more writes and waits for those that were accepted.
func (s *Store) stopWriter() {
	s.closing.Lock()
	if !s.closed {
		s.closed = true
		close(s.queue)
	}
	s.closing.Unlock()
	<-s.writerDone
}

// SetSID changes the server id in the CSNs of the writes that are submitted from now on. A directory that got another
// master has CSNs of both: those of the new one are above all that it knew of the old one's.
func (s *Store) SetSID(id int) { s.sid.Store(int32(id)) }

// Suffix is the DN of the top entry as configured.
func (s *Store) Suffix() string { return s.suffixText }

// Schema is the schema that entries are checked against.
func (s *Store) Schema() *dirschema.Schema { return s.schema }

// Entries is the number of entries.
func (s *Store) Entries() int64 { return s.entries.Load() }

// ContextCSN are the CSNs of the newest change, one for each server id that ever wrote; none in an
// empty store.
func (s *Store) ContextCSN() []string { return *s.context.Load() }

// Size is the size of the database file in bytes.
func (s *Store) Size() int64 {
	st, err := os.Stat(filepath.Join(s.opt.Path, fileName))
	if err != nil {
		return 0
	}
	return st.Size()
}

// Check reads a little from the database: nil means that reads work.
func (s *Store) Check() error {
	s.closing.RLock()
	closed := s.closed
	s.closing.RUnlock()
	if closed {
		return ErrClosed
	}
	s.swap.RLock()
	defer s.swap.RUnlock()
	return s.base.bolt.View(func(tx *bbolt.Tx) error {
		if tx.Bucket(bucketMeta).Get(keyFormat) == nil {
			return errors.New("directory database lost its marker")
		}
		return nil
	})
}

// Changed returns a channel that is closed by the next commit. Take it before looking at the state
// that is waited to change.
func (s *Store) Changed() <-chan struct{} {
	s.watch.Lock()
	defer s.watch.Unlock()
	return s.changed
}

func (s *Store) announce() {
	s.watch.Lock()
	close(s.changed)
	s.changed = make(chan struct{})
	s.watch.Unlock()
}

func splitCSNs(v string) []csn {
	if v == "" {
		return nil
	}
	return strings.Split(v, ";")
}
