// Package vfs is the one door through which the store reaches a file system, so that a test can
// count, order, delay, fail or lose any single operation, and cut the power after any of them.
//
// The interface holds the operations the store uses and no others; each of them is one system call
// (ReadDir: open, getdents, close) and, on NFS, a known number of calls to the server. Errors are
// plain syscall.Errno values: the store decides by them (EEXIST, ENOENT, ESTALE, ENOSPC, EMLINK ...)
// and adds the path when it reports one; errors.Is with the io/fs errors works on them.
//
// Implementations: OS (the machine), Mem (memory, knows what has been synced and can produce what a
// power cut leaves), Fault (wraps one of the two: counts, traces, fails, loses replies, crashes).
package vfs

import "time"

// FS is a file system. All methods may be called from several goroutines at once.
type FS interface {
	// Create opens path for writing and creates it when missing: O_CREAT without O_EXCL, because
	// O_EXCL costs one more call on NFS and names in the store are unique anyway. Mode 0600.
	Create(path string) (File, error)
	// Open opens path for reading.
	Open(path string) (File, error)
	// Symlink creates path with the given target. EEXIST is passed through.
	Symlink(target, path string) error
	// Readlink copies the target of path into buf and returns its length. A target that does not fit
	// is an error (ENAMETOOLONG), never a truncated result.
	Readlink(path string, buf []byte) (int, error)
	// Lstat describes path itself.
	Lstat(path string) (Info, error)
	// ReadDir appends the names in path to names, in no order, without "." and "..". The directory is
	// opened anew for each call: on NFS that revalidates it with the server.
	ReadDir(path string, names []string) ([]string, error)
	// Mkdir creates a directory, mode 0700.
	Mkdir(path string) error
	// Link makes path a further name of the file old.
	Link(old, path string) error
	// Rename moves old to path, replacing a file or an empty directory there.
	Rename(old, path string) error
	Unlink(path string) error
	Rmdir(path string) error
	// SyncDir makes the entries of a directory durable: one flush on a local file system.
	SyncDir(path string) error
	// SyncJournal makes durable all that anybody did on the file system of the directory path before the call: it
	// changes the directory's time of access and modification and syncs it. It means that only where StatFS.Journal is set.
	SyncJournal(path string) error
	// Mount identifies the mounted file system that holds path. This machine's kernel knows it: on NFS no call is made.
	Mount(path string) (uint64, error)
	// Statfs describes the file system that holds path.
	Statfs(path string) (StatFS, error)
}

// File is an open file.
type File interface {
	// Write writes all of p at the current position or returns an error.
	Write(p []byte) (int, error)
	ReadAt(p []byte, off int64) (int, error)
	// Sync makes data and size durable, and the entry of a newly created file with them.
	Sync() error
	// SyncData waits until the data is on the device, without flushing the device's cache and without the file's
	// metadata. Where StatFS.Journal is set, the file is durable once something is that was done after SyncData.
	SyncData() error
	// Close returns the errors of delayed writes (NFS reports ENOSPC and EDQUOT here).
	Close() error
}

// Kind is what an entry is.
type Kind uint8

// The kinds of entries the store makes.
const (
	KindOther Kind = iota
	KindFile
	KindDir
	KindSymlink
)

// Info describes one entry.
type Info struct {
	Kind    Kind
	Size    int64
	ModTime time.Time // the file server's clock
	Nlink   uint64
	Inode   uint64
	Device  uint64
	UID     uint32
}

// StatFS describes a file system.
type StatFS struct {
	Type       int64  // magic number of statfs(2)
	Network    bool   // NFS or another network file system: its server commits each call by itself
	Journal    bool   // a local file system that makes changes durable in the order in which they were made
	ReadOnly   bool   // mounted read-only
	Total      uint64 // bytes
	Free       uint64 // bytes available to the caller
	Files      uint64
	FilesFree  uint64
	MaxNameLen int64
}
