package dirstore

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"go.etcd.io/bbolt"

	"shoal/daemons/internal/ldapwire"
)

// ack is a change that was acknowledged: entry name has the title, or is gone ("").
type ack struct{ name, title string }

// change makes the n-th change of a worker: adds, modifies and deletes entries of its own.
func (s *Store) changeOf(worker, n int) (ack, error) {
	name := fmt.Sprintf("uid=w%d-%d,ou=domains,o=shoal", worker, n/4)
	switch n % 4 {
	case 0:
		return ack{name, "first"}, s.Do("", &Add{DN: []byte(name), Attributes: attrs("objectClass", "inetOrgPerson", "cn", "c", "sn", "s", "title", "first")})
	case 3:
		if n/4%2 == 0 {
			return ack{name, ""}, s.Do("", &Delete{DN: []byte(name)})
		}
	}
	title := fmt.Sprintf("title %d", n)
	return ack{name, title}, s.Do("", &Modify{DN: []byte(name), Changes: []ldapwire.Change{{Op: ldapwire.ChangeReplace,
		Attribute: ldapwire.Attribute{Type: []byte("title"), Values: [][]byte{[]byte(title)}}}}})
}

const crashWorkers = 8

// honoured checks that every acknowledged change is there. The last one of a worker may have been followed by one that
// was made and not acknowledged any more.
func (s *Store) honoured(t *testing.T, last map[string]string, unsure map[string]bool) {
	t.Helper()
	all := s.everything(t)
	for name, title := range last {
		if unsure[name] {
			continue
		}
		_, have, _ := strings.Cut(all[name], "\ntitle: [\"")
		have, _, _ = strings.Cut(have, "\"]")
		if have != title || title == "" && all[name] != "" {
			t.Errorf("%s: title %q was acknowledged, %q is there", name, title, have)
		}
	}
}

// A vault is killed again and again while clients write. Each time everything that was acknowledged is there, and the database is
// good in itself.
func TestKilledUnderLoad(t *testing.T) {
	if dir := os.Getenv("SHOAL_TEST_KILL"); dir != "" {
		writeUntilKilled(t, dir, os.Getenv("SHOAL_TEST_ROUND"))
		return
	}
	dir := t.TempDir()
	s := open(t, func(o *Options) { o.Path = dir })
	s.mustFill(t)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	rnd := rand.New(rand.NewPCG(7, 8))
	total := 0
	for round := range 12 {
		cmd := exec.Command(os.Args[0], "-test.run=^TestKilledUnderLoad$")
		cmd.Env = append(os.Environ(), "SHOAL_TEST_KILL="+dir, fmt.Sprintf("SHOAL_TEST_ROUND=%d", round))
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		last, n, after := map[string]string{}, 0, 40+rnd.IntN(200)
		var newest [crashWorkers]string
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			f := strings.Split(lines.Text(), "|")
			if len(f) != 4 || f[0] != "ack" {
				t.Fatalf("the process says %q", lines.Text())
			}
			var w int
			if _, err := fmt.Sscan(f[1], &w); err != nil {
				t.Fatal(err)
			}
			last[f[2]], newest[w] = f[3], f[2]
			if n++; n == after {
				if err := cmd.Process.Kill(); err != nil { // what it says meanwhile counts too
					t.Fatal(err)
				}
			}
		}
		var exit *exec.ExitError
		if err := cmd.Wait(); !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
			t.Fatalf("the process was not killed: %v", err)
		}
		unsure := map[string]bool{}
		for _, name := range newest {
			unsure[name] = true
		}
		total += n
		s = open(t, func(o *Options) { o.Path = dir })
		s.honoured(t, last, unsure)
		if v, err := s.Verify(VerifyOptions{Pages: true}); err != nil || v.Err() != nil {
			t.Fatalf("round %d: %v, %v", round, err, v.Err())
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("12 kills, %d acknowledged changes looked for", total)
}

