package vfs

import (
	"strings"
	"testing"
	"time"
)

// TestCrashOrdered: what a power cut leaves of a file system with an ordered journal.
func TestCrashOrdered(t *testing.T) {
	ok := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	// A delivery: a message in /m, a record in /log, and a second delivery elsewhere in between.
	type order struct {
		name   string
		data   func(f File) error // makes the message stable, or not
		before bool               // that before the record is made
		sync   func(m *Mem) error
		want   string // content of the message and target of the record after a power cut
	}
	none := func(File) error { return nil }
	log := func(m *Mem) error { return m.SyncDir("/log") }
	for _, o := range []order{
		{"data, record, directory of the record", File.SyncData, true, log, "mail rec"},
		{"fsync, record, directory of the record", File.Sync, true, log, "mail rec"},
		{"directory only", none, true, log, " rec"},
		{"data after the record", File.SyncData, false, log, " rec"},
		{"fsync, record, nothing", File.Sync, true, func(*Mem) error { return nil }, "mail no such file or directory"},
		{"a group of which the last changed is another", File.SyncData, true, func(m *Mem) error { return m.SyncDir("/other") }, "mail rec"},
		{"a group of which the synced was changed before", File.SyncData, true, func(m *Mem) error { return m.SyncDir("/early") }, "no such file or directory no such file or directory"},
		{"a group, touched", File.SyncData, true, func(m *Mem) error { return m.SyncJournal("/early") }, "mail rec"},
	} {
		t.Run(o.name, func(t *testing.T) {
			m := NewMem(time.Now)
			m.SetJournal()
			for _, d := range []string{"/m", "/log", "/early", "/other"} {
				ok(m.Mkdir(d))
			}
			ok(m.Symlink("x", "/early/1"))
			f, err := m.Create("/m/1")
			ok(err)
			_, err = f.Write([]byte("mail"))
			ok(err)
			if o.before {
				ok(o.data(f))
			}
			ok(m.Symlink("rec", "/log/1"))
			if !o.before {
				ok(o.data(f))
			}
			ok(m.Symlink("x", "/other/1"))
			ok(o.sync(m))
			c := m.Crash(nil)
			var buf [100]byte
			n, err := c.Readlink("/log/1", buf[:])
			rec := string(buf[:n])
			if err != nil {
				rec = err.Error()
			}
			if got := read(c, "/m/1") + " " + rec; got != o.want {
				t.Errorf("after a power cut: %q, want %q", got, o.want)
			}
		})
	}
}

// TestCrashPrefix: whichever part of the journal got to the disk, nothing is there without all that came before it.
func TestCrashPrefix(t *testing.T) {
	m := NewMem(time.Now)
	m.SetJournal()
	for _, d := range strings.Fields("/a /b /c") {
		if err := m.Mkdir(d); err != nil {
			t.Fatal(err)
		}
	}
	write(t, m, "/a/f", "data", false)
	for _, step := range []func() error{
		func() error { return m.Link("/a/f", "/b/f") },
		func() error { return m.Rename("/b/f", "/c/f") },
		func() error { return m.Unlink("/a/f") },
	} {
		if err := step(); err != nil {
			t.Fatal(err)
		}
	}
	var got []string
	for keep := range 9 {
		n := 0
		c := m.Crash(func() bool { n++; return n <= keep })
		s := ""
		for _, d := range strings.Fields("a b c") {
			names, err := c.ReadDir("/"+d, nil)
			if err == nil {
				s += d + strings.Join(names, "")
			}
		}
		got = append(got, s)
	}
	want := " a ab abc afbc afbfc afbcf abcf abcf"
	if g := strings.Join(got, " "); g != want {
		t.Errorf("%q, want %q", g, want)
	}
}

func TestMountType(t *testing.T) {
	const mounts = `22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
36 22 7:0 / /mnt/a b rw - xfs
40 22 7:1 / /mnt rw,noatime - xfs /dev/loop1 rw
`
	for device, want := range map[string]string{"254:0": "ext4", "7:1": "xfs", "7:2": ""} {
		if got := mountType(mounts, device); got != want {
			t.Errorf("%s: %q, want %q", device, got, want)
		}
	}
}

func FuzzMountType(f *testing.F) {
	f.Add("22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw\n", "254:0")
	f.Add("36 22 7:0 / / rw -", "7:0")
	f.Fuzz(func(t *testing.T, mounts, device string) {
		if got := mountType(mounts, device); strings.ContainsAny(got, " \n") {
			t.Errorf("%q", got)
		}
	})
}
