package dirstore

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"shoal/daemons/internal/clock"
)

func options(t testing.TB, dir string) Options {
	return Options{Path: dir, Suffix: "o=shoal", Schema: schema(t), Clock: clock.System(), Log: slog.New(slog.DiscardHandler), Unsynced: true}
}

// A backup taken while entries are written is a database that is consistent in itself and has all that was acknowledged before.
func TestBackupWhileServing(t *testing.T) {
	t.Run("without a log", func(t *testing.T) { backupWhileServing(t, func(*Options) {}) })
	t.Run("with a log", func(t *testing.T) {
		backupWhileServing(t, func(o *Options) { o.Unsynced, o.checkpointAt = false, 16<<10 })
	})
}

func backupWhileServing(t *testing.T, how func(*Options)) {
	s := open(t, how)
	if !s.opt.Unsynced && s.redo == nil {
		t.Fatal("there is no log")
	}
	s.mustFill(t)
	s.fillTitles(t, 500)
	stop, half := make(chan struct{}), make(chan struct{})
	var load sync.WaitGroup
	load.Go(func() {
		for n := 0; ; n++ {
			select {
			case <-stop:
				return
			default:
			}
			s.mustAdd(t, fmt.Sprintf("ou=n%d,o=shoal", n), "objectClass", "organizationalUnit")
			if n == 20 {
				close(half)
			}
		}
	})
	<-half
	before := s.everything(t)
	var b bytes.Buffer
	n, err := s.Backup(&b)
	if err != nil || n != int64(b.Len()) {
		t.Fatalf("backup: %d of %d, %v", n, b.Len(), err)
	}
	close(stop)
	load.Wait()

	dir := filepath.Join(t.TempDir(), "new")
	v, err := Restore(options(t, dir), bytes.NewReader(b.Bytes()))
	if err != nil || v.Err() != nil {
		t.Fatalf("restore: %v, %+v", err, v)
	}
	r := open(t, func(o *Options) { o.Path = dir })
	have := r.everything(t)
	for name, entry := range before {
		if have[name] != entry {
			t.Errorf("%s was there before the backup began, and is %q in it", name, have[name])
		}
	}
	if int64(len(have)) != v.Entries || len(have) < len(before) {
		t.Errorf("%d entries, checked %d, there were %d", len(have), v.Entries, len(before))
	}
	r.mustAdd(t, "ou=after,o=shoal", "objectClass", "organizationalUnit")
}

// A backup that is not whole or not good does not touch what is there; a good one keeps it beside.
func TestRestore(t *testing.T) {
	s := open(t)
	s.mustFill(t)
	var b bytes.Buffer
	if _, err := s.Backup(&b); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	old := open(t, func(o *Options) { o.Path = dir })
	old.mustAdd(t, "o=shoal", "objectClass", "organization")
	if _, err := Restore(options(t, dir), bytes.NewReader(b.Bytes())); err == nil || !strings.Contains(err.Error(), "in use by another process") {
		t.Errorf("into a database in use: %v", err)
	}
	old.Close()
	damaged := bytes.ReplaceAll(b.Bytes(), []byte("alice"), []byte("blice")) // but not what substring keys say
	suffix := options(t, dir)
	suffix.Suffix = "o=other"
	for _, c := range []struct {
		opt  Options
		data []byte
		want string
	}{
		{options(t, dir), nil, "not whole, or is none"},
		{options(t, dir), []byte(strings.Repeat("no database at all ", 10000)), "not whole, or is none"},
		{options(t, dir), b.Bytes()[:b.Len()/2], "not whole"},
		{options(t, dir), damaged, "damaged"},
		{suffix, b.Bytes(), "it holds the suffix o=shoal"},
	} {
		if _, err := Restore(c.opt, bytes.NewReader(c.data)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%d octets: error %v, want %q", len(c.data), err, c.want)
		}
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 1 {
		t.Errorf("in the folder: %v, %v", left, err)
	}
	if n := open(t, func(o *Options) { o.Path = dir }); n.Entries() != 1 {
		t.Errorf("the old content: %d entries", n.Entries())
	} else if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second one takes the place of the kept one
		if _, err := Restore(options(t, dir), bytes.NewReader(b.Bytes())); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, replacedName)); errors.Is(err, os.ErrNotExist) {
		t.Error("what was there is not kept")
	}
	n := open(t, func(o *Options) { o.Path = dir })
	if !maps.Equal(n.everything(t), s.everything(t)) {
		t.Error("the restored content is another one")
	}
}
