// Package disk is a disk for tests: a block device whose writes, flushes and end are in the test's hands.
//
// It is a regular file that a FUSE server of this package answers for, with a loop device on top: the kernel's own ext4 or XFS
// lies on it and writes through the kernel's own block layer. The disk has a volatile write cache, as disks have: what was written is
// safe once a flush came after it. The server writes a log of all that arrives, so that for each moment of the past there is the image
// that a power cut would have left then (Image); and it can stop to answer, as a broken disk or path to it does (Hang).
//
// Root is needed. Mounts belong into a namespace of the caller's.
package disk

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"sync"

	"golang.org/x/sys/unix"
)

const pageSize = 4096

type page [pageSize]byte

// A Disk is such a disk.
type Disk struct {
	fs   string
	size int64
	path string // the file that is the disk
	fd   int    // /dev/fuse

	mu      sync.Mutex
	gate    *sync.Cond
	hung    bool
	base    map[int64]*page // before the log
	now     map[int64]*page // after it
	log     []record
	flushes int
	done    chan struct{}
}

// record is a write, or a flush (data nil).
type record struct {
	off  int64
	data []byte
}

// New makes a disk with an empty file system of the given type (ext4 or xfs) under the name path, which must be an empty file.
func New(path, fs string, size int64) (*Disk, error) {
	d := &Disk{fs: fs, size: size, path: path, base: map[int64]*page{}, now: map[int64]*page{}, done: make(chan struct{})}
	d.gate = sync.NewCond(&d.mu)
	if err := os.Truncate(path, size); err != nil {
		return nil, err
	}
	argv := []string{"mkfs.xfs", "-q", "-f", path}
	if fs == "ext4" {
		argv = []string{"mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0", path}
	}
	if out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("%v: %w: %s", argv, err, out)
	}
	if err := d.load(path); err != nil {
		return nil, err
	}
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("/dev/fuse: %w", err)
	}
	d.fd = fd
	options := fmt.Sprintf("fd=%d,rootmode=100600,user_id=0,group_id=0", fd)
	if err := unix.Mount("disk", path, "fuse", unix.MS_NOSUID|unix.MS_NODEV, options); err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("mount fuse on %s: %w", path, err)
	}
	go d.serve()
	return d, nil
}

// load takes the content of a file as what the disk holds.
func (d *Disk) load(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	for off := int64(0); off < d.size; {
		data, err := unix.Seek(int(f.Fd()), off, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			return nil
		}
		if err != nil {
			return err
		}
		hole, err := unix.Seek(int(f.Fd()), data, unix.SEEK_HOLE)
		if err != nil {
			return err
		}
		for off = data &^ (pageSize - 1); off < hole; off += pageSize {
			p := new(page)
			if _, err := f.ReadAt(p[:], off); err != nil {
				return err
			}
			if *p != (page{}) {
				d.base[off], d.now[off] = p, p
			}
		}
	}
	return nil
}

// Mount mounts the file system on dir.
func (d *Disk) Mount(dir string) error { return Mount(d.fs, d.path, dir) }

// Mount mounts an image on dir, which replays its journal. The disk that it is of may be mounted at the same time.
func Mount(fs, image, dir string) error {
	options := "loop"
	if fs == "xfs" {
		options += ",nouuid"
	}
	if out, err := exec.Command("mount", "-t", fs, "-o", options, image, dir).CombinedOutput(); err != nil {
		return fmt.Errorf("mount %s: %w: %s", image, err, out)
	}
	return nil
}

// Unmount ends what Mount began.
func Unmount(dir string) error {
	if out, err := exec.Command("umount", dir).CombinedOutput(); err != nil {
		return fmt.Errorf("umount %s: %w: %s", dir, err, out)
	}
	return nil
}

// Close takes the disk away, mounted or not: all that is under way fails.
func (d *Disk) Close() error {
	d.Hang(false)
	_ = unix.Unmount(d.path, unix.MNT_DETACH)
	err := unix.Close(d.fd)
	<-d.done
	return err
}

// Hang makes the disk stop to answer, or go on.
func (d *Disk) Hang(on bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.hung = on
	d.gate.Broadcast()
}

// Moment is the present, for Image: what was acknowledged before is in images of it and of later.
func (d *Disk) Moment() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.log)
}

// Flushes is the number of flushes so far.
func (d *Disk) Flushes() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.flushes
}

// Image writes what a power cut at a moment would have left to path: all that was written before the last flush, and of the
// rest the writes for which keep returns true.
func (d *Disk) Image(moment int, path string, keep func() bool) error {
	d.mu.Lock()
	log := d.log[:moment]
	d.mu.Unlock()
	safe := 0
	for i := range log {
		if log[i].data == nil {
			safe = i
		}
	}
	pages := map[int64]*page{}
	for i, r := range log {
		if r.data != nil && (i < safe || keep()) {
			d.apply(pages, r)
		}
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := f.Truncate(d.size); err != nil {
		return err
	}
	for off, p := range d.base {
		if pages[off] == nil {
			if _, err := f.WriteAt(p[:], off); err != nil {
				return err
			}
		}
	}
	for off, p := range pages {
		if _, err := f.WriteAt(p[:], off); err != nil {
			return err
		}
	}
	return f.Close()
}

// apply puts a write into pages, on top of the base.
func (d *Disk) apply(pages map[int64]*page, r record) {
	for b, off := r.data, r.off; len(b) > 0; {
		at := off &^ (pageSize - 1)
		p := pages[at]
		if p == nil {
			p = new(page)
			if old := d.base[at]; old != nil {
				*p = *old
			}
			pages[at] = p
		}
		n := copy(p[off-at:], b)
		b, off = b[n:], off+int64(n)
	}
}

// Torn is a keep for Image: each write that was not flushed reached the disk or did not.
func Torn(seed uint64) func() bool {
	r := rand.New(rand.NewPCG(seed, 1))
	return func() bool { return r.IntN(2) == 0 }
}
