package storagecheck

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"shoal/daemons/internal/clock"
	"shoal/daemons/internal/vfs"
)

const rightMount = "30 1 0:25 / /vol rw,noatime shared:1 - nfs4 10.0.0.9:/vol01 rw,vers=4.2,rsize=1048576,namlen=255,hard,proto=tcp,timeo=600,lookupcache=pos,addr=10.0.0.9\n"

const rightStats = `device 10.0.0.9:/vol01 mounted on /vol with fstype nfs4 statvers=1.1
	nfsv4:	bm0=0xfdffbfff,acl=0x3,sessions,pnfs=not configured,lease_time=10,lease_expired=0
	per-op statistics
	        NULL: 1 1 0 44 24 0 0 0 0
	 DELEGRETURN: 0 0 0 0 0 0 0 0 0
`

// options are those of a check in memory that finds nothing wrong but that nothing is slow.
func options(t *testing.T, fs vfs.FS, mountinfo string) Options {
	t.Helper()
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	return Options{
		Path: "/vol", FS: fs, Clock: clock.System(), Host: "one", Boot: "boot-one", Wait: 20 * time.Second,
		Mountinfo: write("mountinfo", mountinfo), Mountstats: write("mountstats", rightStats),
		Local: func(string) bool { return false },
	}
}

func memory(t *testing.T) *vfs.Mem {
	t.Helper()
	m := vfs.NewMem(time.Now)
	m.SetNetwork(true)
	if err := m.Mkdir("/vol"); err != nil {
		t.Fatal(err)
	}
	return m
}

func finding(r *Report, check string, v Verdict) *Finding {
	for i := range r.Findings {
		if f := &r.Findings[i]; f.Check == check && f.Verdict == v {
			return f
		}
	}
	return nil
}

func wantFinding(t *testing.T, r *Report, check string, v Verdict, words ...string) {
	t.Helper()
	f := finding(r, check, v)
	if f == nil {
		t.Errorf("no finding %s: %s in %+v", check, v, r.Findings)
		return
	}
	for _, w := range words {
		if !strings.Contains(f.What+f.Means+f.Do, w) {
			t.Errorf("%s: %+v does not say %q", check, f, w)
		}
	}
}

func empty(t *testing.T, fs vfs.FS) {
	t.Helper()
	if left, err := fs.ReadDir("/vol", nil); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v (%v)", left, err)
	}
}

