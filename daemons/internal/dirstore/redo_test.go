package dirstore

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"syscall"
	"testing"
	"unsafe"

	"go.etcd.io/bbolt"

	"shoal/daemons/internal/ldapwire"
)

// event is one thing that happened to the disk: a write of a file, a flush of it, or a change that was acknowledged.
type event struct {
	file string // "data", "log"; "" for an acknowledgement
	off  int64
	data []byte // nil for a flush
	ack
}

// disk records what a store does to its files, from a moment on when all was flushed.
type recordedDisk struct {
	mu     sync.Mutex
	start  map[string][]byte
	events []event
}

func (d *recordedDisk) add(e event) {
	d.mu.Lock()
	d.events = append(d.events, e)
	d.mu.Unlock()
}

type recordedLog struct {
	logFile
	d *recordedDisk
}

func (l recordedLog) WriteAt(b []byte, off int64) (int, error) {
	l.d.add(event{file: "log", off: off, data: append([]byte{}, b...)})
	return l.logFile.WriteAt(b, off)
}

func (l recordedLog) Sync() error {
	l.d.add(event{file: "log"})
	return l.logFile.Sync()
}

// under puts itself below the library that writes the database.
func (d *recordedDisk) under(db *bbolt.DB) {
	field := reflect.ValueOf(db).Elem().FieldByName("ops").FieldByName("writeAt")
	at := (*func([]byte, int64) (int, error))(unsafe.Pointer(field.UnsafeAddr()))
	write := *at
	*at = func(b []byte, off int64) (int, error) {
		d.add(event{file: "data", off: off, data: append([]byte{}, b...)})
		return write(b, off)
	}
}

// cut gives what a power cut before event n may have left of a file: all that was flushed, and of each sector written since any of its
// contents.
func (d *recordedDisk) cut(file string, n int, rnd *rand.Rand) []byte {
	const sector = 512
	flushed := 0
	for i, e := range d.events[:n] {
		if e.file == file && e.data == nil {
			flushed = i
		}
	}
	image := append([]byte{}, d.start[file]...)
	for i, e := range d.events[:n] {
		if e.file != file || e.data == nil {
			continue
		}
		for at := 0; at < len(e.data); at += sector {
			if i > flushed && rnd.IntN(2) == 0 {
				continue
			}
			end := min(at+sector, len(e.data))
			if need := int(e.off) + end; need > len(image) {
				image = append(image, make([]byte, need-len(image))...)
			}
			copy(image[int(e.off)+at:], e.data[at:end])
		}
	}
	return image
}

