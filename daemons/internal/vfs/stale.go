package vfs

import "sync"

// Stale is a client's view of a file server at its worst: the target of a symlink, once seen or made by
// this client, is answered from its cache for ever, even when the server has another record under that name by
// now or none. What is absent is always asked for anew, and so are listings. That is what the mount
// options of the store leave possible, and what its rules must bear.
type Stale struct {
	FS
	mu    sync.Mutex
	links map[string]string
}

// NewStale returns a client of fs with an empty cache.
func NewStale(fs FS) *Stale { return &Stale{FS: fs, links: map[string]string{}} }

func (s *Stale) Symlink(target, path string) error {
	err := s.FS.Symlink(target, path)
	if err == nil {
		s.mu.Lock()
		s.links[path] = target
		s.mu.Unlock()
	}
	return err
}

func (s *Stale) Readlink(path string, buf []byte) (int, error) {
	s.mu.Lock()
	t, ok := s.links[path]
	s.mu.Unlock()
	if ok && len(t) < len(buf) {
		return copy(buf, t), nil
	}
	n, err := s.FS.Readlink(path, buf)
	if err == nil {
		s.mu.Lock()
		s.links[path] = string(buf[:n])
		s.mu.Unlock()
	}
	return n, err
}
