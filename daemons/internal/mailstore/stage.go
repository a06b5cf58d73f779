package mailstore

import (
	"context"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"sync/atomic"
	"syscall"

	"shoal/daemons/internal/vfs"
)

// Staged is a message that is complete but in no mailbox yet. It may be delivered and appended any
// number of times, on its volume. Close releases it.
//
// A small message is kept in memory, and goes straight into the first mailbox. A larger one lies in a file in
// the volume's tmp/ and is linked. Once a message has a file, further mailboxes get hard links to it.
type Staged struct {
	vol    *volume
	size   int64
	crc    uint32
	data   []byte // in memory, or nil
	buf    *[]byte
	tmp    string // file in tmp/, or empty
	linked atomic.Pointer[string]
	refs   atomic.Int32
	closed atomic.Bool
}

// Size is the length in bytes.
func (s *Staged) Size() int64 { return s.size }

func (s *Staged) newID(st *Store) msgID {
	return msgID{st.nextNonce(), uint64(s.size), s.crc}
}

func (s *Staged) retain() { s.refs.Add(1) }

// release lets go of memory and temporary file after the last user: one that nobody waits for any more,
// on a volume that hangs, may still be writing.
func (s *Staged) release() {
	s.releaseIn(s.vol.tidyUp)
}

// releaseIn is release where do says how to do the rest.
func (s *Staged) releaseIn(do func(func())) {
	if s.refs.Add(-1) > 0 {
		return
	}
	if s.buf != nil {
		s.vol.store.bufs.Put(s.buf)
		s.buf, s.data = nil, nil
	}
	if s.tmp != "" {
		do(func() { _ = s.vol.fs.Unlink(s.tmp) })
	}
}

// Close releases memory and temporary files. It may be called twice.
func (s *Staged) Close() error {
	if s.closed.CompareAndSwap(false, true) {
		s.release()
	}
	return nil
}

// maxMessage is the size no message may exceed, whatever the caller allows.
const maxMessage = 1<<32 - 1

// Stage reads a message of at most max bytes (0: no limit) from r and gets it ready for the volume.
// An error of r is returned as it is; otherwise ErrTooLarge, ErrNoSpace, ErrUnavailable.
func (s *Store) Stage(ctx context.Context, volume string, r io.Reader, max int64) (*Staged, error) {
	v, err := s.volume(volume)
	if err != nil {
		return nil, err
	}
	if max <= 0 || max > maxMessage {
		max = maxMessage
	}
	m := &Staged{vol: v}
	m.refs.Store(1)
	bp, _ := s.bufs.Get().(*[]byte)
	if bp == nil {
		b := make([]byte, 0, 16<<10)
		bp = &b
	}
	b := (*bp)[:0]
	for {
		if len(b) == cap(b) {
			if cap(b) >= s.o.StageMemory {
				break
			}
			b = append(b, 0)[:len(b)]
		}
		n, err := r.Read(b[len(b):cap(b)])
		b = b[:len(b)+n]
		if int64(len(b)) > max {
			s.bufs.Put(bp)
			return nil, fmt.Errorf("message of more than %d bytes: %w", max, ErrTooLarge)
		}
		if err == io.EOF {
			*bp = b
			m.buf, m.data, m.size, m.crc = bp, b, int64(len(b)), checksum(b)
			return m, nil
		}
		if err != nil {
			s.bufs.Put(bp)
			return nil, err
		}
	}
	*bp = b
	defer s.bufs.Put(bp)
	return m, m.spool(ctx, s, b, r, max)
}