// The power is cut at any moment of a life with many checkpoints: every sector that was not flushed may be old or new, of the database
// and of its redo log. Whatever was acknowledged is there, and the database is good in itself.
func TestPowerCut(t *testing.T) {
	dir := t.TempDir()
	d := &recordedDisk{start: map[string][]byte{}}
	s := open(t, func(o *Options) {
		o.Path, o.Unsynced, o.checkpointAt = dir, false, 40<<10
		o.logFile = func(f logFile) logFile { return recordedLog{f, d} }
		o.flushing = func() { d.add(event{file: "data"}) }
	})
	s.mustFill(t)
	if err := s.settled(); err != nil {
		t.Fatal(err)
	}
	d.under(s.bolt())
	for file, name := range map[string]string{"data": fileName, "log": redoName} {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		d.start[file] = b
	}
	d.events = []event{{file: "data"}, {file: "log"}}
	for n := range 300 {
		a, err := s.changeOf(n%3, n/3)
		if err != nil {
			t.Fatal(err)
		}
		d.add(event{ack: a})
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	flushes, acked := 0, 0
	for _, e := range d.events {
		if e.file == "data" && e.data == nil {
			flushes++
		}
		if e.file == "" {
			acked++
		}
	}
	if flushes < 6 || acked != 300 {
		t.Fatalf("%d checkpoints, %d acknowledged", flushes, acked)
	}
	rnd := rand.New(rand.NewPCG(3, 4))
	whole, torn := 0, 0
	for range 150 {
		n := 2 + rnd.IntN(len(d.events)-2)
		after := t.TempDir()
		for file, name := range map[string]string{"data": fileName, "log": redoName} {
			if err := os.WriteFile(filepath.Join(after, name), d.cut(file, n, rnd), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		last, unsure := map[string]string{}, map[string]bool{}
		for _, e := range d.events[:n] {
			if e.file == "" && e.name != "" {
				last[e.name] = e.title
			}
		}
		for _, e := range d.events[n:] { // the change under way may have been made or not
			if e.file == "" && e.name != "" {
				unsure[e.name] = true
				break
			}
		}
		s, err := Open(options(t, after))
		if err != nil {
			t.Fatalf("power cut before event %d of %d: %v", n, len(d.events), err)
		}
		s.honoured(t, last, unsure)
		if v, err := s.Verify(VerifyOptions{Pages: true}); err != nil || v.Err() != nil {
			t.Fatalf("power cut before event %d: %v, %v", n, err, v.Err())
		}
		s.mustAdd(t, "ou=after,o=shoal", "objectClass", "organizationalUnit")
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if t.Failed() {
			t.Fatalf("power cut before event %d of %d", n, len(d.events))
		}
		// The database alone, without its log, is often damaged: the test would notice.
		if bare := lookAlone(d.cut("data", n, rnd)); bare {
			whole++
		} else {
			torn++
		}
	}
	if torn == 0 {
		t.Error("no power cut left anything for the log to mend")
	}
	t.Logf("%d events, %d checkpoints; without the log %d of %d databases were torn", len(d.events), flushes, torn, whole+torn)
}

// lookAlone tells whether the newest meta page of a database is whole and leads to a page that is there.
func lookAlone(b []byte) bool {
	newest, root := uint64(0), uint64(0)
	for page := range 2 {
		m := b[page*os.Getpagesize():]
		if n := binary.NativeEndian.Uint64(m[64:]); checkMeta(m[:metaPage], n) == nil && n > newest {
			newest, root = n, binary.NativeEndian.Uint64(m[32:])
		}
	}
	at := int(root) * os.Getpagesize()
	return at+16 <= len(b) && binary.NativeEndian.Uint64(b[at:]) == root
}

// settled makes a checkpoint.
func (s *Store) settled() error {
	w := &Write{Op: checkpointing{}}
	s.Submit(w)
	return w.Wait()
}

type checkpointing struct{}

func (checkpointing) apply(w *writing) error { return w.store.redo.checkpoint() }

// What a checkpoint or the log itself meets of failures: clients hear of it, and nothing that was acknowledged is lost.
func TestLogFails(t *testing.T) {
	for _, kind := range []string{"refused", "torn", "late", "flush"} {
		for at := int64(1); ; at++ {
			dir := t.TempDir()
			f := &failingLog{kind: kind}
			s := open(t, func(o *Options) {
				o.Path, o.Unsynced, o.checkpointAt = dir, false, 20<<10
				o.logFile = func(l logFile) logFile { f.logFile = l; return f }
			})
			s.mustFill(t)
			f.n, f.at = 0, at
			last, unsure := map[string]string{}, map[string]bool{}
			failed := 0
			for n := range 24 {
				if n == 12 {
					f.at = 0 // the disk is well again
				}
				a, err := s.changeOf(n%3, n/3)
				switch c := code(err); {
				case err == nil:
					last[a.name] = a.title
					delete(unsure, a.name)
				case c == ldapwire.Unavailable:
					failed++
					unsure[a.name] = true
				case !unsure[a.name]:
					t.Fatalf("%s, write %d: change %d of %s: %v", kind, at, n, a.name, err)
				}
			}
			s.honoured(t, last, unsure)
			verify(t, s)
			// Killed: the next process has the files as they are.
			after := t.TempDir()
			for _, name := range []string{fileName, redoName} {
				b, err := os.ReadFile(filepath.Join(dir, name))
				if err == nil {
					err = os.WriteFile(filepath.Join(after, name), b, 0o600)
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			for _, dir := range []string{dir, after} {
				s := open(t, func(o *Options) { o.Path = dir })
				s.honoured(t, last, unsure)
				s.mustAdd(t, "ou=after,o=shoal", "objectClass", "organizationalUnit")
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
			}
			if t.Failed() {
				t.Fatalf("%s, write %d", kind, at)
			}
			if f.n < at {
				if at < 12 {
					t.Errorf("%s: only %d writes", kind, at)
				}
				break
			}
			if failed == 0 && at < 3 {
				t.Errorf("%s, write %d: nobody heard of it", kind, at)
			}
		}
	}
}

// failingLog fails its writes, or its flushes, from the one numbered at on.
type failingLog struct {
	logFile
	kind  string
	n, at int64
}

func (f *failingLog) WriteAt(b []byte, off int64) (int, error) {
	if f.kind == "flush" {
		return f.logFile.WriteAt(b, off)
	}
	f.n++
	if f.at == 0 || f.n < f.at {
		return f.logFile.WriteAt(b, off)
	}
	switch f.kind {
	case "torn":
		n, _ := f.logFile.WriteAt(b[:len(b)/2], off)
		return n, syscall.EIO
	case "late":
		n, _ := f.logFile.WriteAt(b, off)
		return n, syscall.EIO
	}
	return 0, syscall.ENOSPC
}

func (f *failingLog) Sync() error {
	if f.kind != "flush" {
		return f.logFile.Sync()
	}
	f.n++
	if f.at != 0 && f.n >= f.at {
		return syscall.EIO
	}
	return f.logFile.Sync()
}

// A database that was not closed is told from one that was: older versions refuse it, and so does this one if its log is not its own, is
// damaged, or is of a later version.
func TestLogBelongs(t *testing.T) {
	dir := t.TempDir()
	s := open(t, func(o *Options) { o.Path, o.Unsynced = dir, false })
	s.mustFill(t)
	want := s.everything(t)
	var files [2][]byte
	for i, name := range []string{fileName, redoName} {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		files[i] = b
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, redoName)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a closed database has a log: %v", err)
	}
	if got := marker(t, dir); got != "shoal-directory 1.0" {
		t.Errorf("closed: %s", got)
	}
	other := t.TempDir()
	s = open(t, func(o *Options) { o.Path, o.Unsynced = other, false })
	s.mustFill(t)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	foreign, err := os.ReadFile(filepath.Join(other, fileName))
	if err != nil {
		t.Fatal(err)
	}
	flip := func(b []byte, at ...int) []byte {
		b = append([]byte{}, b...)
		for _, i := range at {
			b[i] ^= 1
		}
		return b
	}
	newer := append([]byte{}, files[1]...)
	for slot := range 2 {
		h := &redoHead{}
		b := h.encode()
		copy(b, "shoal-redo 2.0\n")
		b[23] = 9
		b = seal(b)
		copy(newer[slot*redoSlot:], b)
	}
	for _, c := range []struct {
		what      string
		data, log []byte
		want      string
	}{
		{"as it was killed", files[0], files[1], ""},
		{"one header torn", files[0], flip(files[1], 20), ""},
		{"both headers torn", files[0], flip(files[1], 20, redoSlot+20), "headers are damaged"},
		{"another one", foreign, files[1], "does not belong"},
		{"nothing", nil, files[1], "database is missing"},
		{"no database", []byte(strings.Repeat("nonsense", 4096)), files[1], "does not belong"},
		{"a log of a later version", files[0], newer, "reads 1.x"},
		{"a short log", files[0], files[1][:100], "cannot be used"},
	} {
		dir := t.TempDir()
		for name, b := range map[string][]byte{fileName: c.data, redoName: c.log} {
			if b == nil {
				continue
			}
			if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		s, err := Open(options(t, dir))
		if c.want != "" {
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s: %v, want %q", c.what, err, c.want)
			}
			if b, _ := os.ReadFile(filepath.Join(dir, fileName)); string(b) != string(c.data) {
				t.Errorf("%s: the database was written", c.what)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", c.what, err)
			continue
		}
		if got := s.everything(t); !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %v, want %v", c.what, got, want)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, fileName), files[0], 0o600); err != nil {
		t.Fatal(err)
	}
	if got := marker(t, dir); got != redoFormat {
		t.Errorf("in use: %s", got)
	}
}

// seal makes the sum of a header right.
func seal(b []byte) []byte {
	sum := sha256.Sum256(b[:redoHeader-32])
	return append(b[:redoHeader-32], sum[:]...)
}

func marker(t *testing.T, dir string) (out string) {
	t.Helper()
	db, err := bbolt.Open(filepath.Join(dir, fileName), 0o600, &bbolt.Options{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if err := db.View(func(tx *bbolt.Tx) error { out = string(tx.Bucket(bucketMeta).Get(keyFormat)); return nil }); err != nil {
		t.Fatal(err)
	}
	return out
}

// A commit too long for the log is on the disk all the same when it is acknowledged, and so is what follows it.
func TestLongCommit(t *testing.T) {
	dir := t.TempDir()
	s := open(t, func(o *Options) { o.Path, o.Unsynced = dir, false })
	s.mustFill(t)
	long := strings.Repeat("x", redoLongest/8)
	batch := &Batch{}
	for n := range 10 {
		batch.Writes = append(batch.Writes, &Write{Op: &Add{DN: fmt.Appendf(nil, "uid=long%d,ou=domains,o=shoal", n),
			Attributes: attrs("objectClass", "inetOrgPerson", "cn", "c", "sn", "s", "description", long)}})
	}
	if err := s.Do("", batch); err != nil {
		t.Fatal(err)
	}
	s.mustAdd(t, "ou=after,o=shoal", "objectClass", "organizationalUnit")
	want := s.everything(t)
	after := t.TempDir()
	for _, name := range []string{fileName, redoName} {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err == nil {
			err = os.WriteFile(filepath.Join(after, name), b, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	got := open(t, func(o *Options) { o.Path = after }).everything(t)
	if !reflect.DeepEqual(got, want) || len(got) < 14 {
		t.Errorf("%d entries after a crash, %d before", len(got), len(want))
	}
}

func FuzzRedo(f *testing.F) {
	c := &changes{}
	c.note('p', 0, []byte("k"), []byte("value"))
	c.note('d', 4, []byte("gone"), nil)
	c.note('s', 2, idKey(nil, 9), nil)
	f.Add(c.b)
	f.Add([]byte{'p', 9, 1})
	f.Add([]byte{'s', 0, 3, 1, 2, 3})
	f.Add([]byte{'p', 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1})
	db, err := bbolt.Open(filepath.Join(f.TempDir(), "db"), 0o600, &bbolt.Options{NoSync: true})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { db.Close() })
	s := &Store{}
	if err := db.Update(s.create); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		tx, err := db.Begin(true)
		if err != nil {
			t.Fatal(err)
		}
		_ = redo(tx, b) // it must end, without a panic
		if err := tx.Rollback(); err != nil {
			t.Fatal(err)
		}
	})
}
