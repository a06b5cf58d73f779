package dirstore

import (
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"shoal/daemons/internal/clock"
	"shoal/daemons/internal/ldapwire"
)

const (
	oldCSN = "20250101000000.000000Z#000000#000#000000"
	newCSN = "20270101000000.000000Z#000000#000#000000"
)

func endOf(csn string) *Context {
	return &Context{CSNs: []string{csn}, Cookie: []byte("rid=001,csn=" + csn), Refresh: RefreshEnds}
}

// spilling makes loads write runs after few entries.
func spilling(o *Options) { o.loadMemory = 16 << 10 }

// everything gives the entries by name, without their ids.
func (s *Store) everything(t testing.TB) map[string]string {
	t.Helper()
	r, err := s.Read()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	all := map[string]string{}
	top, err := r.Resolve(s.suffix)
	if err != nil {
		return all
	}
	for w := r.Walk(top); ; {
		f, ok, err := r.NextOf(w)
		if err != nil {
			t.Fatal(err)
		}
		if !ok {
			return all
		}
		e, err := r.Entry(&f)
		if err != nil {
			t.Fatal(err)
		}
		var lines []string
		for _, a := range e.Attributes {
			lines = append(lines, fmt.Sprintf("%s: %q", a.Desc, a.Values))
		}
		slices.Sort(lines)
		all[e.DN] = strings.Join(lines, "\n")
	}
}

// fill makes the old content of a test: a handful of replicated entries.
func (s *Store) fill(t testing.TB, n int) {
	t.Helper()
	for i := range n {
		if err := s.Do("", benchEntry(i)); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Do("", endOf(oldCSN)); err != nil {
		t.Fatal(err)
	}
}

// loadAll loads entries and puts them in place.
func (s *Store) loadAll(ops []*Replicate) (err error) {
	l, err := s.Load()
	if err != nil {
		return err
	}
	for _, op := range ops {
		if err := l.Add(op); err != nil {
			return errors.Join(err, l.Abort())
		}
	}
	_, refused, err := l.Build()
	if len(refused) > 0 {
		err = errors.Join(err, fmt.Errorf("refused: %v", refused))
	}
	if err != nil {
		return errors.Join(err, l.Abort())
	}
	return l.Replace(endOf(newCSN))
}

func benchEntries(n int) (ops []*Replicate) {
	for i := range n {
		ops = append(ops, benchEntry(i))
	}
	return ops
}

// irregular is a sequence with everything that cannot be written in one go: an entry before its superior, entries
// that come twice, changed, renamed, and one that takes the name of another.
func irregular() []*Replicate {
	ops := benchEntries(700)
	ops[2], ops[40] = ops[40], ops[2] // the domain comes after 37 of its accounts
	again := benchEntry(50)
	again.Attributes = append(again.Attributes, attrs("title", "Dr.")...)
	moved := benchEntry(60)
	moved.DN = []byte("uid=moved,associatedDomain=a.test,ou=domains,o=shoal")
	heir := benchEntry(1000)
	heir.DN = benchEntry(60).DN
	return append(ops, again, moved, heir)
}

func TestLoadIsWhatReplicateMakes(t *testing.T) {
	ordered := irregular()
	ordered[2], ordered[40] = ordered[40], ordered[2] // Replicate wants superiors first
	one := open(t)
	for _, op := range ordered {
		if err := one.Do("", op); err != nil {
			t.Fatalf("%s: %v", op.DN, err)
		}
	}
	if err := one.Do("", endOf(newCSN)); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	at := func(o *Options) { o.Path = dir; o.Unsynced = false }
	s := open(t, at, spilling)
	s.fill(t, 5)
	if err := s.loadAll(irregular()); err != nil {
		t.Fatal(err)
	}
	check := func(when string) {
		t.Helper()
		verify(t, s)
		if want, have := one.everything(t), s.everything(t); !maps.Equal(want, have) {
			t.Errorf("%s: %d entries, want %d", when, len(have), len(want))
			for dn, e := range want {
				if have[dn] != e {
					t.Fatalf("%s is\n%s\nwant\n%s", dn, have[dn], e)
				}
			}
		}
		if !slices.Equal(s.ContextCSN(), []string{newCSN}) || s.Cookie() != "rid=001,csn="+newCSN {
			t.Errorf("%s: contextCSN %v, cookie %q", when, s.ContextCSN(), s.Cookie())
		}
		if got := s.find(t, "o=shoal", ldapwire.WholeSubtree, "(title=dr.)"); len(got) != 1 {
			t.Errorf("%s: search: %v", when, got)
		}
	}
	check("after the load")
	if left, err := os.ReadDir(dir); err != nil || len(left) != 2 || left[0].Name() != fileName || left[1].Name() != redoName {
		t.Errorf("in the folder: %v, %v", left, err)
	}
	// Writes go on in the new file, and all of it is there after a restart.
	s.mustAdd(t, "ou=after,o=shoal", "objectClass", "organizationalUnit")
	one.mustAdd(t, "ou=after,o=shoal", "objectClass", "organizationalUnit")
	if s.ContextCSN()[0] <= newCSN {
		t.Errorf("contextCSN %v after a write", s.ContextCSN())
	}
	if err := s.Do("", &Delete{DN: []byte("ou=after,o=shoal")}); err != nil {
		t.Fatal(err)
	}
	if err := one.Do("", &Delete{DN: []byte("ou=after,o=shoal")}); err != nil {
		t.Fatal(err)
	}
	if err := s.Do("", endOf(newCSN)); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, at)
	check("after a restart")
}

