package mailstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"shoal/daemons/internal/clock"
	"shoal/daemons/internal/vfs"
)

// A volume is a directory with a marker file that names it.
//
//	<root>/shoal-volume           marker
//	<root>/a/<hh>/<account id>/   accounts
//	<root>/trash/                 deleted mailboxes and accounts
//	<root>/tmp/                   what is not in its place yet
//	<root>/maint/                 stamps of the background work
//	<root>/runs/<origin>          one per run of a server that has used the volume
//
//	marker = "shoal-volume " version LF *( key SP value LF )     id <uuid>
//
// Unknown keys are passed over. The marker is what tells a mounted volume from its empty mount point: a
// directory without it is never written to.
const markerName = "shoal-volume"

const dirRuns = "runs"

const maxMarker = 4096

type volume struct {
	store   *Store
	fs      vfs.FS
	clk     clock.Clock
	name    string
	root    string
	id      string
	network bool // the server commits each call: no syncs of directories needed
	journal bool // changes become durable in order (flush.go)
	flusher flusher
	mount   atomic.Uint64 // what was mounted when the marker was last looked at (vfs.FS.Mount)
	slots   chan struct{} // bounds the file operations in progress
	timeout time.Duration
	workers workers
	calls   sync.Pool    // of *call
	stalls  atomic.Int64 // callers that gave up waiting
	overdue atomic.Int64 // calls that are in progress for longer than timeout
	closed  atomic.Bool  // by the operator
	low     atomic.Bool  // short of space: messages are refused (reserve.go)
	whole   atomic.Bool  // the reserve was whole when it was made

	clockMu sync.Mutex
	clockAt time.Duration // boot time of the last look at the file server's clock
	server  time.Time     // what it showed
}

func readMarker(fs vfs.FS, root string) (id string, err error) {
	path := root + "/" + markerName
	b, err := readFile(fs, path, maxMarker)
	switch {
	case isNotExist(err):
		return "", fmt.Errorf("%s: %w: there is no file %s in it (is the volume mounted?)", root, ErrNotVolume, markerName)
	case err != nil:
		return "", ioErr("read", path, err)
	}
	head, rest, _ := strings.Cut(string(b), "\n")
	version, ok := strings.CutPrefix(head, "shoal-volume ")
	if !ok {
		return "", fmt.Errorf("%s: %w: first line %.40q", path, ErrNotVolume, head)
	}
	if _, _, err := parseVersion(version); err != nil {
		return "", fmt.Errorf("%s: %w: this server reads versions up to %d.x: upgrade it", path, err, formatMajor)
	}
	for line := range strings.SplitSeq(rest, "\n") {
		if v, ok := strings.CutPrefix(line, "id "); ok {
			return v, nil
		}
	}
	return "", fmt.Errorf("%s: %w: it has no id line", path, ErrNotVolume)
}

// readFile reads a whole file of at most max bytes.
func readFile(fs vfs.FS, path string, limit int64) ([]byte, error) {
	f, err := fs.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b := make([]byte, 0, min(limit+1, 64<<10))
	for {
		if len(b) == cap(b) {
			b = append(make([]byte, 0, 4*cap(b)), b...)
		}
		n, err := f.ReadAt(b[len(b):cap(b)], int64(len(b)))
		b = b[:len(b)+n]
		switch {
		case err == io.EOF:
			if int64(len(b)) > limit {
				return nil, syscall.EFBIG
			}
			return b, nil
		case err != nil:
			return nil, err
		case int64(len(b)) > limit:
			return nil, syscall.EFBIG
		}
	}
}

// InitVolume makes the directory path a volume with the given id (a UUID). It fails when path holds the
// marker of another volume, and changes nothing when it is that volume already.
func InitVolume(fs vfs.FS, path, id string) error {
	if id == "" || strings.ContainsAny(id, " \n\t") {
		return fmt.Errorf("volume id %q: must be a UUID", id)
	}
	path = strings.TrimRight(path, "/")
	if have, err := readMarker(fs, path); err == nil {
		if have != id {
			return fmt.Errorf("%s: %w: it is volume %s already, not %s", path, ErrWrongVolume, have, id)
		}
		return nil
	} else if !errors.Is(err, ErrNotVolume) {
		return err
	}
	if _, err := fs.Lstat(path + "/" + markerName); err == nil {
		return fmt.Errorf("%s/%s exists but is no marker of a volume: %w", path, markerName, ErrNotVolume)
	}
	dirs := []string{"a", "trash", "tmp", "maint", dirRuns, dirReserve}
	for i := range 256 {
		dirs = append(dirs, fmt.Sprintf("a/%02x", i))
	}
	for _, d := range dirs {
		if err := fs.Mkdir(path + "/" + d); err != nil && !errors.Is(err, syscall.EEXIST) {
			return ioErr("mkdir", path+"/"+d, err)
		}
	}
	tmp := path + "/" + markerName + ".new"
	if err := writeFile(fs, tmp, fmt.Appendf(nil, "shoal-volume %d.%d\nid %s\n", formatMajor, formatMinor, id)); err != nil {
		return ioErr("write", tmp, err)
	}
	if err := fs.SyncDir(path + "/a"); err != nil {
		return ioErr("sync", path+"/a", err)
	}
	if err := fs.Rename(tmp, path+"/"+markerName); err != nil {
		return ioErr("rename", tmp, err)
	}
	return ioErr("sync", path, fs.SyncDir(path))
}

