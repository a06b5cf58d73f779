package vfs

import (
	"fmt"
	"sync"
	"syscall"
)

// Op is the kind of an operation.
type Op uint8

// The operations, in the order of FS and File.
const (
	OpCreate Op = iota
	OpOpen
	OpSymlink
	OpReadlink
	OpLstat
	OpReadDir
	OpMkdir
	OpLink
	OpRename
	OpUnlink
	OpRmdir
	OpSyncDir
	OpStatfs
	OpWrite
	OpRead
	OpSync
	OpClose
	OpSyncData
	OpSyncJournal
	opCount
)

var opNames = [opCount]string{"create", "open", "symlink", "readlink", "lstat", "readdir", "mkdir", "link", "rename",
	"unlink", "rmdir", "syncdir", "statfs", "write", "read", "sync", "close", "syncdata", "syncjournal"}

func (o Op) String() string { return opNames[o] }

// Call is one operation on its way.
type Call struct {
	Op   Op
	Path string
	To   string // second path of link and rename, target of symlink
	I    int    // its number since the last Reset, from 0
}

func (c Call) String() string {
	if c.To != "" {
		return fmt.Sprintf("%s %s %s", c.Op, c.Path, c.To)
	}
	return c.Op.String() + " " + c.Path
}

// Action says what becomes of an operation.
type Action struct {
	// Err, when set, is reported instead of the outcome.
	Err error
	// Lost: the operation is carried out all the same, as when a reply gets lost.
	Lost bool
	// Partial: of a write, the first half is carried out.
	Partial bool
	// Crash: from this operation on, nothing is carried out any more and all fail with EIO. With Lost, this one
	// is still carried out.
	Crash bool
	// Wait, when set, is received from before the operation goes on.
	Wait <-chan struct{}
}

// Counts holds the number of operations by kind.
type Counts [opCount]int

// Total is the number of all operations.
func (c Counts) Total() int {
	n := 0
	for _, x := range c {
		n += x
	}
	return n
}

// String lists the kinds that occurred, in a fixed order.
func (c Counts) String() string {
	s := ""
	for o, n := range c {
		if n > 0 {
			if s != "" {
				s += " "
			}
			s += fmt.Sprintf("%s:%d", Op(o), n)
		}
	}
	return s
}

// Fault is a file system in front of another one that counts and records operations, and lets a hook decide
// what becomes of each.
type Fault struct {
	inner FS

	mu      sync.Mutex
	hook    func(Call) Action
	counts  Counts
	i       int
	crashed bool
	record  bool
	trace   []Call
}

// NewFault returns a Fault without a hook: all operations pass.
func NewFault(inner FS) *Fault { return &Fault{inner: inner} }

// Hook sets the function that decides about each operation; nil lets all pass. It may be called from
// several goroutines, one call at a time.
func (f *Fault) Hook(h func(Call) Action) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.hook = h
}

// Reset begins counting and recording anew, and ends a crash.
func (f *Fault) Reset() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.counts, f.i, f.trace, f.crashed = Counts{}, 0, nil, false
}

// Counts returns the operations since Reset.
func (f *Fault) Counts() Counts {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.counts
}

// Record switches the recording of operations on or off.
func (f *Fault) Record(on bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.record = on
}

// Trace returns the operations recorded since Reset, in order.
func (f *Fault) Trace() []Call {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]Call(nil), f.trace...)
}

// Crashed tells whether an action has crashed the file system.
func (f *Fault) Crashed() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.crashed
}

// do passes an operation through. run carries it out.
func (f *Fault) do(op Op, path, to string, run func(partial bool) error) error {
	f.mu.Lock()
	c := Call{op, path, to, f.i}
	f.i++
	f.counts[op]++
	if f.record {
		f.trace = append(f.trace, c)
	}
	if f.crashed {
		f.mu.Unlock()
		return syscall.EIO
	}
	var a Action
	if f.hook != nil {
		a = f.hook(c)
	}
	if a.Crash {
		f.crashed = true
		if a.Err == nil {
			a.Err = syscall.EIO
		}
	}
	f.mu.Unlock()
	if a.Wait != nil {
		<-a.Wait
	}
	if a.Err == nil {
		return run(false)
	}
	if a.Lost || a.Partial {
		if err := run(a.Partial); err != nil && !a.Crash {
			return err
		}
	}
	return a.Err
}

