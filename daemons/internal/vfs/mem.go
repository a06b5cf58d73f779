package vfs

import (
	"io"
	"maps"
	"path"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Mem is a file system in memory that knows what has been made durable, by the rules of ext4 and xfs as
// they were found by replaying crash images:
//
//   - Sync of a file makes its data durable, and the directory entry under which it was created;
//   - SyncDir makes the entries of one directory durable, with the targets of symlinks, but not the
//     data of files;
//   - a rename is one step: durable in both directories or in none.
//
// All else may be lost in a power cut, piece by piece. That is harsher than a journal, which loses
// only what comes last. SetJournal makes it such a journal (memjournal.go).
type Mem struct {
	mu   sync.Mutex
	now  func() time.Time
	root *memNode
	ino  uint64
	net  bool
	mv   []memRename
	log  *memJournal
}

type memNode struct {
	kind    Kind
	ino     uint64
	nlink   int
	mtime   time.Time
	target  string
	data    []byte
	safe    []byte // data as of the last Sync
	entries map[string]*memNode
	durable map[string]*memNode
	// Where a file was created: Sync covers that entry.
	parent *memNode
	name   string
	seq    uint64 // the last change of it in the journal
}

type memRename struct {
	from, to      *memNode
	oldName, name string
	node          *memNode
}

// NewMem returns an empty file system with a root directory "/". Modification times come from now.
func NewMem(now func() time.Time) *Mem {
	m := &Mem{now: now}
	m.root = m.node(KindDir)
	return m
}

// SetNetwork makes Statfs say that this is a network file system, whose server commits each call: then
// every operation except the writing of file data is durable at once. It must be called before anything is in it.
func (m *Mem) SetNetwork(on bool) {
	m.net = on
	m.root = m.node(KindDir)
}

func (m *Mem) node(k Kind) *memNode {
	m.ino++
	n := &memNode{kind: k, ino: m.ino, nlink: 1, mtime: m.now()}
	if k == KindDir {
		n.entries, n.durable = map[string]*memNode{}, map[string]*memNode{}
		if m.net {
			n.durable = n.entries
		}
	}
	return n
}

// Crash returns the file system as a power cut now would leave it. What is not durable is lost, except
// for the pieces for which keep returns true; keep nil keeps none of them.
func (m *Mem) Crash(keep func() bool) *Mem {
	m.mu.Lock()
	defer m.mu.Unlock()
	if keep == nil {
		keep = func() bool { return false }
	}
	out := &Mem{now: m.now, ino: m.ino, net: m.net}
	if m.log != nil {
		out.log = &memJournal{seq: m.log.seq, done: m.log.seq}
	}
	image := m.image(keep)
	seen := map[*memNode]*memNode{}
	var clone func(n *memNode) *memNode
	clone = func(n *memNode) *memNode {
		if c := seen[n]; c != nil {
			c.nlink++
			return c
		}
		c := &memNode{kind: n.kind, ino: n.ino, nlink: 1, mtime: n.mtime, target: n.target}
		seen[n] = c
		if n.kind == KindFile {
			c.safe = image.data(n)
			if !slices.Equal(c.safe, n.data) && keep() {
				c.safe = n.data
			}
			c.data = slices.Clone(c.safe)
		}
		if n.kind == KindDir {
			c.entries = map[string]*memNode{}
			left := maps.Clone(image.dir(n))
			for _, name := range slices.Sorted(maps.Keys(n.entries)) {
				if m.log == nil && n.durable[name] != n.entries[name] && keep() {
					left[name] = n.entries[name]
				}
			}
			for _, name := range slices.Sorted(maps.Keys(n.durable)) {
				if m.log == nil && n.entries[name] == nil && keep() {
					delete(left, name)
				}
			}
			for _, name := range slices.Sorted(maps.Keys(left)) {
				c.entries[name] = clone(left[name])
			}
			c.durable = maps.Clone(c.entries)
		}
		return c
	}
	out.root = clone(m.root)
	return out
}

// walk returns the directory of path and the last name in it.
func (m *Mem) walk(p string) (dir *memNode, name string, err error) {
	p = path.Clean("/" + p)
	if p == "/" {
		return nil, "", syscall.EBUSY
	}
	dir = m.root
	parts := strings.Split(p[1:], "/")
	for _, s := range parts[:len(parts)-1] {
		next := dir.entries[s]
		if next == nil {
			return nil, "", syscall.ENOENT
		}
		if next.kind != KindDir {
			return nil, "", syscall.ENOTDIR
		}
		dir = next
	}
	name = parts[len(parts)-1]
	if len(name) > 255 {
		return nil, "", syscall.ENAMETOOLONG
	}
	return dir, name, nil
}

func (m *Mem) lookup(p string) (*memNode, error) {
	if path.Clean("/"+p) == "/" {
		return m.root, nil
	}
	dir, name, err := m.walk(p)
	if err != nil {
		return nil, err
	}
	n := dir.entries[name]
	if n == nil {
		return nil, syscall.ENOENT
	}
	return n, nil
}

func (m *Mem) put(dir *memNode, name string, n *memNode) {
	dir.entries[name] = n
	m.changed(dir)
	m.note(memChange{dir: dir, name: name, node: n})
}

// changed notes a change of a directory's entries.
func (m *Mem) changed(dir *memNode) { dir.mtime = m.now() }

func (m *Mem) Create(p string) (File, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	dir, name, err := m.walk(p)
	if err != nil {
		return nil, err
	}
	n := dir.entries[name]
	if n == nil {
		n = m.node(KindFile)
		n.parent, n.name = dir, name
		m.put(dir, name, n)
	}
	if n.kind != KindFile {
		return nil, syscall.EISDIR
	}
	return &memFile{m: m, n: n, write: true}, nil
}

func (m *Mem) Open(p string) (File, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	n, err := m.lookup(p)
	if err != nil {
		return nil, err
	}
	switch n.kind {
	case KindSymlink:
		return nil, syscall.ELOOP
	case KindDir:
		return nil, syscall.EISDIR
	}
	return &memFile{m: m, n: n}, nil
}

type memFile struct {
	m      *Mem
	n      *memNode
	write  bool
	pos    int
	closed bool
}

func (f *memFile) Write(p []byte) (int, error) {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	if f.closed || !f.write {
		return 0, syscall.EBADF
	}
	// The data is copied on write: Crash and readers share it.
	data := make([]byte, max(len(f.n.data), f.pos+len(p)))
	copy(data, f.n.data)
	copy(data[f.pos:], p)
	f.n.data = data
	f.pos += len(p)
	f.n.mtime = f.m.now()
	return len(p), nil
}

func (f *memFile) ReadAt(p []byte, off int64) (int, error) {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	if f.closed {
		return 0, syscall.EBADF
	}
	if off >= int64(len(f.n.data)) {
		return 0, io.EOF
	}
	n := copy(p, f.n.data[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (f *memFile) Sync() error {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	if f.closed {
		return syscall.EBADF
	}
	if f.m.log != nil {
		f.m.noteData(f.n)
		f.m.commit(f.n.seq)
		return nil
	}
	f.n.safe = f.n.data
	if d := f.n.parent; d != nil && d.entries[f.n.name] == f.n {
		d.durable[f.n.name] = f.n
	}
	return nil
}

func (f *memFile) Close() error {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	if f.closed {
		return syscall.EBADF
	}
	f.closed = true
	if f.m.net {
		f.n.safe = f.n.data // NFS: close-to-open
	}
	return nil
}

func (m *Mem) Symlink(target, p string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	dir, name, err := m.walk(p)
	switch {
	case err != nil:
		return err
	case dir.entries[name] != nil:
		return syscall.EEXIST
	case target == "":
		return syscall.ENOENT
	case len(target) > 1023: // the limit of XFS
		return syscall.ENAMETOOLONG
	}
	n := m.node(KindSymlink)
	n.target = target
	m.put(dir, name, n)
	return nil
}

func (m *Mem) Readlink(p string, buf []byte) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	n, err := m.lookup(p)
	switch {
	case err != nil:
		return 0, err
	case n.kind != KindSymlink:
		return 0, syscall.EINVAL
	case len(n.target) >= len(buf):
		return 0, syscall.ENAMETOOLONG
	}
	return copy(buf, n.target), nil
}

func (m *Mem) Lstat(p string) (Info, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	n, err := m.lookup(p)
	if err != nil {
		return Info{}, err
	}
	size := int64(len(n.data))
	if n.kind == KindSymlink {
		size = int64(len(n.target))
	}
	return Info{Kind: n.kind, Size: size, ModTime: n.mtime, Nlink: uint64(n.nlink), Inode: n.ino, Device: 1}, nil
}

func (m *Mem) ReadDir(p string, names []string) ([]string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	n, err := m.lookup(p)
	if err != nil {
		return names, err
	}
	if n.kind != KindDir {
		return names, syscall.ENOTDIR
	}
	for name := range n.entries {
		names = append(names, name)
	}
	return names, nil
}

func (m *Mem) Mkdir(p string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	dir, name, err := m.walk(p)
	if err == syscall.EBUSY {
		return syscall.EEXIST
	}
	if err != nil {
		return err
	}
	if dir.entries[name] != nil {
		return syscall.EEXIST
	}
	m.put(dir, name, m.node(KindDir))
	return nil
}

func (m *Mem) Link(old, p string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	n, err := m.lookup(old)
	if err != nil {
		return err
	}
	if n.kind == KindDir {
		return syscall.EPERM
	}
	dir, name, err := m.walk(p)
	if err != nil {
		return err
	}
	if dir.entries[name] != nil {
		return syscall.EEXIST
	}
	n.nlink++
	m.put(dir, name, n)
	return nil
}

func (m *Mem) Rename(old, p string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	from, oldName, err := m.walk(old)
	if err != nil {
		return err
	}
	n := from.entries[oldName]
	if n == nil {
		return syscall.ENOENT
	}
	to, name, err := m.walk(p)
	if err != nil {
		return err
	}
	there := to.entries[name]
	if there == n {
		return nil
	}
	if there != nil {
		switch {
		case n.kind == KindDir && there.kind != KindDir:
			return syscall.ENOTDIR
		case n.kind != KindDir && there.kind == KindDir:
			return syscall.EISDIR
		case there.kind == KindDir && len(there.entries) > 0:
			return syscall.ENOTEMPTY
		}
		there.nlink--
	}
	delete(from.entries, oldName)
	m.changed(from)
	to.entries[name] = n
	m.changed(to)
	m.note(memChange{dir: from, name: oldName}, memChange{dir: to, name: name, node: n})
	if !m.net {
		m.mv = append(m.mv, memRename{from: from, to: to, oldName: oldName, name: name, node: n})
	}
	return nil
}

func (m *Mem) Unlink(p string) error { return m.remove(p, false) }

func (m *Mem) Rmdir(p string) error { return m.remove(p, true) }

func (m *Mem) remove(p string, isDir bool) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	dir, name, err := m.walk(p)
	if err != nil {
		return err
	}
	n := dir.entries[name]
	switch {
	case n == nil:
		return syscall.ENOENT
	case isDir && n.kind != KindDir:
		return syscall.ENOTDIR
	case !isDir && n.kind == KindDir:
		return syscall.EISDIR
	case isDir && len(n.entries) > 0:
		return syscall.ENOTEMPTY
	}
	n.nlink--
	delete(dir.entries, name)
	m.changed(dir)
	m.note(memChange{dir: dir, name: name})
	return nil
}

func (m *Mem) SyncDir(p string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	n, err := m.lookup(p)
	if err != nil {
		return err
	}
	if n.kind != KindDir {
		return syscall.ENOTDIR
	}
	if m.log != nil {
		m.commit(n.seq)
		return nil
	}
	if m.net {
		return nil
	}
	n.durable = maps.Clone(n.entries)
	left := m.mv[:0]
	for _, r := range m.mv {
		if r.from != n && r.to != n {
			left = append(left, r)
			continue
		}
		if r.from.durable[r.oldName] == r.node && r.from.entries[r.oldName] != r.node {
			delete(r.from.durable, r.oldName)
		}
		if r.to.entries[r.name] == r.node {
			r.to.durable[r.name] = r.node
		}
	}
	m.mv = left
	return nil
}

// Mount says that all of m is one mounted file system.
func (m *Mem) Mount(string) (uint64, error) { return 1, nil }

func (m *Mem) Statfs(p string) (StatFS, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, err := m.lookup(p); err != nil {
		return StatFS{}, err
	}
	return StatFS{Type: 0x01021994, Network: m.net, Journal: m.log != nil, Total: 1 << 40, Free: 1 << 39, Files: 1 << 30, FilesFree: 1 << 29, MaxNameLen: 255}, nil
}
