package dirstore

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"shoal/daemons/internal/clock"
	"shoal/daemons/internal/ldapwire"
)

func TestReopen(t *testing.T) {
	dir := t.TempDir()
	at := func(o *Options) { o.Path = dir }
	s := open(t, at)
	s.mustFill(t)
	context, n := s.ContextCSN(), s.Entries()
	if _, err := Open(Options{Path: dir, Suffix: "o=shoal", Schema: schema(t), Clock: clock.System(), Log: slog.New(slog.DiscardHandler)}); err == nil || !strings.Contains(err.Error(), "in use by another process") {
		t.Errorf("second process: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.Do("", &Delete{DN: []byte("o=shoal")}); code(err) != ldapwire.Unavailable {
		t.Errorf("write to a closed store: %v", err)
	}
	if err := s.Check(); !errors.Is(err, ErrClosed) {
		t.Errorf("check of a closed store: %v", err)
	}
	// Another index is built at the next start, one left out is dropped.
	s = open(t, at, func(o *Options) { o.Indexes = []string{"uid:sub", "shoalQuotaStorage"} })
	if got := s.ContextCSN(); len(got) != 1 || got[0] != context[0] || s.Entries() != n {
		t.Errorf("contextCSN %v, was %v; %d entries, were %d", got, context, s.Entries(), n)
	}
	for filter, want := range map[string]int{"(uid=*lic*)": 2, "(shoalQuotaStorage>=500)": 4, "(mail=bob@a.test)": 1, "(cn=*alice*)": 2} {
		if got := s.find(t, "o=shoal", ldapwire.WholeSubtree, filter); len(got) != want {
			t.Errorf("%s: %v, want %d", filter, got, want)
		}
	}
	s.mustAdd(t, "ou=new,o=shoal", "objectClass", "organizationalUnit")
	if s.ContextCSN()[0] <= context[0] {
		t.Error("contextCSN did not grow")
	}
	s.Close()
	s = open(t, at)
	if got := s.find(t, "o=shoal", ldapwire.WholeSubtree, "(uid=*lic*)"); len(got) != 2 {
		t.Errorf("after the index was dropped: %v", got)
	}
	s.Close()

	for _, c := range []struct {
		change func(*Options)
		want   string
	}{
		{func(o *Options) { o.Suffix = "o=other" }, "it holds the suffix o=shoal"},
		{func(o *Options) { o.Suffix = "nonsense" }, "not a distinguished name"},
		{func(o *Options) { o.Suffix = "oddity=x" }, "not in the schema"},
		{func(o *Options) { o.Indexes = []string{"oddity"} }, "no attribute"},
		{func(o *Options) { o.Indexes = []string{"cn:fast"} }, "write"},
		{func(o *Options) { o.Indexes = []string{"jpegPhoto"} }, "no equality rule"},
		{func(o *Options) { o.Indexes = []string{"member:sub"} }, "no substrings rule"},
		{func(o *Options) { o.Indexes = []string{"userPassword"} }, "not searched"},
	} {
		opt := Options{Path: dir, Suffix: "o=shoal", Schema: schema(t), Clock: clock.System(), Log: slog.New(slog.DiscardHandler)}
		c.change(&opt)
		if _, err := Open(opt); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("error %v, want %q", err, c.want)
		}
	}
	setFormat(t, dir, "shoal-directory 3.0")
	_, err := Open(Options{Path: dir, Suffix: "o=shoal", Schema: schema(t), Clock: clock.System(), Log: slog.New(slog.DiscardHandler)})
	if err == nil || !strings.Contains(err.Error(), "its format is 3.0") {
		t.Errorf("newer major: %v", err)
	}
	setFormat(t, dir, "shoal-directory 1.9")
	open(t, at).Close()
}

func setFormat(t *testing.T, dir, marker string) {
	t.Helper()
	db, err := bbolt.Open(filepath.Join(dir, fileName), 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if err := db.Update(func(tx *bbolt.Tx) error { return tx.Bucket(bucketMeta).Put(keyFormat, []byte(marker)) }); err != nil {
		t.Fatal(err)
	}
}

func TestOpenRefusesAForeignFile(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, fileName), []byte(strings.Repeat("not a database", 1000)), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(Options{Path: dir, Suffix: "o=shoal", Schema: schema(t), Clock: clock.System(), Log: slog.New(slog.DiscardHandler)}); err == nil {
		t.Error("opened")
	}
}