// writeFile creates path with the given content, stable; a partial file is removed.
func writeFile(fs vfs.FS, path string, content []byte) error {
	return createFile(fs, path, content, syncFile)
}

// howToSync is what becomes of a new file's content.
type howToSync uint8

const (
	syncNothing howToSync = iota // durable some day
	syncData                     // on the device, durable with the next flush (vfs.File.SyncData)
	syncFile                     // durable
)

func createFile(fs vfs.FS, path string, content []byte, how howToSync) error {
	f, err := fs.Create(path)
	if err != nil {
		return err
	}
	if len(content) > 0 {
		_, err = f.Write(content)
	}
	if err == nil {
		err = how.apply(f)
	}
	if e := f.Close(); err == nil {
		err = e
	}
	if err != nil {
		// The name is nobody else's: best effort, the collector takes what stays.
		_ = fs.Unlink(path)
	}
	return err
}

func (how howToSync) apply(f vfs.File) error {
	switch how {
	case syncData:
		return f.SyncData()
	case syncFile:
		return f.Sync()
	}
	return nil
}

// AddVolume opens the volume at path under the name that the directory gives it. It refuses (ErrNotVolume,
// ErrWrongVolume, ErrNewerFormat, ErrReadOnly) a path without the marker file of that id. ErrUnavailable when there is no
// answer; after any error it may be tried again.
func (s *Store) AddVolume(name, path, id string) error {
	path = strings.TrimRight(path, "/")
	v := &volume{
		store: s, fs: s.fs, clk: s.clk, name: name, root: path,
		slots: make(chan struct{}, s.o.VolumeCalls), timeout: s.o.CallTimeout,
	}
	s.mu.Lock()
	closed, twice := s.closed, s.volumes[name] != nil
	s.mu.Unlock()
	switch {
	case closed:
		return fmt.Errorf("volume %s: store: %w", name, ErrClosed)
	case twice:
		return fmt.Errorf("volume %s: defined twice", name)
	}
	if err := v.do(context.Background(), func() error { return v.open(id) }); err != nil {
		return fmt.Errorf("volume %s: %w", name, err)
	}
	mounted, err := s.fs.Mount(path)
	if err != nil {
		return fmt.Errorf("volume %s: %w", name, ioErr("stat", path, err))
	}
	v.mount.Store(mounted)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return fmt.Errorf("volume %s: store: %w", name, ErrClosed)
	}
	if s.volumes[name] != nil {
		return fmt.Errorf("volume %s: defined twice", name)
	}
	s.volumes[name] = v
	v.keepWorkers(true)
	s.metrics.overdue.WithLabelValues(name).Set(0)
	return nil
}

// open looks at the volume and says that this run uses it.
func (v *volume) open(id string) error {
	have, err := readMarker(v.fs, v.root)
	if err != nil {
		return err
	}
	if id != "" && have != id {
		return fmt.Errorf("%s: %w: its id is %s, the configuration expects %s", v.root, ErrWrongVolume, have, id)
	}
	st, err := v.fs.Statfs(v.root)
	if err != nil {
		return ioErr("statfs", v.root, err)
	}
	if st.ReadOnly {
		return fmt.Errorf("%s: %w: mount it read-write", v.root, ErrReadOnly)
	}
	v.id, v.network, v.journal = have, st.Network, st.Journal && !st.Network
	return v.claimRun()
}