func TestAlone(t *testing.T) {
	m := memory(t)
	var steps []string
	o := options(t, m, rightMount)
	o.Progress = func(s string) { steps = append(steps, s) }
	r, err := Run(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []string{"mount", "space", "symlinks", "hard links", "rename", "files", "names", "clocks", "leases"} {
		wantFinding(t, r, c, Pass)
	}
	wantFinding(t, r, "durability", Warn, "does not wait for its disk", "async")
	wantFinding(t, r, "hosts", Warn, "--join")
	if r.Verdict != Warn || len(r.Latencies) != 6 || len(steps) < 4 {
		t.Errorf("verdict %s, %d latencies, steps %q", r.Verdict, len(r.Latencies), steps)
	}
	empty(t, m)
}

// broken is a file system that does one thing wrong.
type broken struct {
	vfs.FS
	symlink func(target, path string) error
	link    func(old, path string) error
	lstat   func(path string) (vfs.Info, error)
	rename  func(old, path string) error
}

func (b *broken) Symlink(target, path string) error {
	if b.symlink != nil {
		return b.symlink(target, path)
	}
	return b.FS.Symlink(target, path)
}

func (b *broken) Link(old, path string) error {
	if b.link != nil {
		return b.link(old, path)
	}
	return b.FS.Link(old, path)
}

func (b *broken) Lstat(path string) (vfs.Info, error) {
	if b.lstat != nil {
		return b.lstat(path)
	}
	return b.FS.Lstat(path)
}

func (b *broken) Rename(old, path string) error {
	if b.rename != nil {
		return b.rename(old, path)
	}
	return b.FS.Rename(old, path)
}

func TestFaultsAreFound(t *testing.T) {
	for _, c := range []struct {
		name, check, words string
		verdict            Verdict
		breaks             func(m vfs.FS, b *broken)
	}{
		{"symlink replaces", "symlinks", "over one that is there", Fail, func(m vfs.FS, b *broken) {
			b.symlink = func(target, path string) error { _ = m.Unlink(path); return m.Symlink(target, path) }
		}},
		{"symlink says yes to all", "symlinks", "4 threads", Fail, func(m vfs.FS, b *broken) {
			b.symlink = func(target, path string) error {
				if err := m.Symlink(target, path); errors.Is(err, syscall.EEXIST) && len(target) == 1 {
					return nil
				} else {
					return err
				}
			}
		}},
		{"targets are cut", "symlinks", "255 bytes", Fail, func(m vfs.FS, b *broken) {
			b.symlink = func(target, path string) error { return m.Symlink(target[:min(len(target), 255)], path) }
		}},
		{"no long targets", "symlinks", "name too long", Fail, func(m vfs.FS, b *broken) {
			b.symlink = func(target, path string) error {
				if len(target) > 255 {
					return syscall.ENAMETOOLONG
				}
				return m.Symlink(target, path)
			}
		}},
		{"no hard links", "hard links", "not permitted", Fail, func(_ vfs.FS, b *broken) {
			b.link = func(string, string) error { return syscall.EPERM }
		}},
		{"links are copies", "hard links", "count of 1", Fail, func(m vfs.FS, b *broken) {
			b.link = func(old, path string) error { return copyFile(m, old, path) }
		}},
		{"rename copies", "rename", "the old name", Fail, func(m vfs.FS, b *broken) {
			b.rename = func(old, path string) error {
				if i, _ := m.Lstat(old); i.Kind == vfs.KindFile {
					_ = m.Unlink(path)
					return copyFile(m, old, path)
				}
				return m.Rename(old, path)
			}
		}},
		{"names in one case", "names", "taken", Fail, func(m vfs.FS, b *broken) {
			b.symlink = func(target, path string) error {
				dir, name := filepath.Split(path)
				if len(name) == 1 {
					name = strings.ToLower(name)
				}
				return m.Symlink(target, dir+name)
			}
		}},
		{"clock of the server", "clocks", "1h0m0s apart", Warn, func(m vfs.FS, b *broken) {
			b.lstat = func(path string) (vfs.Info, error) {
				i, err := m.Lstat(path)
				i.ModTime = i.ModTime.Add(-time.Hour)
				return i, err
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := memory(t)
			b := &broken{FS: m}
			c.breaks(m, b)
			r, err := Run(context.Background(), options(t, b, rightMount))
			if err != nil {
				t.Fatal(err)
			}
			wantFinding(t, r, c.check, c.verdict, c.words)
			if r.Verdict.rank() < c.verdict.rank() {
				t.Errorf("verdict %s", r.Verdict)
			}
			empty(t, m)
		})
	}
}

func copyFile(fs vfs.FS, old, path string) error {
	in, err := fs.Open(old)
	if err != nil {
		return err
	}
	b := make([]byte, 1000)
	n, _ := in.ReadAt(b, 0)
	out, err := fs.Create(path)
	if err != nil {
		return err
	}
	_, err = out.Write(b[:n])
	return errors.Join(err, in.Close(), out.Close())
}

// A full or failing disk is no verdict but an error, and the folder goes all the same.
func TestErrorsEndTheCheck(t *testing.T) {
	m := memory(t)
	f := vfs.NewFault(m)
	f.Hook(func(c vfs.Call) vfs.Action {
		if c.Op == vfs.OpWrite {
			return vfs.Action{Err: syscall.ENOSPC}
		}
		return vfs.Action{}
	})
	if _, err := Run(context.Background(), options(t, f, rightMount)); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("error %v, want %v", err, syscall.ENOSPC)
	}
	empty(t, m)
	ctx, cancel := context.WithCancel(context.Background())
	o := options(t, m, rightMount)
	o.Progress = func(s string) {
		if s == "latency" {
			cancel()
		}
	}
	if _, err := Run(ctx, o); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want %v", err, context.Canceled)
	}
	empty(t, m)
	o = options(t, m, rightMount)
	o.Hosts, o.Wait = 2, time.Nanosecond
	if _, err := Run(context.Background(), o); !errors.Is(err, ErrNoPeers) {
		t.Errorf("error %v, want %v", err, ErrNoPeers)
	}
	o.Hosts, o.Join = 0, true
	if _, err := Run(context.Background(), o); !errors.Is(err, ErrNoPeers) {
		t.Errorf("error %v, want %v", err, ErrNoPeers)
	}
	empty(t, m)
}

// stale is a client that remembers that a name was not there, as NFS clients do by default.
type stale struct {
	vfs.FS
	mu     sync.Mutex
	absent map[string]bool
}

func (s *stale) gone(path string, err error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if errors.Is(err, syscall.ENOENT) && strings.Contains(path, "/fresh/") {
		s.absent[path] = true
	}
	if s.absent[path] {
		return syscall.ENOENT
	}
	return err
}

func (s *stale) Lstat(path string) (vfs.Info, error) {
	i, err := s.FS.Lstat(path)
	return i, s.gone(path, err)
}

func (s *stale) Readlink(path string, buf []byte) (int, error) {
	n, err := s.FS.Readlink(path, buf)
	return n, s.gone(path, err)
}