func (f *Fault) Create(path string) (File, error) {
	var file File
	err := f.do(OpCreate, path, "", func(bool) (err error) { file, err = f.inner.Create(path); return err })
	return f.file(file, path, err)
}

func (f *Fault) Open(path string) (File, error) {
	var file File
	err := f.do(OpOpen, path, "", func(bool) (err error) { file, err = f.inner.Open(path); return err })
	return f.file(file, path, err)
}

func (f *Fault) file(file File, path string, err error) (File, error) {
	if err != nil {
		if file != nil {
			_ = file.Close()
		}
		return nil, err
	}
	return &faultFile{f, file, path}, nil
}

func (f *Fault) Symlink(target, path string) error {
	return f.do(OpSymlink, path, target, func(bool) error { return f.inner.Symlink(target, path) })
}

func (f *Fault) Readlink(path string, buf []byte) (n int, err error) {
	err = f.do(OpReadlink, path, "", func(bool) (err error) { n, err = f.inner.Readlink(path, buf); return err })
	return n, err
}

func (f *Fault) Lstat(path string) (i Info, err error) {
	err = f.do(OpLstat, path, "", func(bool) (err error) { i, err = f.inner.Lstat(path); return err })
	return i, err
}

func (f *Fault) ReadDir(path string, names []string) ([]string, error) {
	out := names
	err := f.do(OpReadDir, path, "", func(bool) (err error) { out, err = f.inner.ReadDir(path, names); return err })
	if err != nil {
		return names, err
	}
	return out, nil
}

func (f *Fault) Mkdir(path string) error {
	return f.do(OpMkdir, path, "", func(bool) error { return f.inner.Mkdir(path) })
}

func (f *Fault) Link(old, path string) error {
	return f.do(OpLink, old, path, func(bool) error { return f.inner.Link(old, path) })
}

func (f *Fault) Rename(old, path string) error {
	return f.do(OpRename, old, path, func(bool) error { return f.inner.Rename(old, path) })
}

func (f *Fault) Unlink(path string) error {
	return f.do(OpUnlink, path, "", func(bool) error { return f.inner.Unlink(path) })
}

func (f *Fault) Rmdir(path string) error {
	return f.do(OpRmdir, path, "", func(bool) error { return f.inner.Rmdir(path) })
}

func (f *Fault) SyncDir(path string) error {
	return f.do(OpSyncDir, path, "", func(bool) error { return f.inner.SyncDir(path) })
}

func (f *Fault) SyncJournal(path string) error {
	return f.do(OpSyncJournal, path, "", func(bool) error { return f.inner.SyncJournal(path) })
}

// Mount is no operation on a file system: it is neither counted nor failed.
func (f *Fault) Mount(path string) (uint64, error) { return f.inner.Mount(path) }

func (f *Fault) Statfs(path string) (s StatFS, err error) {
	err = f.do(OpStatfs, path, "", func(bool) (err error) { s, err = f.inner.Statfs(path); return err })
	return s, err
}

type faultFile struct {
	f    *Fault
	in   File
	path string
}

func (x *faultFile) Write(p []byte) (n int, err error) {
	err = x.f.do(OpWrite, x.path, "", func(partial bool) (err error) {
		if partial {
			p = p[:len(p)/2]
		}
		n, err = x.in.Write(p)
		return err
	})
	return n, err
}

func (x *faultFile) ReadAt(p []byte, off int64) (n int, err error) {
	err = x.f.do(OpRead, x.path, "", func(bool) (err error) { n, err = x.in.ReadAt(p, off); return err })
	return n, err
}

func (x *faultFile) Sync() error {
	return x.f.do(OpSync, x.path, "", func(bool) error { return x.in.Sync() })
}

func (x *faultFile) SyncData() error {
	return x.f.do(OpSyncData, x.path, "", func(bool) error { return x.in.SyncData() })
}

// Close always closes the file beneath, whatever it reports: descriptors are not what is tested.
func (x *faultFile) Close() error {
	closed := false
	err := x.f.do(OpClose, x.path, "", func(bool) error { closed = true; return x.in.Close() })
	if !closed {
		_ = x.in.Close()
	}
	return err
}