// Writers of one group each get their own result, and CSNs ascend in the order of the log.
func TestGroupCommit(t *testing.T) {
	s := open(t)
	s.mustFill(t)
	var wg sync.WaitGroup
	var mu sync.Mutex
	codes := map[ldapwire.Code]int{}
	for i := range 200 {
		wg.Go(func() {
			err := s.Do("", &Add{DN: fmt.Appendf(nil, "ou=n%d,o=shoal", i%100), Attributes: attrs("objectClass", "organizationalUnit")})
			mu.Lock()
			codes[code(err)]++
			mu.Unlock()
		})
	}
	wg.Wait()
	if codes[ldapwire.Success] != 100 || codes[ldapwire.EntryAlreadyExists] != 100 {
		t.Errorf("results %v", codes)
	}
	r, err := s.Read()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	last, n := "", 0
	if err := r.LogAfter(0, func(c LoggedChange) bool {
		if c.CSN <= last {
			t.Errorf("CSN %s after %s", c.CSN, last)
		}
		last = c.CSN
		n++
		return true
	}); err != nil {
		t.Fatal(err)
	}
	if n != 112 || last != s.ContextCSN()[0] || r.LogEnd() != 112 {
		t.Errorf("%d changes logged, end %d, last %s, context %v", n, r.LogEnd(), last, s.ContextCSN())
	}
}

func TestChangeLog(t *testing.T) {
	now := clock.NewFake(time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC))
	s := open(t, func(o *Options) { o.Clock = now; o.ChangeLog = time.Hour })
	s.mustFill(t)
	middle := s.ContextCSN()[0]
	changed := s.Changed()
	now.Advance(30 * time.Minute)
	s.mustAdd(t, "ou=x,o=shoal", "objectClass", "organizationalUnit")
	<-changed
	uuid := s.entry(t, "ou=x,o=shoal")
	if err := s.Do("", &Delete{DN: []byte("ou=x,o=shoal")}); err != nil {
		t.Fatal(err)
	}
	since := func(c string) (kinds []ChangeKind, ok bool) {
		r, err := s.Read()
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		at, ok, err := r.LogCovers(c)
		if err != nil {
			t.Fatal(err)
		}
		if ok {
			if err := r.LogAfter(at, func(ch LoggedChange) bool {
				kinds = append(kinds, ch.Kind)
				if ch.Kind == Deleted && fmt.Sprintf("%x", ch.UUID[:]) != strings.ReplaceAll(string(uuid.Get("entryUUID")[0]), "-", "") {
					t.Errorf("UUID of the deleted entry is %x", ch.UUID)
				}
				return true
			}); err != nil {
				t.Fatal(err)
			}
		}
		return kinds, ok
	}
	if kinds, ok := since(middle); !ok || !slices.Equal(kinds, []ChangeKind{Added, Deleted}) {
		t.Errorf("since the middle: %v %v", kinds, ok)
	}
	if kinds, ok := since(""); !ok || len(kinds) != 14 {
		t.Errorf("since the beginning: %v %v", kinds, ok)
	}
	now.Advance(45 * time.Minute)
	s.mustAdd(t, "ou=y,o=shoal", "objectClass", "organizationalUnit")
	if _, ok := since(""); ok {
		t.Error("the log claims to have what was cut off")
	}
	if kinds, ok := since(middle); !ok || !slices.Equal(kinds, []ChangeKind{Added, Deleted, Added}) {
		t.Errorf("after the cut: %v %v", kinds, ok)
	}
	last := s.ContextCSN()[0]
	now.Jump(time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)) // the wall clock jumps back
	s.mustAdd(t, "ou=z,o=shoal", "objectClass", "organizationalUnit")
	if s.ContextCSN()[0] <= last {
		t.Errorf("contextCSN went back: %s after %s", s.ContextCSN(), last)
	}
}

// When the disk refuses, writes are answered so, reads go on, and what was acknowledged stays.
func TestFailedCommit(t *testing.T) {
	dir := t.TempDir()
	var file *os.File
	s := open(t, func(o *Options) {
		o.Path = dir
		o.openFile = func(name string, flag int, mode os.FileMode) (f *os.File, err error) {
			f, err = os.OpenFile(name, flag, mode)
			file = f
			return f, err
		}
	})
	s.mustFill(t)
	context, entries := s.ContextCSN(), s.Entries()
	if err := file.Close(); err != nil { // every write from now on fails
		t.Fatal(err)
	}
	var writes []*Write
	for i := range 5 {
		w := &Write{Op: &Add{DN: fmt.Appendf(nil, "ou=f%d,o=shoal", i), Attributes: attrs("objectClass", "organizationalUnit")}}
		s.Submit(w)
		writes = append(writes, w)
	}
	for _, w := range writes {
		if err := w.Wait(); code(err) != ldapwire.Unavailable || w.CSN() != "" {
			t.Errorf("a write that did not reach the disk: %v, CSN %q", err, w.CSN())
		}
	}
	if got := s.find(t, "o=shoal", ldapwire.WholeSubtree, "(uid=alice)"); len(got) != 2 {
		t.Errorf("reads after the failure: %v", got)
	}
	if s.ContextCSN()[0] != context[0] || s.Entries() != entries {
		t.Error("the failed writes count")
	}
	_ = s.Close() // its file is closed already
	s = open(t, func(o *Options) { o.Path = dir })
	if s.Entries() != entries || s.ContextCSN()[0] != context[0] {
		t.Errorf("after the restart: %d entries, were %d", s.Entries(), entries)
	}
}
