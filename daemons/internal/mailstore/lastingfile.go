package mailstore

import (
	"errors"
	"sync"
	"syscall"

	"shoal/daemons/internal/vfs"
)

// A lastingFile is a message file that may be read for long. It is opened once more when its handle does not stand for it any
// more, as after a file server's volume was moved or restored: message files are never changed, so what lies under the name is the same.
type lastingFile struct {
	fs   vfs.FS
	path string

	mu    sync.Mutex
	files []vfs.File // the last one is read; readers may still be at the others
}

// maxReopened bounds the files that are opened for one message that is read.
const maxReopened = 4

// ReadAt implements io.ReaderAt.
func (l *lastingFile) ReadAt(p []byte, off int64) (int, error) {
	l.mu.Lock()
	file, many := l.files[len(l.files)-1], len(l.files)
	l.mu.Unlock()
	n, err := file.ReadAt(p, off)
	// EBADF: the NFS client could not get the open file back from a server that had been started anew.
	if !errors.Is(err, syscall.ESTALE) && !errors.Is(err, syscall.EBADF) || many > maxReopened {
		return n, err
	}
	file, e := l.fs.Open(l.path)
	if e != nil {
		return n, errors.Join(err, e)
	}
	l.mu.Lock()
	l.files = append(l.files, file)
	l.mu.Unlock()
	return file.ReadAt(p, off)
}

// Close closes what was opened. Nobody may be reading. The error is that of the file that was read last.
func (l *lastingFile) Close() (err error) {
	for _, f := range l.files {
		err = f.Close()
	}
	return err
}