func writeUntilKilled(t *testing.T, dir, round string) {
	opt := options(t, dir)
	opt.Unsynced = false
	opt.Indexes = [][]string{{"title:sub"}, {"title"}, nil}[len(round)%3] // some rounds build or drop an index too
	s, err := Open(opt)
	if err != nil {
		t.Fatal(err)
	}
	var r int
	if _, err := fmt.Sscan(round, &r); err != nil {
		t.Fatal(err)
	}
	var out sync.Mutex
	var all sync.WaitGroup
	for w := range crashWorkers {
		all.Go(func() {
			for n := r * 1 << 20; ; n++ {
				a, err := s.changeOf(w, n)
				if err != nil {
					fmt.Fprintln(os.Stderr, err)
					os.Exit(3)
				}
				out.Lock()
				_, err = io.WriteString(os.Stdout, fmt.Sprintf("ack|%d|%s|%s\n", w, a.name, a.title))
				out.Unlock()
				if err != nil {
					time.Sleep(time.Hour) // the reader is gone: the kill is on its way
				}
			}
		})
	}
	all.Wait()
}

// failing makes the n-th write of a database fail, and all after it, by the function under it that writes the file. After half of
// the octets if torn; after all of them if late, as when what follows the write, the flush, fails.
type failing struct {
	at    int64
	kind  string
	count atomic.Int64
}

// under puts itself below the library, at the only place where it writes.
func (f *failing) under(db *bbolt.DB) {
	field := reflect.ValueOf(db).Elem().FieldByName("ops").FieldByName("writeAt")
	at := (*func([]byte, int64) (int, error))(unsafe.Pointer(field.UnsafeAddr()))
	write := *at
	*at = func(b []byte, off int64) (int, error) {
		n := f.count.Add(1)
		if f.at == 0 || n < f.at {
			return write(b, off)
		}
		switch f.kind {
		case "torn":
			n, _ := write(b[:len(b)/2], off)
			return n, syscall.EIO
		case "late":
			n, _ := write(b, off)
			return n, syscall.EIO
		}
		return 0, syscall.ENOSPC
	}
}

// Whichever write of the database fails, whole, half or after it was done: clients hear of it, reads go on, what was
// acknowledged stays, and when the disk works again, so does the directory, with and without a restart in between.
func TestEachWriteFails(t *testing.T) {
	t.Run("without a log", func(t *testing.T) { eachWriteFails(t, 14, func(*Options) {}) })
	// Checkpoints come every few changes, so that their writes fail as well.
	t.Run("with a log", func(t *testing.T) {
		t.Setenv("TMPDIR", "/dev/shm") // some thousand flushes; what fails is below the database, not in the file system
		eachWriteFails(t, 8, func(o *Options) { o.Unsynced, o.checkpointAt = false, 4<<10 })
	})
}

func eachWriteFails(t *testing.T, changes int, how func(*Options)) {
	for _, kind := range []string{"refused", "torn", "late"} {
		for at := int64(1); ; at++ {
			dir := t.TempDir()
			file := filepath.Join(dir, fileName)
			s := open(t, how, func(o *Options) { o.Path = dir })
			if !s.opt.Unsynced && s.redo == nil {
				t.Fatal("there is no log")
			}
			s.mustFill(t)
			f := &failing{at: at, kind: kind}
			f.under(s.bolt())
			last, unsure := map[string]string{}, map[string]bool{}
			failed := 0
			for n := range changes {
				if failed == 2 {
					f.at = 0 // the disk is well again
				}
				a, err := s.changeOf(n%3, n/3)
				switch c := code(err); {
				case err == nil:
					last[a.name] = a.title
					delete(unsure, a.name)
				case c == ldapwire.Unavailable:
					failed++
					unsure[a.name] = true // it may have been made
				case !unsure[a.name]:
					t.Fatalf("%s, write %d: change %d of %s: %v", kind, at, n, a.name, err)
				}
				if got := s.find(t, "o=shoal", ldapwire.WholeSubtree, "(uid=alice)"); len(got) != 2 {
					t.Fatalf("%s, write %d: reads after a failure: %v", kind, at, got)
				}
			}
			f.at = 0
			s.honoured(t, last, unsure)
			verify(t, s)
			if v, err := s.Verify(VerifyOptions{Pages: true}); err != nil || v.Err() != nil {
				t.Fatalf("%s, write %d: %v, %v", kind, at, err, v.Err())
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			s = open(t, how, func(o *Options) { o.Path = dir })
			s.honoured(t, last, unsure)
			s.mustAdd(t, "ou=after,o=shoal", "objectClass", "organizationalUnit")
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			if t.Failed() {
				t.Fatalf("%s, write %d of %s", kind, at, file)
			}
			if failed == 0 {
				if at < int64(changes) {
					t.Errorf("%s: only %d writes", kind, at)
				}
				break
			}
		}
	}
}
