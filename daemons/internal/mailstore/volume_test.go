package mailstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"shoal/daemons/internal/clock"
	"shoal/daemons/internal/vfs"
)

func TestVolumeRefused(t *testing.T) {
	fs := vfs.OS()
	dir := t.TempDir()
	s := testStore(t, fs, t.TempDir(), "box1")
	marker := filepath.Join(dir, "shoal-volume")
	for _, c := range []struct {
		marker string
		want   error
		says   string
	}{
		{"", ErrNotVolume, "is the volume mounted?"},
		{"something else\n", ErrNotVolume, "something else"},
		{"shoal-volume 1.0\n", ErrNotVolume, "no id line"},
		{"shoal-volume 2.0\nid x\n", ErrNewerFormat, "upgrade it"},
		{"shoal-volume 1.0\nid other\n", ErrWrongVolume, "its id is other, the configuration expects " + testVolume},
	} {
		os.Remove(marker)
		if c.marker != "" {
			if err := os.WriteFile(marker, []byte(c.marker), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		err := s.AddVolume("vol02", dir, testVolume)
		if !errors.Is(err, c.want) || !strings.Contains(fmt.Sprint(err), c.says) || !strings.Contains(fmt.Sprint(err), dir) {
			t.Errorf("%q: %v", c.marker, err)
		}
	}
	if err := os.WriteFile(marker, []byte("shoal-volume 1.7\nlabel of a later version\nid "+testVolume+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.AddVolume("vol02", dir, testVolume); err != nil {
		t.Error("a later minor version:", err)
	}
	if err := s.AddVolume("vol02", dir, testVolume); err == nil {
		t.Error("the same name twice")
	}
	if err := InitVolume(fs, dir, "another"); !errors.Is(err, ErrWrongVolume) {
		t.Error(err)
	}
	if _, err := s.Account(context.Background(), "vol03", "account-1"); !errors.Is(err, ErrUnavailable) {
		t.Error(err)
	}
	for _, name := range []string{"", "floor", "-x", "UPPER", "a.b", "sixteen-letters-"} {
		if _, err := New(Options{Server: name, FS: fs, Clock: s.clk, Log: s.log}); err == nil {
			t.Errorf("server name %q was taken", name)
		}
	}
}

// TestUnmounted takes the volume away under a running server: nothing is written into the mount point, and no
// mailbox is taken for deleted.
func TestUnmounted(t *testing.T) {
	ctx := context.Background()
	base := t.TempDir()
	root := base + "/mnt"
	if err := os.Mkdir(root, 0o700); err != nil {
		t.Fatal(err)
	}
	s := testStore(t, vfs.OS(), root, "box1")
	box := testInbox(t, s, "account-1")
	appendOne(t, box, "before", 0)
	if err := os.Rename(root, base+"/away"); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(root, 0o700); err != nil {
		t.Fatal(err)
	}
	m := stage(t, s, "now")
	if r := s.Deliver(ctx, m, []Target{{Account: box.Account()}}); !errors.Is(r[0].Err, ErrUnavailable) {
		t.Error(r[0].Err)
	}
	if _, err := s.Account(ctx, "vol01", "account-2"); !errors.Is(err, ErrUnavailable) {
		t.Error(err)
	}
	if _, err := box.OpenMessage(ctx, 1); !errors.Is(err, ErrUnavailable) && !errors.Is(err, ErrCorrupt) {
		t.Error(err)
	}
	if left, _ := os.ReadDir(root); len(left) != 0 {
		t.Errorf("written into the mount point: %v", left)
	}
	if err := os.Remove(root); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(base+"/away", root); err != nil {
		t.Fatal(err)
	}
	if r := s.Deliver(ctx, m, []Target{{Account: box.Account()}}); r[0].Err != nil || r[0].UID != 2 {
		t.Error("after mounting again:", r[0])
	}
	m.Close()
	verify(t, vfs.OS(), root)
}

// unmountFS is a file system that can be unmounted.
type unmountFS struct {
	vfs.FS
	away bool
}

func (u *unmountFS) Mount(path string) (uint64, error) {
	id, err := u.FS.Mount(path)
	if u.away {
		id++
	}
	return id, err
}

func (u *unmountFS) Readlink(path string, buf []byte) (int, error) {
	if u.away {
		return 0, syscall.ENOENT
	}
	return u.FS.Readlink(path, buf)
}

func (u *unmountFS) Open(path string) (vfs.File, error) {
	if u.away {
		return nil, syscall.ENOENT
	}
	return u.FS.Open(path)
}

// TestUnmountedIsNotUnchanged: a mailbox on a volume that is not mounted any more is not taken for one without news.
func TestUnmountedIsNotUnchanged(t *testing.T) {
	ctx := context.Background()
	fs := &unmountFS{FS: vfs.NewMem(time.Now)}
	box := testInbox(t, testStore(t, fs, "/", "box1"), "account-1")
	appendOne(t, box, "before", 0)
	if _, err := box.State(ctx); err != nil {
		t.Fatal(err)
	}
	fs.away = true
	if st, err := box.State(ctx); !errors.Is(err, ErrUnavailable) {
		t.Errorf("unmounted: state %v, error %v", st, err)
	}
	fs.away = false
	if st, err := box.State(ctx); err != nil || st.Len() != 1 {
		t.Error("after mounting again:", st, err)
	}
}

// TestHungVolume: a volume that does not answer takes down its own accounts only.
func TestHungVolume(t *testing.T) {
	ctx := context.Background()
	mem := vfs.NewMem(time.Now)
	mem.SetNetwork(true)
	f := vfs.NewFault(mem)
	for _, d := range []string{"/1", "/2"} {
		if err := mem.Mkdir(d); err != nil {
			t.Fatal(err)
		}
	}
	s := testStore(t, f, "/1", "box1", func(o *Options) { o.CallTimeout, o.VolumeCalls = 30*time.Millisecond, 8 })
	if err := InitVolume(mem, "/2", "id-2"); err != nil {
		t.Fatal(err)
	}
	if err := s.AddVolume("vol02", "/2", "id-2"); err != nil {
		t.Fatal(err)
	}
	var accounts []*Account
	for i := range 30 {
		a, err := s.Account(ctx, "vol01", fmt.Sprintf("account-%02d", i))
		if err != nil {
			t.Fatal(err)
		}
		accounts = append(accounts, a)
	}
	good, err := s.Account(ctx, "vol02", "account-x")
	if err != nil {
		t.Fatal(err)
	}
	hang := make(chan struct{})
	f.Hook(func(c vfs.Call) vfs.Action {
		if strings.HasPrefix(c.Path, "/1/") {
			return vfs.Action{Wait: hang}
		}
		return vfs.Action{}
	})
	before := runtime.NumGoroutine()
	m := stage(t, s, "hung")
	var wg sync.WaitGroup
	for _, a := range accounts {
		wg.Add(1)
		go func() {
			defer wg.Done()
			if r := s.Deliver(ctx, m, []Target{{Account: a}}); !errors.Is(r[0].Err, ErrUnavailable) {
				t.Error(r[0].Err)
			}
		}()
	}
	wg.Wait()
	if n := runtime.NumGoroutine() - before; n > 8+2 {
		t.Errorf("%d goroutines hang on the volume, 8 may", n)
	}
	ok, err := s.Stage(ctx, "vol02", strings.NewReader("fine"), 0)
	if err != nil {
		t.Fatal(err)
	}
	if r := s.Deliver(ctx, ok, []Target{{Account: good}}); r[0].Err != nil {
		t.Error("the other volume:", r[0].Err)
	}
	ok.Close()
	f.Hook(nil)
	close(hang)
	eventually(t, "the volume answers again", func() bool {
		r := s.Deliver(ctx, m, []Target{{Account: accounts[7]}})
		return r[0].Err == nil
	})
	m.Close()
	verify(t, mem, "/1")
}

// TestLinkImpossible: where there can be no hard link there is a second file.
func TestLinkImpossible(t *testing.T) {
	ctx := context.Background()
	for _, errno := range []syscall.Errno{syscall.EMLINK, syscall.EXDEV, syscall.EPERM} {
		for _, size := range []int{10, 700 << 10} {
			f := vfs.NewFault(vfs.NewMem(time.Now))
			s := testStore(t, f, "/", "box1")
			box, other := testInbox(t, s, "account-1"), testInbox(t, s, "account-2")
			f.Hook(func(c vfs.Call) vfs.Action {
				if c.Op == vfs.OpLink {
					return vfs.Action{Err: errno}
				}
				return vfs.Action{}
			})
			text := strings.Repeat("x", size)
			m := stage(t, s, text)
			for _, r := range s.Deliver(ctx, m, []Target{{Account: box.Account()}, {Account: other.Account()}}) {
				if r.Err != nil {
					t.Fatal(errno, r.Err)
				}
			}
			m.Close()
			r, err := box.CopyTo(ctx, UIDSet{{1, 1}}, other)
			if err != nil {
				t.Fatal(errno, err)
			}
			if content(t, other, r.Dest[0]) != text || content(t, other, 1) != text {
				t.Error("content differs")
			}
			f.Hook(nil)
			verify(t, f, "/")
		}
	}
}

type failingReader struct{ n int }

var errReader = errors.New("connection lost")

func (r *failingReader) Read(p []byte) (int, error) {
	if r.n <= 0 {
		return 0, errReader
	}
	r.n -= len(p)
	return len(p), nil
}

func TestStage(t *testing.T) {
	ctx := context.Background()
	f := vfs.NewFault(vfs.NewMem(time.Now))
	s := testStore(t, f, "/", "box1", func(o *Options) { o.StageMemory = 32 << 10 })
	left := func() int {
		names, err := f.ReadDir("/tmp", nil)
		if err != nil {
			t.Fatal(err)
		}
		return len(names)
	}
	for _, size := range []int{0, 1, 16 << 10, 32<<10 - 1, 32 << 10, 32<<10 + 1, 300 << 10} {
		m, err := s.Stage(ctx, "vol01", io.LimitReader(&failingReader{1 << 30}, int64(size)), int64(size))
		if err != nil || m.Size() != int64(size) {
			t.Errorf("size %d: %v", size, err)
			continue
		}
		m.Close()
		m.Close()
		if size > 0 {
			if _, err := s.Stage(ctx, "vol01", io.LimitReader(&failingReader{1 << 30}, int64(size)), int64(size)-1); size > 1 && !errors.Is(err, ErrTooLarge) {
				t.Errorf("size %d with limit %d: %v", size, size-1, err)
			}
		}
		if _, err := s.Stage(ctx, "vol01", &failingReader{size}, 0); err != errReader {
			t.Errorf("size %d: the reader's error became %v", size, err)
		}
	}
	if n := left(); n != 0 {
		t.Errorf("%d files left in tmp", n)
	}
	f.Hook(func(c vfs.Call) vfs.Action {
		if c.Op == vfs.OpWrite {
			return vfs.Action{Err: syscall.ENOSPC, Partial: true}
		}
		return vfs.Action{}
	})
	if _, err := s.Stage(ctx, "vol01", strings.NewReader(strings.Repeat("x", 100<<10)), 0); !errors.Is(err, ErrNoSpace) {
		t.Error(err)
	}
	if n := left(); n != 0 {
		t.Errorf("%d files left in tmp", n)
	}
	if _, err := s.Stage(ctx, "nowhere", strings.NewReader("x"), 0); !errors.Is(err, ErrUnavailable) {
		t.Error(err)
	}
}

// TestCacheBound: folded mailboxes are let go of, handles on them stay good, and what nobody holds is freed.
func TestCacheBound(t *testing.T) {
	ctx := context.Background()
	s := testStore(t, vfs.NewMem(time.Now), "/", "box1", func(o *Options) { o.CacheBytes = 20 << 10 })
	first := testInbox(t, s, "account-00")
	appendOne(t, first, "x", 0)
	for i := range 60 {
		appendOne(t, testInbox(t, s, fmt.Sprintf("account-%02d", i)), "x", 0)
	}
	if first.Cached() != nil {
		t.Error("the mailbox used longest ago is still in memory")
	}
	if st, err := first.State(ctx); err != nil || st.Len() != 2 {
		t.Error(st, err)
	}
	s.cache.mu.Lock()
	if s.cache.total > s.cache.max {
		t.Errorf("%d bytes cached, bound %d", s.cache.total, s.cache.max)
	}
	s.cache.mu.Unlock()
	eventually(t, "journals that nobody uses are freed", func() bool {
		runtime.GC()
		s.cache.mu.Lock()
		defer s.cache.mu.Unlock()
		return len(s.cache.all) < 40
	})
	if st, err := first.State(ctx); err != nil || st.Len() != 2 {
		t.Error(st, err)
	}
}

// TestRunsAreToldApart: a run that would make names of an earlier run again is refused.
func TestRunsAreToldApart(t *testing.T) {
	mem := vfs.NewMem(time.Now)
	s := testStore(t, mem, "/", "box1")
	if err := InitVolume(mem, "/", testVolume); err != nil {
		t.Fatal(err)
	}
	twin, err := New(s.o)
	if err != nil {
		t.Fatal(err)
	}
	if twin.origin == s.origin {
		t.Error("two runs of one process have the same origin")
	}
	twin.origin = s.origin
	if err := twin.AddVolume("vol01", "/", testVolume); err == nil || !strings.Contains(err.Error(), "is the clock right") {
		t.Error(err)
	}
	o := s.o
	o.Clock = clock.NewFake(time.Date(1970, 1, 1, 0, 0, 5, 0, time.UTC))
	if _, err := New(o); err == nil || !strings.Contains(err.Error(), "1970-01-01") {
		t.Error(err)
	}
}
