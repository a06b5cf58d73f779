package vfs

import (
	"encoding/binary"
	"io"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// OS returns the machine's file system. Calls interrupted by a signal are repeated.
func OS() FS { return osFS{} }

type osFS struct{}

// osFile is a plain descriptor: os.File would try to register it with the poller, one call for nothing.
type osFile struct{ fd int }

func retry(f func() error) error {
	for {
		if err := f(); err != unix.EINTR {
			return err
		}
	}
}

func open(path string, flags int, mode uint32) (fd int, err error) {
	for {
		fd, err = unix.Open(path, flags|unix.O_CLOEXEC, mode)
		if err != unix.EINTR {
			return fd, err
		}
	}
}

func (osFS) Create(path string) (File, error) {
	fd, err := open(path, unix.O_WRONLY|unix.O_CREAT|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	return &osFile{fd}, nil
}

func (osFS) Open(path string) (File, error) {
	fd, err := open(path, unix.O_RDONLY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	return &osFile{fd}, nil
}

// Forget lets go of what the kernel keeps of the content of an open file, so that the next read asks the device or the file
// server. What is not written back yet stays.
func Forget(f File) {
	if o, ok := f.(*osFile); ok {
		_ = unix.Fadvise(o.fd, 0, 0, unix.FADV_DONTNEED)
	}
}

func (f *osFile) Write(p []byte) (int, error) {
	done := 0
	for done < len(p) {
		n, err := unix.Write(f.fd, p[done:])
		if n > 0 {
			done += n
		}
		switch {
		case err == unix.EINTR:
		case err != nil:
			return done, err
		case n == 0:
			return done, io.ErrShortWrite
		}
	}
	return done, nil
}

func (f *osFile) ReadAt(p []byte, off int64) (int, error) {
	done := 0
	for done < len(p) {
		n, err := unix.Pread(f.fd, p[done:], off+int64(done))
		switch {
		case err == unix.EINTR:
		case err != nil:
			return done, err
		case n == 0:
			return done, io.EOF
		default:
			done += n
		}
	}
	return done, nil
}

func (f *osFile) Sync() error { return retry(func() error { return unix.Fsync(f.fd) }) }

func (f *osFile) SyncData() error {
	const all = unix.SYNC_FILE_RANGE_WAIT_BEFORE | unix.SYNC_FILE_RANGE_WRITE | unix.SYNC_FILE_RANGE_WAIT_AFTER
	return retry(func() error { return unix.SyncFileRange(f.fd, 0, 0, all) })
}

// Close is not repeated after EINTR: the descriptor is gone in any case.
func (f *osFile) Close() error {
	if err := unix.Close(f.fd); err != nil && err != unix.EINTR {
		return err
	}
	return nil
}

func (osFS) Symlink(target, path string) error {
	return retry(func() error { return unix.Symlink(target, path) })
}

func (osFS) Readlink(path string, buf []byte) (int, error) {
	for {
		n, err := unix.Readlink(path, buf)
		switch {
		case err == unix.EINTR:
		case err != nil:
			return 0, err
		case n == len(buf):
			return 0, unix.ENAMETOOLONG
		default:
			return n, nil
		}
	}
}

func (osFS) Lstat(path string) (Info, error) {
	var st unix.Stat_t
	if err := retry(func() error { return unix.Lstat(path, &st) }); err != nil {
		return Info{}, err
	}
	i := Info{Size: st.Size, ModTime: time.Unix(st.Mtim.Unix()), Nlink: uint64(st.Nlink), Inode: st.Ino, Device: uint64(st.Dev), UID: st.Uid}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		i.Kind = KindFile
	case unix.S_IFDIR:
		i.Kind = KindDir
	case unix.S_IFLNK:
		i.Kind = KindSymlink
	}
	return i, nil
}

var dirBufs = sync.Pool{New: func() any { b := make([]byte, 8192); return &b }}

func (osFS) ReadDir(path string, names []string) ([]string, error) {
	fd, err := open(path, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return names, err
	}
	defer unix.Close(fd)
	bp := dirBufs.Get().(*[]byte)
	defer dirBufs.Put(bp)
	for {
		n, err := unix.ReadDirent(fd, *bp)
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return names, err
		case n <= 0:
			return names, nil
		}
		names = appendDirents(names, (*bp)[:n])
	}
}

// appendDirents reads linux_dirent64 records: ino(8) off(8) reclen(2) type(1) name NUL.
func appendDirents(names []string, b []byte) []string {
	for len(b) > 19 {
		l := int(binary.NativeEndian.Uint16(b[16:]))
		if l < 20 || l > len(b) {
			return names
		}
		name := b[19:l]
		for i, c := range name {
			if c == 0 {
				name = name[:i]
				break
			}
		}
		if s := string(name); s != "." && s != ".." {
			names = append(names, s)
		}
		b = b[l:]
	}
	return names
}

func (osFS) Mkdir(path string) error { return retry(func() error { return unix.Mkdir(path, 0o700) }) }

func (osFS) Link(old, path string) error {
	return retry(func() error { return unix.Link(old, path) })
}

func (osFS) Rename(old, path string) error {
	return retry(func() error { return unix.Rename(old, path) })
}

func (osFS) Unlink(path string) error { return retry(func() error { return unix.Unlink(path) }) }

func (osFS) Rmdir(path string) error { return retry(func() error { return unix.Rmdir(path) }) }

func (osFS) SyncDir(path string) error { return syncDir(path, false) }

func (osFS) SyncJournal(path string) error { return syncDir(path, true) }

func syncDir(path string, touch bool) error {
	fd, err := open(path, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	if touch {
		if err := retry(func() error { return unix.UtimesNanoAt(unix.AT_FDCWD, path, nil, unix.AT_SYMLINK_NOFOLLOW) }); err != nil {
			_ = unix.Close(fd)
			return err
		}
	}
	err = retry(func() error { return unix.Fsync(fd) })
	if e := unix.Close(fd); err == nil && e != nil && e != unix.EINTR {
		err = e
	}
	return err
}

// Magic numbers of file systems: NFS, whose server commits each metadata call before it answers, and those that
// journal metadata in order.
const (
	magicNFS  = 0x6969
	magicExt4 = 0xef53 // ext2 and ext3 too
	magicXFS  = 0x58465342
)

func (osFS) Mount(path string) (uint64, error) {
	var st unix.Statx_t
	err := retry(func() error { return unix.Statx(unix.AT_FDCWD, path, unix.AT_STATX_DONT_SYNC, 0, &st) })
	return uint64(st.Dev_major)<<32 | uint64(st.Dev_minor), err
}

func (osFS) Statfs(path string) (StatFS, error) {
	var st unix.Statfs_t
	if err := retry(func() error { return unix.Statfs(path, &st) }); err != nil {
		return StatFS{}, err
	}
	bs := uint64(st.Bsize)
	journal := false
	if int64(st.Type) == magicExt4 || int64(st.Type) == magicXFS {
		journal = keepsOrder(path)
	}
	return StatFS{
		Type:       int64(st.Type),
		Network:    int64(st.Type) == magicNFS,
		Journal:    journal,
		ReadOnly:   st.Flags&unix.ST_RDONLY != 0,
		Total:      st.Blocks * bs,
		Free:       st.Bavail * bs,
		Files:      st.Files,
		FilesFree:  st.Ffree,
		MaxNameLen: int64(st.Namelen),
	}, nil
}