// claimRun makes sure that no earlier run of a server of this name had the same origin, as may happen where the
// clock starts at the same moment each time: all names of this run rest on it.
func (v *volume) claimRun() error {
	dir := v.root + "/" + dirRuns
	path := dir + "/" + v.store.origin
	err := v.fs.Symlink("-", path)
	if isNotExist(err) {
		if err := v.fs.Mkdir(dir); err != nil && !errors.Is(err, syscall.EEXIST) {
			return ioErr("mkdir", dir, err)
		}
		err = v.fs.Symlink("-", path)
	}
	v.store.mu.Lock()
	again := v.store.claimed[path]
	if v.store.claimed == nil {
		v.store.claimed = map[string]bool{}
	}
	if !errors.Is(err, syscall.EEXIST) {
		v.store.claimed[path] = true
	}
	v.store.mu.Unlock()
	if errors.Is(err, syscall.EEXIST) && again {
		err = nil // an earlier try of this run
	}
	if errors.Is(err, syscall.EEXIST) {
		return fmt.Errorf("%s exists: a server %q has been started at this very time before: is the clock right, and is the name used once? Start again", path, v.store.o.Server)
	}
	if err != nil {
		return ioErr("symlink", path, err)
	}
	return ioErr("sync", dir, v.syncDir(dir))
}

// present tells whether the volume is still mounted: asked before "it is not there" is believed.
func (v *volume) present() error {
	id, err := readMarker(v.fs, v.root)
	if err != nil {
		return fmt.Errorf("volume %s: %w: %w", v.name, ErrUnavailable, err)
	}
	if id != v.id {
		return fmt.Errorf("volume %s: %w: %w: found id %s, want %s", v.name, ErrUnavailable, ErrWrongVolume, id, v.id)
	}
	return nil
}

// mounted tells whether the volume is still the file system that it was. Where something is missing that may or may not be
// there, an unmounted volume looks like one without news. It costs no call to a file server, unless something else has been
// mounted since.
func (v *volume) mounted() error {
	id, err := v.fs.Mount(v.root)
	if err == nil && id == v.mount.Load() {
		return nil
	}
	if err := v.present(); err != nil {
		return err
	}
	v.mount.Store(id)
	return nil
}

// serverNow is the time by the file server's clock, the only one that ages are measured with. It is read
// from the mtime of a new file, once an hour.
func (v *volume) serverNow(ctx context.Context) (time.Time, error) {
	v.clockMu.Lock()
	at, server := v.clockAt, v.server
	v.clockMu.Unlock()
	if boot := v.clk.Boot(); !server.IsZero() && boot-at < time.Hour {
		return server.Add(boot - at), nil
	}
	var now time.Time
	err := v.do(ctx, func() error {
		path := v.root + "/tmp/" + v.store.nextNonce().String()
		at := v.clk.Boot() // before the call: never ahead of the server
		err := v.essential(func() error { return ioErr("write", path, createFile(v.fs, path, nil, syncNothing)) })
		if err != nil {
			return err
		}
		i, err := v.fs.Lstat(path)
		_ = v.fs.Unlink(path)
		if err != nil {
			return ioErr("lstat", path, err)
		}
		v.clockMu.Lock()
		v.clockAt, v.server = at, i.ModTime
		v.clockMu.Unlock()
		now = i.ModTime
		return nil
	})
	return now, err
}

func isNotExist(err error) bool {
	return errors.Is(err, syscall.ENOENT) || errors.Is(err, syscall.ESTALE) || errors.Is(err, syscall.ENOTDIR)
}

// certain tells whether an error of a call proves that the call had no effect.
func certain(err error) bool {
	for _, e := range []syscall.Errno{syscall.ENOSPC, syscall.EDQUOT, syscall.EROFS, syscall.EACCES, syscall.EPERM, syscall.ENAMETOOLONG, syscall.EMFILE, syscall.ENFILE, syscall.EINVAL, syscall.ENOTDIR} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// ioErr adds the operation and path to an error of the file system, and the store's error that it means.
func ioErr(op, path string, err error) error {
	if err == nil {
		return nil
	}
	var kind error
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		kind = ErrNoSpace
	case errors.Is(err, syscall.EROFS):
		kind = ErrReadOnly
	case errors.Is(err, syscall.EIO), errors.Is(err, syscall.ETIMEDOUT), errors.Is(err, syscall.ESTALE), errors.Is(err, syscall.ENODEV),
		errors.Is(err, syscall.EHOSTDOWN), errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH),
		errors.Is(err, syscall.ENOTCONN), errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE):
		kind = ErrUnavailable
	default:
		return fmt.Errorf("%s %s: %w", op, path, err)
	}
	return fmt.Errorf("%w: %s %s: %w", kind, op, path, err)
}