func (s *stale) Symlink(target, path string) error {
	s.mu.Lock()
	delete(s.absent, path)
	s.mu.Unlock()
	return s.FS.Symlink(target, path)
}

// several runs a check on several hosts; each has its own view of the file system. It returns what the leader reports.
func several(t *testing.T, views ...vfs.FS) *Report {
	t.Helper()
	done := make(chan error, len(views))
	for i, v := range views[1:] {
		o := options(t, v, rightMount)
		o.Host, o.Boot, o.Join = fmt.Sprintf("joiner%d", i), fmt.Sprintf("boot-%d", i), true
		go func() {
			r, err := Run(context.Background(), o)
			if err == nil && len(r.Latencies) == 0 {
				err = errors.New("a joiner has no report of its own")
			}
			done <- err
		}()
	}
	o := options(t, views[0], rightMount)
	o.Hosts = len(views)
	r, err := Run(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	for range views[1:] {
		if err := <-done; err != nil {
			t.Errorf("joiner: %v", err)
		}
	}
	return r
}

func TestSeveralHosts(t *testing.T) {
	m := memory(t)
	r := several(t, m, m, m)
	wantFinding(t, r, "freshness", Pass)
	wantFinding(t, r, "exclusivity", Pass, "joiner0", "joiner1")
	wantFinding(t, r, "hosts", Pass, "3 machines")
	if len(r.Hosts) != 3 || len(r.Latencies) != 18 {
		t.Errorf("hosts %q, %d latencies", r.Hosts, len(r.Latencies))
	}
	empty(t, m)
}

func TestStaleHostIsFound(t *testing.T) {
	m := memory(t)
	r := several(t, m, &stale{FS: m, absent: map[string]bool{}})
	wantFinding(t, r, "freshness", Fail, "joiner0 did not see", "6 of 12", "lookup", "lookupcache=positive")
	empty(t, m)
	r = several(t, &stale{FS: m, absent: map[string]bool{}}, m)
	wantFinding(t, r, "freshness", Fail, "one did not see")
	empty(t, m)
}

func TestSharedNamesAreFound(t *testing.T) {
	m := memory(t)
	b := &broken{FS: m}
	b.symlink = func(target, path string) error {
		err := m.Symlink(target, path)
		if strings.Contains(path, "/race/") && errors.Is(err, syscall.EEXIST) {
			return nil
		}
		return err
	}
	wantFinding(t, several(t, m, b), "exclusivity", Fail, "had several makers")
}

func TestOneMachineTwice(t *testing.T) {
	m := memory(t)
	two := options(t, m, rightMount)
	two.Host, two.Join = "two", true
	done := make(chan error, 1)
	go func() { _, err := Run(context.Background(), two); done <- err }()
	o := options(t, m, rightMount)
	o.Hosts = 2
	r, err := Run(context.Background(), o)
	if err := errors.Join(err, <-done); err != nil {
		t.Fatal(err)
	}
	wantFinding(t, r, "hosts", Warn, "1 machines")
}

// What a killed check left is removed when it is old, and not before.
func TestLeftovers(t *testing.T) {
	past := time.Now().Add(-2 * leftAfter)
	at := past
	m := vfs.NewMem(func() time.Time { return at })
	for _, d := range []string{"/vol", "/vol/.shoal-check.x-1", "/vol/.shoal-check.x-1/bus", "/vol/other"} {
		if err := m.Mkdir(d); err != nil {
			t.Fatal(err)
		}
	}
	at = time.Now()
	if err := m.Mkdir("/vol/.shoal-check.y-2"); err != nil {
		t.Fatal(err)
	}
	r, err := Run(context.Background(), options(t, m, rightMount))
	if err != nil {
		t.Fatal(err)
	}
	wantFinding(t, r, "leftovers", Pass, ".shoal-check.x-1")
	names, err := m.ReadDir("/vol", nil)
	if got := strings.Join(names, " "); err != nil || len(names) != 2 || strings.Contains(got, "x-1") {
		t.Errorf("left: %s (%v)", got, err)
	}
}

func TestNames(t *testing.T) {
	for in, want := range map[string]string{"box1": "box1", "böx.example": "b-x-example", "": "host", strings.Repeat("a", 40): strings.Repeat("a", 32)} {
		if got := HostName(in); got != want || !validHost(got) {
			t.Errorf("HostName(%q) = %q", in, got)
		}
	}
	m := memory(t)
	o := options(t, m, rightMount)
	o.Host = "a b"
	if _, err := Run(context.Background(), o); err == nil {
		t.Error("a host named \"a b\" is taken")
	}
	o.Host, o.Path = "a", "vol"
	if _, err := Run(context.Background(), o); err == nil {
		t.Error("a relative path is taken")
	}
}