// A reader that began before the switch reads the old content to its end; the next one the new content.
func TestLoadBesideReaders(t *testing.T) {
	s := open(t, spilling)
	s.fill(t, 300)
	old, err := s.Read()
	if err != nil {
		t.Fatal(err)
	}
	ops := append(benchEntries(3), benchEntry(5000), benchEntry(5001))
	changed := s.Changed()
	end := old.LogEnd()
	if err := s.loadAll(ops); err != nil {
		t.Fatal(err)
	}
	<-changed
	n := 0
	top, err := old.Resolve(s.suffix)
	if err != nil {
		t.Fatal(err)
	}
	for w := old.Walk(top); ; n++ {
		f, ok, err := old.NextOf(w)
		if err != nil {
			t.Fatal(err)
		}
		if !ok {
			break
		}
		if _, err := old.Entry(&f); err != nil {
			t.Fatal(err)
		}
	}
	old.Close()
	if n != 300 || s.Entries() != 5 {
		t.Errorf("the old reader saw %d entries, the store counts %d", n, s.Entries())
	}
	r, err := s.Read()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if err := r.LogAfter(end, func(c LoggedChange) bool {
		if c.Sequence == end+1 {
			t.Error("the change log goes on without a gap: a follower would miss the load")
		}
		return false
	}); err != nil {
		t.Fatal(err)
	}
	if r.LogEnd() <= end {
		t.Error("the change log shows nothing to who follows it")
	}
	if _, ok, err := r.LogCovers(oldCSN); ok || err != nil {
		t.Errorf("the change log claims to cover what was loaded: %v, %v", ok, err)
	}
	if _, ok, err := r.LogCovers(newCSN); !ok || err != nil {
		t.Errorf("the change log does not cover what comes: %v, %v", ok, err)
	}
}