// spool writes a large message to tmp/.
func (m *Staged) spool(ctx context.Context, s *Store, head []byte, r io.Reader, max int64) error {
	v := m.vol
	path := v.root + "/tmp/" + s.nextNonce().String()
	var f vfs.File
	err := v.do(ctx, func() (err error) {
		f, err = v.fs.Create(path)
		return ioErr("create", path, err)
	})
	if err != nil {
		return err
	}
	sum := crc32.New(castagnoli)
	err = m.copyTo(ctx, f, path, sum, head, r, max)
	end := v.do(context.WithoutCancel(ctx), func() error {
		var e error
		if err == nil {
			if v.journal {
				e = f.SyncData()
			} else {
				e = f.Sync()
			}
		}
		if c := f.Close(); e == nil {
			e = c
		}
		if err != nil || e != nil {
			_ = v.fs.Unlink(path)
		}
		return ioErr("write", path, e)
	})
	if err == nil {
		err = end
	}
	if err == nil {
		m.tmp, m.crc = path, sum.Sum32()
	}
	return err
}

func (m *Staged) copyTo(ctx context.Context, f vfs.File, path string, sum hash.Hash32, head []byte, r io.Reader, max int64) error {
	b := head
	var readErr error
	for {
		if m.size += int64(len(b)); m.size > max {
			return fmt.Errorf("message of more than %d bytes: %w", max, ErrTooLarge)
		}
		sum.Write(b)
		// The buffer is written by value of its slice: a caller that gives up on a hung volume must not
		// reuse it, so each write gets its own copy there.
		out := append([]byte(nil), b...)
		err := m.vol.do(ctx, func() error {
			_, err := f.Write(out)
			return ioErr("write", path, err)
		})
		if err != nil {
			return err
		}
		if readErr == io.EOF {
			return nil
		}
		if readErr != nil {
			return readErr
		}
		b = head[:cap(head)]
		var n int
		n, readErr = io.ReadFull(r, b)
		if readErr == io.ErrUnexpectedEOF {
			readErr = io.EOF
		}
		if b = b[:n]; readErr != nil && readErr != io.EOF {
			return readErr
		}
	}
}

// placeMessage puts a staged message into the mailbox as the file of e, stable.
func (j *journal) placeMessage(s *Staged, e *entry) error {
	path := j.messagePath(e.dir, e.id)
	if from := s.source(); from != "" && s.vol == j.vol {
		err := j.inMessageDir(e.dir, func() error { return linkFile(j.vol.fs, from, path) })
		if err == nil {
			return j.vol.orderDir(path[:len(path)-len(e.id.String())-1])
		}
		if !linkImpossible(err) {
			return ioErr("link", path, err)
		}
		if s.data == nil {
			return j.copyFile(s.tmp, path, e)
		}
	}
	if s.data == nil {
		return j.copyFile(s.tmp, path, e)
	}
	err := j.inMessageDir(e.dir, func() error { return j.vol.writeFile(path, s.data) })
	if err != nil {
		return ioErr("write", path, err)
	}
	s.linked.Store(&path)
	return nil
}

// source is a file that holds the message already, or empty.
func (s *Staged) source() string {
	if s.tmp != "" {
		return s.tmp
	}
	if p := s.linked.Load(); p != nil {
		return *p
	}
	return ""
}

// linkFile links; a name that exists already is our own, made by a try whose reply was lost: names are
// used once.
func linkFile(fs vfs.FS, old, path string) error {
	err := fs.Link(old, path)
	if errors.Is(err, syscall.EEXIST) {
		return nil
	}
	return err
}

// linkImpossible: the file has all the links it can have, lies elsewhere, is gone, or may not be linked:
// a new file will do.
func linkImpossible(err error) bool {
	return errors.Is(err, syscall.EMLINK) || errors.Is(err, syscall.EXDEV) || errors.Is(err, syscall.ENOENT) ||
		errors.Is(err, syscall.ESTALE) || errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.EOPNOTSUPP)
}

// copyFile writes a message file from another file.
func (j *journal) copyFile(from, path string, e *entry) error {
	b, err := readFile(j.vol.fs, from, maxMessage)
	if err != nil {
		return ioErr("read", from, err)
	}
	if checksum(b) != e.id.crc || uint64(len(b)) != e.id.size {
		return fmt.Errorf("%s: checksum: %w", from, ErrCorrupt)
	}
	return ioErr("write", path, j.inMessageDir(e.dir, func() error { return j.vol.writeFile(path, b) }))
}
