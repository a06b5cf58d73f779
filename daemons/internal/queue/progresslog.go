package queue

import (
	"fmt"
	"sync"

	"shoal/daemons/internal/vfs"
)

// progressLog is the log that this run writes in the directory of one run. Lines that come while others are being
// synced go out together with the next sync.
type progressLog struct {
	fs   vfs.FS
	path string

	mu       sync.Mutex
	cond     sync.Cond
	file     vfs.File
	part     int // number of the file: a failed write may have torn a line, which ends a log
	buf      []byte
	filling  uint64 // generation of what is in buf
	flushed  uint64 // generation that is stable
	failed   map[uint64]error
	flushing bool
	waiting  int
}

func newProgressLog(fs vfs.FS, path string) *progressLog {
	l := &progressLog{fs: fs, path: path, filling: 1, failed: map[uint64]error{}}
	l.cond.L = &l.mu
	return l
}

// append makes a line stable.
func (l *progressLog) append(p *progress) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	b, err := p.appendLine(l.buf)
	if err != nil {
		return err
	}
	l.buf = b
	mine := l.filling
	l.waiting++
	defer func() {
		if l.waiting--; l.waiting == 0 {
			clear(l.failed)
		}
	}()
	for l.flushed < mine {
		if l.flushing {
			l.cond.Wait()
			continue
		}
		l.flush()
	}
	return l.failed[mine]
}

// flush writes what has gathered. The caller holds l.mu, which is released meanwhile.
func (l *progressLog) flush() {
	out, generation := l.buf, l.filling
	l.buf = nil
	l.filling++
	l.flushing = true
	l.mu.Unlock()
	err := l.write(out)
	l.mu.Lock()
	l.flushing = false
	l.flushed = generation
	if err != nil {
		l.failed[generation] = err
	}
	l.cond.Broadcast()
}

func (l *progressLog) write(out []byte) error {
	if l.file == nil {
		path := l.path
		if l.part > 0 {
			path = fmt.Sprintf("%s+%d", l.path, l.part)
		}
		f, err := l.fs.Create(path)
		if err != nil {
			return fmt.Errorf("create %s: %w", path, err)
		}
		l.file = f
	}
	_, err := l.file.Write(out)
	if err == nil {
		err = l.file.Sync()
	}
	if err != nil {
		_ = l.file.Close()
		l.file = nil
		l.part++
		return fmt.Errorf("write %s: %w", l.path, err)
	}
	return nil
}

func (l *progressLog) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for l.flushing {
		l.cond.Wait()
	}
	if l.file != nil {
		_ = l.file.Close()
		l.file = nil
		l.part++
	}
}
