package devcluster

import (
	"errors"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// testLayout lies in a folder of the test, with ports that nobody uses now.
func testLayout(t *testing.T) Layout {
	t.Helper()
	var taken error
	for range 50 {
		l, err := NewLayout(filepath.Join(t.TempDir(), "data"), 2000+100*rand.IntN(270))
		if err != nil {
			t.Fatal(err)
		}
		if taken = l.checkPorts(); taken == nil {
			return l
		}
	}
	t.Fatal(taken)
	return Layout{}
}

func TestEveryPortIsUsedOnce(t *testing.T) {
	l := testLayout(t)
	seen := map[string]string{}
	for what, addr := range l.listeners() {
		if other := seen[addr]; other != "" {
			t.Errorf("%s is for %s and for %s", addr, what, other)
		}
		seen[addr] = what
		_, text, err := net.SplitHostPort(addr)
		if err != nil {
			t.Fatal(err)
		}
		if p, _ := strconv.Atoi(text); p < l.PortBase || p > l.PortBase+2999 {
			t.Errorf("%s for %s is not within base to base+2999", addr, what)
		}
	}
}

func TestPortBaseIsBounded(t *testing.T) {
	for _, base := range []int{-1, 0, 80, 1023, 29769, 65000} {
		if _, err := NewLayout("x", base); err == nil || !strings.Contains(err.Error(), "SHOAL_PORT_BASE") {
			t.Errorf("base %d: got %v, want an error that names SHOAL_PORT_BASE", base, err)
		}
	}
}

func TestPortInUseNamesPortOwnerAndFix(t *testing.T) {
	l := testLayout(t)
	listener, err := net.Listen("tcp", l.front(portIMAP))
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	err = l.checkPorts()
	if err == nil {
		t.Fatal("no error while a port is in use")
	}
	for _, words := range []string{l.front(portIMAP), "the balancer's IMAP", "process " + strconv.Itoa(os.Getpid()), "SHOAL_PORT_BASE=" + strconv.Itoa(l.otherBase())} {
		if !strings.Contains(err.Error(), words) {
			t.Errorf("the error lacks %q: %v", words, err)
		}
	}
}

func TestClaim(t *testing.T) {
	write := func(t *testing.T, path, text string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Run("new", func(t *testing.T) {
		l := testLayout(t)
		for range 2 { // the second time it is ours already
			if err := l.claim(); err != nil {
				t.Fatal(err)
			}
		}
		if info, err := os.Stat(l.Data); err != nil || info.Mode().Perm() != 0o700 {
			t.Errorf("the data folder is %v, %v; want mode 0700", info, err)
		}
	})
	t.Run("somebody else's folder", func(t *testing.T) {
		l := testLayout(t)
		write(t, l.path("precious"), "x")
		if err := l.claim(); err == nil || !strings.Contains(err.Error(), "SHOAL_DATA") {
			t.Errorf("got %v, want a refusal that names SHOAL_DATA", err)
		}
		if entries, _ := os.ReadDir(l.Data); len(entries) != 1 {
			t.Errorf("something was written into it: %v", entries)
		}
	})
	t.Run("another version", func(t *testing.T) {
		l := testLayout(t)
		write(t, l.path(markFile), "shoal-data 2\n")
		if err := l.claim(); err == nil || !strings.Contains(err.Error(), "version 2") {
			t.Errorf("got %v, want a refusal that names the version", err)
		}
	})
	t.Run("a mark that is none", func(t *testing.T) {
		l := testLayout(t)
		write(t, l.path(markFile), "hello\n")
		if err := l.claim(); err == nil || !strings.Contains(err.Error(), markFile) {
			t.Errorf("got %v, want a refusal that names the file", err)
		}
	})
}

func TestLock(t *testing.T) {
	l := testLayout(t)
	if _, err := l.Running(); !errors.Is(err, ErrNotRunning) {
		t.Errorf("before the first start: got %v, want ErrNotRunning", err)
	}
	if err := l.claim(); err != nil {
		t.Fatal(err)
	}
	held, err := l.acquire()
	if err != nil {
		t.Fatal(err)
	}
	if pid, err := l.Running(); err != nil || pid != os.Getpid() {
		t.Errorf("Running: got %d, %v, want this process %d", pid, err, os.Getpid())
	}
	if _, err := l.acquire(); !errors.Is(err, ErrRunning) || !strings.Contains(err.Error(), "make down") {
		t.Errorf("a second start: got %v, want ErrRunning with what to do", err)
	}
	held.release()
	if _, err := l.Running(); !errors.Is(err, ErrNotRunning) {
		t.Errorf("after the end: got %v, want ErrNotRunning, although the file still holds a process id", err)
	}
	if err := l.Stop(0); !errors.Is(err, ErrNotRunning) {
		t.Errorf("Stop: got %v, want ErrNotRunning", err)
	}
}

func TestSecretsAndUsersStay(t *testing.T) {
	l := testLayout(t)
	if err := l.claim(); err != nil {
		t.Fatal(err)
	}
	first, err := l.ensureSecret("box1")
	if err != nil {
		t.Fatal(err)
	}
	again, err := l.ensureSecret("box1")
	if err != nil || again != first || len(first) < 20 {
		t.Errorf("got %q then %q, %v", first, again, err)
	}
	users, err := l.ensureUsers()
	if err != nil {
		t.Fatal(err)
	}
	second, err := l.ensureUsers()
	if err != nil || len(users) != 2 || users[0] != second[0] || users[1] != second[1] {
		t.Errorf("got %v then %v, %v", users, second, err)
	}
	for _, path := range []string{l.secret("box1"), l.usersFile()} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: got %v, %v, want mode 0600", path, info, err)
		}
	}
}

func TestCertsAreRenewedOnlyWhenNeeded(t *testing.T) {
	l := testLayout(t)
	if err := l.claim(); err != nil {
		t.Fatal(err)
	}
	if err := l.ensureCerts(); err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile(l.cert("box1"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(l.key("box2")); err != nil {
		t.Fatal(err)
	}
	if err := l.ensureCerts(); err != nil {
		t.Fatal(err)
	}
	after, err := os.ReadFile(l.cert("box1"))
	if err != nil || string(after) != string(before) {
		t.Errorf("the good certificate of box1 was replaced (%v)", err)
	}
	if !l.fresh("box2") || !l.fresh(publicName) {
		t.Error("box2 or the public face has no good certificate")
	}
}
