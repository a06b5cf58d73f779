package mailstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"shoal/daemons/internal/vfs"
)

// MessageFile is the content of one message, immutable. Small ones are in memory.
type MessageFile struct {
	vol  *volume
	path string
	size int64  // of the message
	file int64  // of the file; less than size when LF is to be read as CRLF
	ends *lfMap // of such a file that is not in memory; made when it is opened
	data []byte
	f    *lastingFile // of a message that is not in memory

	mu   sync.Mutex
	left bool // nobody waits for the file any more
}

// inMemory is the size up to which a message is read whole when it is opened.
const inMemory = 256 << 10

// OpenMessage opens the content of a message. ErrNoMessage when the mailbox has no such UID (any more),
// ErrCorrupt when its file is missing or has another size.
func (m *Mailbox) OpenMessage(ctx context.Context, uid uint32) (*MessageFile, error) {
	st, err := m.plan(ctx)
	if err != nil {
		return nil, err
	}
	msg, ok := st.ByUID(uid)
	if !ok {
		if st, err = m.State(ctx); err != nil {
			return nil, err
		}
		if msg, ok = st.ByUID(uid); !ok {
			return nil, m.wrap(fmt.Errorf("UID %d: %w", uid, ErrNoMessage))
		}
	}
	return m.OpenFile(ctx, msg)
}

// OpenFile opens the content of a message that some state of this mailbox showed: as long as the retention
// lasts that works even after the message was expunged.
func (m *Mailbox) OpenFile(ctx context.Context, msg Message) (*MessageFile, error) {
	f := &MessageFile{vol: m.j.vol, path: m.j.messagePath(msg.dir(), msg.msgID()), size: msg.Size, file: msg.FileSize()}
	err := f.vol.do(ctx, f.open)
	if err != nil {
		f.mu.Lock()
		f.left = true
		f.mu.Unlock()
	}
	if isNotExist(err) {
		st, e := m.State(ctx)
		if e != nil {
			return nil, e
		}
		if _, ok := st.ByUID(msg.UID); !ok {
			return nil, m.wrap(fmt.Errorf("UID %d: %w", msg.UID, ErrNoMessage))
		}
		return nil, m.wrap(fmt.Errorf("UID %d: %s is missing: %w", msg.UID, f.path, ErrCorrupt))
	}
	if err != nil {
		return nil, m.wrap(err)
	}
	return f, nil
}

func (f *MessageFile) open() error {
	file, err := f.vol.fs.Open(f.path)
	if err != nil {
		if isNotExist(err) {
			return err
		}
		return ioErr("open", f.path, err)
	}
	if f.size > inMemory {
		f.mu.Lock()
		defer f.mu.Unlock()
		if f.left {
			return file.Close()
		}
		if f.file != f.size {
			if f.ends, err = mapLF(file, f.file, f.size, f.path); err != nil {
				_ = file.Close()
				return err
			}
		}
		f.f = &lastingFile{fs: f.vol.fs, path: f.path, files: []vfs.File{file}}
		return nil
	}
	defer file.Close()
	b := make([]byte, f.file+1)
	n, err := file.ReadAt(b, 0)
	if err != nil && err != io.EOF {
		return ioErr("read", f.path, err)
	}
	if int64(n) != f.file {
		return fmt.Errorf("%s: has %d bytes or more, want %d: %w", f.path, n, f.file, ErrCorrupt)
	}
	f.data = b[:n]
	if f.file != f.size {
		if f.data = appendCRLF(make([]byte, 0, f.size), b[:n], 0); int64(len(f.data)) != f.size {
			return fmt.Errorf("%s: is %d bytes with CRLF line ends, want %d: %w", f.path, len(f.data), f.size, ErrCorrupt)
		}
	}
	return nil
}

// Size is the length in bytes.
func (f *MessageFile) Size() int64 { return f.size }

// Intact compares the content with the message's checksum. Where the content is not in memory it does not look, and
// the answer is true.
func (f *MessageFile) Intact(m *Message) bool { return f.f != nil || checksum(f.data) == m.rec.crc }

// Bytes is the whole content if it is in memory, else nil. It must not be changed.
func (f *MessageFile) Bytes() []byte { return f.data }

// ReadAt implements io.ReaderAt.
func (f *MessageFile) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, errors.New("negative offset")
	}
	if off >= f.size {
		return 0, io.EOF
	}
	if f.f == nil {
		n := copy(p, f.data[off:])
		if n < len(p) {
			return n, io.EOF
		}
		return n, nil
	}
	// On a volume that hangs the read may outlive its caller, so it gets memory of its own.
	buf := make([]byte, len(p))
	var n int
	err := f.vol.do(context.Background(), func() (err error) {
		n, err = f.readFrom(buf, off)
		return err
	})
	if err != nil && err != io.EOF {
		return 0, err
	}
	return copy(p, buf[:n]), err
}

func (f *MessageFile) readFrom(p []byte, off int64) (int, error) {
	if f.ends != nil {
		n, err := f.ends.readAt(f.f, p, off)
		if err != nil && err != io.EOF {
			err = ioErr("read", f.path, err)
		}
		return n, err
	}
	n, err := f.f.ReadAt(p, off)
	if err == io.EOF && off+int64(n) < f.size {
		return n, fmt.Errorf("%s: has %d bytes, want %d: %w", f.path, off+int64(n), f.size, ErrCorrupt)
	}
	if err != nil && err != io.EOF {
		err = ioErr("read", f.path, err)
	}
	return n, err
}

// Close releases the file.
func (f *MessageFile) Close() error {
	if f.f == nil {
		return nil
	}
	file := f.f
	f.f = nil
	f.data, f.size = nil, 0
	if err := f.vol.acquire(context.Background()); err != nil {
		go func() { // when there is room for it
			f.vol.slots <- struct{}{}
			defer f.vol.release()
			_ = file.Close()
		}()
		return err
	}
	return f.vol.run(context.Background(), file.Close)
}