func TestLoadRefusals(t *testing.T) {
	s := open(t)
	s.fill(t, 4)
	if err := s.loadAll(benchEntries(40)[1:]); err == nil || !strings.Contains(err.Error(), "o=shoal itself did not come") {
		t.Errorf("without the top entry: %v", err)
	}
	l, err := s.Load()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Load(); !errors.Is(err, ErrLoading) {
		t.Errorf("a second load: %v", err)
	}
	if err := l.Add(benchEntry(0)); err != nil {
		t.Fatal(err)
	}
	for dn, want := range map[string]ldapwire.Code{"o=elsewhere": ldapwire.NoSuchObject, "oddity=x,o=shoal": ldapwire.UndefinedAttributeType, "nonsense": ldapwire.InvalidDNSyntax} {
		op := benchEntry(9)
		op.DN = []byte(dn)
		if err := l.Add(op); code(err) != want {
			t.Errorf("%s: %v", dn, err)
		}
	}
	orphan := benchEntry(10)
	if err := l.Add(orphan); err != nil {
		t.Fatal(err)
	}
	if _, refused, err := l.Build(); err != nil || len(refused) != 1 || refused[0].DN != string(orphan.DN) {
		t.Errorf("an entry without a superior: %v, %v", refused, err)
	}
	s.mustAdd(t, "ou=between,o=shoal", "objectClass", "organizationalUnit")
	if err := l.Replace(endOf(newCSN)); err == nil {
		t.Error("a write was lost")
	}
	if got := s.find(t, "o=shoal", ldapwire.WholeSubtree, "(ou=between)"); len(got) != 1 || s.Entries() != 5 {
		t.Errorf("after the refused switch: %v, %d entries", got, s.Entries())
	}
	if err := s.loadAll(benchEntries(50)); err != nil {
		t.Errorf("the next load: %v", err)
	}
	many, err := s.Load()
	if err != nil {
		t.Fatal(err)
	}
	for n := 0; ; n++ {
		if err := many.Add(benchEntry(1 + n)); errors.Is(err, ErrLoadTooIrregular) {
			break
		} else if err != nil || n > maxLater {
			t.Fatalf("entry %d without a superior: %v", n, err)
		}
	}
	if err := many.Abort(); err != nil {
		t.Error(err)
	}
}

// steps are the places where a load can fail, in their order.
var steps = []string{"begin", "spill", "batch", "merge", "sync", "rename", "renamed"}

var errInjected = errors.New("injected")

// Whatever fails, the old content stays, whole and writable, and the next load works. Once the file has its
// name, the new content is in use.
func TestLoadFails(t *testing.T) {
	for _, step := range append(steps, "write") {
		for nth := range 3 {
			t.Run(fmt.Sprintf("%s %d", step, nth), func(t *testing.T) {
				count, armed := 0, false
				var files []*os.File
				dir := t.TempDir()
				s := open(t, spilling, func(o *Options) {
					o.Path = dir
					o.Unsynced = false
					o.openFile = func(name string, flag int, mode os.FileMode) (*os.File, error) {
						f, err := os.OpenFile(name, flag, mode)
						files = append(files, f)
						return f, err
					}
					o.fault = func(at string) error {
						if armed && step == "write" && at == []string{"begin", "spill", "merge"}[nth] {
							files[len(files)-1].Close() // of the new database: every write fails
						}
						if armed && at == step {
							if count++; count == nth+1 {
								return fmt.Errorf("%s: %w", at, errInjected)
							}
						}
						return nil
					}
				})
				s.fill(t, 5)
				old := s.everything(t)
				armed = true
				err := s.loadAll(benchEntries(700))
				reached := count > nth || step == "write"
				armed = false
				now := s.everything(t)
				switch {
				case !reached || step == "renamed":
					if err != nil || len(now) != 700 {
						t.Fatalf("%d entries, %v", len(now), err)
					}
				case err == nil:
					t.Error("no error")
					fallthrough
				default:
					if !maps.Equal(now, old) || s.ContextCSN()[0] != oldCSN || s.Cookie() != "rid=001,csn="+oldCSN {
						t.Errorf("after %v: %d entries, contextCSN %v", err, len(now), s.ContextCSN())
					}
					if _, err := os.Stat(filepath.Join(dir, loadFolder)); !errors.Is(err, os.ErrNotExist) {
						t.Errorf("the load left something: %v", err)
					}
				}
				s.mustAdd(t, "ou=after,o=shoal", "objectClass", "organizationalUnit")
				if err := s.loadAll(benchEntries(300)); err != nil {
					t.Errorf("the next load: %v", err)
				}
				if n := len(s.everything(t)); n != 300 {
					t.Errorf("%d entries after the next load", n)
				}
			})
		}
	}
}

