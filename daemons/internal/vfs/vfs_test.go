package vfs

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

func write(t *testing.T, fs FS, path, data string, sync bool) {
	t.Helper()
	f, err := fs.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	if n, err := f.Write([]byte(data)); n != len(data) || err != nil {
		t.Fatal(n, err)
	}
	if sync {
		if err := f.Sync(); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

func read(fs FS, path string) string {
	f, err := fs.Open(path)
	if err != nil {
		return err.Error()
	}
	defer f.Close()
	b := make([]byte, 100)
	n, err := f.ReadAt(b, 0)
	if err != io.EOF {
		return fmt.Sprint("want EOF, got ", err)
	}
	return string(b[:n])
}

// TestContract holds all implementations to the same behaviour.
func TestContract(t *testing.T) {
	t.Run("os", func(t *testing.T) { contract(t, OS(), t.TempDir()) })
	t.Run("mem", func(t *testing.T) { contract(t, NewMem(time.Now), "/") })
	t.Run("fault", func(t *testing.T) { contract(t, NewFault(NewMem(time.Now)), "/") })
}

func contract(t *testing.T, fs FS, root string) {
	root = strings.TrimRight(root, "/")
	p := func(s string) string { return root + "/" + s }
	ok := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	is := func(err, want error) {
		t.Helper()
		if !errors.Is(err, want) {
			t.Fatalf("got %v, want %v", err, want)
		}
	}
	ok(fs.Mkdir(p("d")))
	is(fs.Mkdir(p("d")), syscall.EEXIST)
	is(fs.Mkdir(p("x/y")), syscall.ENOENT)
	write(t, fs, p("d/f"), "hello", true)
	write(t, fs, p("d/f"), "HE", true) // no O_TRUNC, no O_EXCL
	if got := read(fs, p("d/f")); got != "HEllo" {
		t.Fatal(got)
	}
	_, err := fs.Create(p("x/y"))
	is(err, syscall.ENOENT)
	_, err = fs.Open(p("d/none"))
	is(err, syscall.ENOENT)

	ok(fs.Symlink("target text", p("d/1")))
	is(fs.Symlink("other", p("d/1")), syscall.EEXIST)
	is(fs.Symlink("other", p("x/1")), syscall.ENOENT)
	is(fs.Symlink(strings.Repeat("x", 5000), p("d/2")), syscall.ENAMETOOLONG)
	buf := make([]byte, 20)
	n, err := fs.Readlink(p("d/1"), buf)
	ok(err)
	if string(buf[:n]) != "target text" {
		t.Fatal(string(buf[:n]))
	}
	_, err = fs.Readlink(p("d/1"), buf[:5])
	is(err, syscall.ENAMETOOLONG)
	_, err = fs.Readlink(p("d/f"), buf)
	is(err, syscall.EINVAL)
	_, err = fs.Readlink(p("d/9"), buf)
	is(err, syscall.ENOENT)

	ok(fs.Link(p("d/f"), p("d/g")))
	is(fs.Link(p("d/f"), p("d/g")), syscall.EEXIST)
	i, err := fs.Lstat(p("d/g"))
	ok(err)
	if i.Kind != KindFile || i.Size != 5 || i.Nlink != 2 || time.Since(i.ModTime) > time.Minute {
		t.Fatalf("%+v", i)
	}
	if i, err = fs.Lstat(p("d/1")); err != nil || i.Kind != KindSymlink {
		t.Fatal(i, err)
	}
	names, err := fs.ReadDir(p("d"), []string{"before"})
	ok(err)
	slices.Sort(names)
	if got := strings.Join(names, " "); got != "1 before f g" {
		t.Fatal(got)
	}
	_, err = fs.ReadDir(p("none"), nil)
	is(err, syscall.ENOENT)

	ok(fs.Mkdir(p("e")))
	ok(fs.Mkdir(p("e/sub")))
	ok(fs.Mkdir(p("h")))
	ok(fs.Rename(p("e"), p("h"))) // over an empty directory
	ok(fs.Mkdir(p("e")))
	is(fs.Rename(p("e"), p("h")), syscall.ENOTEMPTY)
	is(fs.Rename(p("nowhere"), p("h")), syscall.ENOENT)
	is(fs.Rmdir(p("h")), syscall.ENOTEMPTY)
	ok(fs.Rmdir(p("h/sub")))
	ok(fs.Rmdir(p("h")))
	is(fs.Rmdir(p("h")), syscall.ENOENT)
	ok(fs.Unlink(p("d/1")))
	is(fs.Unlink(p("d/1")), syscall.ENOENT)
	is(fs.Unlink(p("d")), syscall.EISDIR)
	ok(fs.Rename(p("d/f"), p("d/g2")))
	ok(fs.SyncDir(p("d")))
	is(fs.SyncDir(p("none")), syscall.ENOENT)
	if _, err := fs.Statfs(p("d")); err != nil {
		t.Fatal(err)
	}
}

func TestManyEntries(t *testing.T) {
	fs, root := OS(), t.TempDir()
	for i := range 3000 {
		if err := fs.Symlink("x", fmt.Sprintf("%s/%030d", root, i)); err != nil {
			t.Fatal(err)
		}
	}
	names, err := fs.ReadDir(root, nil)
	if err != nil || len(names) != 3000 {
		t.Fatal(len(names), err)
	}
}

// TestCrash: what a power cut leaves, in the worst case.
func TestCrash(t *testing.T) {
	m := NewMem(time.Now)
	for _, d := range []string{"/a", "/b"} {
		if err := m.Mkdir(d); err != nil {
			t.Fatal(err)
		}
	}
	if err := m.SyncDir("/"); err != nil {
		t.Fatal(err)
	}
	write(t, m, "/a/synced", "data", true)
	write(t, m, "/a/unsynced", "data", false)
	write(t, m, "/b/empty", "data", false)
	if err := m.Symlink("t", "/a/link"); err != nil {
		t.Fatal(err)
	}
	if err := m.SyncDir("/b"); err != nil {
		t.Fatal(err)
	}
	if err := m.Rename("/a/synced", "/b/moved"); err != nil {
		t.Fatal(err)
	}
	list := func(m *Mem, dir string) string {
		names, _ := m.ReadDir(dir, nil)
		slices.Sort(names)
		return strings.Join(names, " ")
	}
	c := m.Crash(nil)
	if a, b := list(c, "/a"), list(c, "/b"); a != "synced" || b != "empty" {
		t.Fatalf("a: %s; b: %s", a, b)
	}
	if got := read(c, "/b/empty"); got != "" {
		t.Fatalf("data was never synced, but there is %q", got)
	}
	if err := m.SyncDir("/b"); err != nil {
		t.Fatal(err)
	}
	c = m.Crash(nil)
	if a, b := list(c, "/a"), list(c, "/b"); a != "" || b != "empty moved" || read(c, "/b/moved") != "data" {
		t.Fatalf("a rename is one step. a: %s; b: %s", a, b)
	}
	c = m.Crash(func() bool { return true })
	if a, b := list(c, "/a"), list(c, "/b"); a != "link unsynced" || b != "empty moved" || read(c, "/a/unsynced") != "data" {
		t.Fatalf("all kept. a: %s; b: %s", a, b)
	}
}

func TestFault(t *testing.T) {
	f := NewFault(NewMem(time.Now))
	f.Record(true)
	f.Hook(func(c Call) Action {
		switch {
		case c.Op == OpSymlink && c.Path == "/lost":
			return Action{Err: syscall.EIO, Lost: true}
		case c.Op == OpSymlink && c.Path == "/fail":
			return Action{Err: syscall.ENOSPC}
		case c.Op == OpWrite:
			return Action{Err: syscall.ENOSPC, Partial: true}
		case c.Op == OpMkdir:
			return Action{Crash: true}
		}
		return Action{}
	})
	if err := f.Symlink("t", "/lost"); err != syscall.EIO {
		t.Fatal(err)
	}
	if err := f.Symlink("t", "/lost"); err != syscall.EIO && err != syscall.EEXIST {
		t.Fatal(err)
	}
	if err := f.Symlink("t", "/fail"); err != syscall.ENOSPC {
		t.Fatal(err)
	}
	file, err := f.Create("/file")
	if err != nil {
		t.Fatal(err)
	}
	if n, err := file.Write([]byte("abcd")); n != 2 || err != syscall.ENOSPC {
		t.Fatal(n, err)
	}
	if got := f.Counts().String(); got != "create:1 symlink:3 write:1" {
		t.Fatal(got)
	}
	if got := fmt.Sprint(f.Trace()); got != "[symlink /lost t symlink /lost t symlink /fail t create /file write /file]" {
		t.Fatal(got)
	}
	if err := f.Mkdir("/d"); err != syscall.EIO || !f.Crashed() {
		t.Fatal(err)
	}
	if _, err := f.Lstat("/file"); err != syscall.EIO {
		t.Fatal("alive after a crash")
	}
	f.Reset()
	f.Hook(nil)
	if _, err := f.Lstat("/d"); !errors.Is(err, syscall.ENOENT) {
		t.Fatal(err)
	}
	if i, err := f.Lstat("/file"); err != nil || i.Size != 2 {
		t.Fatal(i, err)
	}
}

func TestStale(t *testing.T) {
	m := NewMem(time.Now)
	a, b := NewStale(m), NewStale(m)
	if err := a.Symlink("one", "/1"); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 10)
	if n, err := b.Readlink("/1", buf); err != nil || string(buf[:n]) != "one" {
		t.Fatal(err)
	}
	if err := m.Unlink("/1"); err != nil {
		t.Fatal(err)
	}
	if err := m.Symlink("two", "/1"); err != nil {
		t.Fatal(err)
	}
	if n, err := b.Readlink("/1", buf); err != nil || string(buf[:n]) != "one" {
		t.Fatal("a cached target was asked for anew", err)
	}
	if err := b.Symlink("three", "/1"); err != syscall.EEXIST {
		t.Fatal(err)
	}
}
