package mailstore

import (
	"bytes"
	"context"
	"io"

	"shoal/daemons/internal/vfs"
)

// StagedFile reads a staged message. It must be closed before the message is.
type StagedFile struct {
	vol  *volume
	size int64
	data *bytes.Reader // in memory, or nil
	path string
	f    vfs.File
}

// Open opens the content for reading: by whoever looks at a message before it is stored.
func (s *Staged) Open(ctx context.Context) (*StagedFile, error) {
	f := &StagedFile{vol: s.vol, size: s.size}
	if s.data != nil || s.size == 0 {
		f.data = bytes.NewReader(s.data)
		return f, nil
	}
	f.path = s.source()
	err := s.vol.do(ctx, func() (err error) {
		f.f, err = s.vol.fs.Open(f.path)
		return ioErr("open", f.path, err)
	})
	if err != nil {
		return nil, err
	}
	return f, nil
}

// Size is the length in bytes.
func (f *StagedFile) Size() int64 { return f.size }

// ReadAt implements io.ReaderAt.
func (f *StagedFile) ReadAt(p []byte, off int64) (int, error) {
	if f.data != nil {
		return f.data.ReadAt(p, off)
	}
	buf := make([]byte, len(p)) // on a volume that hangs the read may outlive its caller
	var n int
	err := f.vol.do(context.Background(), func() (err error) {
		n, err = f.f.ReadAt(buf, off)
		if err != nil && err != io.EOF {
			err = ioErr("read", f.path, err)
		}
		return err
	})
	return copy(p, buf[:n]), err
}

// Close releases the file.
func (f *StagedFile) Close() error {
	if f.f == nil {
		return nil
	}
	return f.vol.do(context.Background(), f.f.Close)
}