// A process that is killed at any step leaves the old content or the new one.
func TestLoadKilled(t *testing.T) {
	if dir := os.Getenv("SHOAL_TEST_LOAD"); dir != "" {
		dieInLoad(t, dir, os.Getenv("SHOAL_TEST_STEP"))
		return
	}
	for _, step := range append(steps, "done") {
		t.Run(step, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			cmd := exec.Command(os.Args[0], "-test.run=^TestLoadKilled$")
			cmd.Env = append(os.Environ(), "SHOAL_TEST_LOAD="+dir, "SHOAL_TEST_STEP="+step)
			out, err := cmd.CombinedOutput()
			var exit *exec.ExitError
			if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
				t.Fatalf("the process was not killed: %v\n%s", err, out)
			}
			s := open(t, func(o *Options) { o.Path = dir })
			want, csn := 5, oldCSN
			if step == "renamed" || step == "done" {
				want, csn = 700, newCSN
			}
			if n := len(s.everything(t)); n != want || s.ContextCSN()[0] != csn || s.Cookie() != "rid=001,csn="+csn {
				t.Errorf("%d entries, contextCSN %v, cookie %q", n, s.ContextCSN(), s.Cookie())
			}
			if left, err := os.ReadDir(dir); err != nil || len(left) != 1 || left[0].Name() != fileName {
				t.Errorf("in the folder: %v, %v", left, err)
			}
			if err := s.loadAll(benchEntries(300)); err != nil {
				t.Errorf("the next load: %v", err)
			}
		})
	}
}

func dieInLoad(t *testing.T, dir, step string) {
	armed := false
	die := func(at string) error {
		if armed && at == step {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		}
		return nil
	}
	s, err := Open(Options{Path: dir, Suffix: "o=shoal", Schema: schema(t), Clock: clock.System(), Log: slog.New(slog.DiscardHandler), fault: die, loadMemory: 16 << 10})
	if err != nil {
		t.Fatal(err)
	}
	s.fill(t, 5)
	armed = true
	if err := s.loadAll(benchEntries(700)); err != nil {
		t.Fatal(err)
	}
	_ = die("done")
}

// The sorter gives back what it was given, in order, however often it spills.
func TestSorter(t *testing.T) {
	s := sorter{folder: t.TempDir(), name: "x", limit: 1000, fault: func(string) error { return nil }}
	want := map[string]string{}
	for i := range 2000 {
		k := hex.EncodeToString(nameOf(i))
		want[k] = strings.Repeat("v", i%300)
		if err := s.add([]byte(k), []byte(want[k])); err != nil {
			t.Fatal(err)
		}
	}
	last := ""
	if err := s.merge(func(k, v []byte) error {
		if string(k) <= last {
			t.Fatalf("%s after %s", k, last)
		}
		last = string(k)
		if want[last] != string(v) {
			t.Errorf("%s has %d octets", k, len(v))
		}
		delete(want, last)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if len(want) > 0 || len(s.runs) < 10 {
		t.Errorf("%d are missing; %d runs", len(want), len(s.runs))
	}
	if err := s.runs[0].Truncate(7); err != nil {
		t.Fatal(err)
	}
	if err := s.merge(func(_, _ []byte) error { return nil }); err == nil {
		t.Error("a run that was cut off is taken for whole")
	}
	if err := s.close(); err != nil {
		t.Error(err)
	}
	if err := s.add(make([]byte, maxPairPart+1), nil); err == nil {
		t.Error("a key that is too long was taken")
	}
}

func nameOf(i int) []byte {
	h := nameHash(fmt.Appendf(nil, "%d", i))
	return h[:]
}
