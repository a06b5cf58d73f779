package imapsession

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"testing"

	"shoal/daemons/internal/clock"
	"shoal/daemons/internal/mailstore"
	"shoal/daemons/internal/vfs"
)

// memoryServer makes the test binary a server in a process of its own, so that all the memory of that
// process can be counted. It says where it listens, then answers each line from its input with the
// anonymous memory it has, as it is and after giving free memory back.
const memoryServer = "SHOAL_TEST_MEMORY_SERVER"

func TestMain(m *testing.M) {
	if dir := os.Getenv(memoryServer); dir != "" {
		if err := serveForMemory(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func serveForMemory(dir string) error {
	fs := vfs.OS()
	log := slog.New(slog.DiscardHandler)
	store, err := mailstore.New(mailstore.Options{Server: "box1", FS: fs, Clock: clock.System(), Log: log})
	if err != nil {
		return err
	}
	if err := errors.Join(mailstore.InitVolume(fs, dir, volumeID), store.AddVolume("vol01", dir, volumeID)); err != nil {
		return err
	}
	cert, err := tls.LoadX509KeyPair(dir+"/../cert.pem", dir+"/../key.pem")
	if err != nil {
		return err
	}
	limits := DefaultLimits()
	limits.AllowPlain, limits.MaxPerAddress, limits.MaxPerUser = true, 1e6, 1e6
	srv, err := New(Options{Store: store, Auth: new(users), TLS: &tls.Config{Certificates: []tls.Certificate{cert}}, Log: log, Limits: limits})
	if err != nil {
		return err
	}
	for _, serve := range []func(net.Listener) error{srv.Serve, srv.ServeTLS} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		fmt.Println(l.Addr())
		go serve(l)
	}
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		natural := anonymousMemory()
		debug.FreeOSMemory()
		fmt.Println(natural, anonymousMemory())
	}
	return nil
}

// anonymousMemory is RssAnon of this process in KiB.
func anonymousMemory() int {
	text, _ := os.ReadFile("/proc/self/status")
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, "RssAnon:"); ok {
			n, _ := strconv.Atoi(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")))
			return n
		}
	}
	return 0
}

// TestIdleMemory prints how much memory a connection costs that has selected a mailbox and idles: all
// of the server's process counted, with a mailbox for each connection and with one for all. The numbers
// are not demanded here, because they depend on the machine; what is demanded is that idle sessions hold
// no goroutine and no buffer. SHOAL_TEST_CONNECTIONS sets how many there are.
func TestIdleMemory(t *testing.T) {
	n := 100
	if s := os.Getenv("SHOAL_TEST_CONNECTIONS"); s != "" {
		var err error
		if n, err = strconv.Atoi(s); err != nil {
			t.Fatal(err)
		}
	}
	for _, secure := range []bool{false, true} {
		for _, own := range []bool{false, true} {
			natural, least := idleMemory(t, n, secure, own)
			t.Logf("%d connections, TLS %-5v, a mailbox for each %-5v: %5.1f KiB each, %5.1f after giving back free memory", n, secure, own, natural, least)
		}
	}
}

func idleMemory(t *testing.T, n int, secure, own bool) (natural, least float64) {
	t.Helper()
	dir := t.TempDir()
	writeCertificate(t, dir)
	if err := os.Mkdir(dir+"/vol", 0o700); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), memoryServer+"="+dir+"/vol")
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer stdin.Close()
	said := bufio.NewScanner(stdout)
	line := func() string {
		t.Helper()
		if !said.Scan() {
			t.Fatalf("the server ended: %v", said.Err())
		}
		return said.Text()
	}
	addresses := [2]string{line(), line()}
	measure := func() (a, b float64) {
		t.Helper()
		io.WriteString(stdin, "\n")
		if _, err := fmt.Sscan(line(), &a, &b); err != nil {
			t.Fatal(err)
		}
		return a, b
	}
	open := func(i int) error {
		c, err := net.Dial("tcp", addresses[0])
		if secure {
			c, err = tls.Dial("tcp", addresses[1], &tls.Config{InsecureSkipVerify: true})
		}
		if err != nil {
			return err
		}
		t.Cleanup(func() { c.Close() })
		r := bufio.NewReaderSize(c, 512)
		user := "one"
		if own {
			user = fmt.Sprint("user", i)
		}
		if _, err := fmt.Fprintf(c, "a LOGIN %s secret\r\nb SELECT INBOX\r\nc IDLE\r\n", user); err != nil {
			return err
		}
		for {
			s, err := r.ReadString('\n')
			if err != nil {
				return err
			}
			if strings.HasPrefix(s, "+ ") {
				return nil
			}
		}
	}
	// One connection first, so that what is needed once is not counted.
	if err := open(n); err != nil {
		t.Fatal(err)
	}
	_, before := measure()
	var wg sync.WaitGroup
	errs := make(chan error, n)
	for w := range 8 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for i := w; i < n; i += 8 {
				if err := open(i); err != nil {
					errs <- err
					return
				}
			}
		}()
	}
	wg.Wait()
	close(errs)
	for err := range errs {
		t.Fatal(err)
	}
	a, b := measure()
	return (a - before) / float64(n), (b - before) / float64(n)
}

// A parked session has no goroutine and no buffers, idling or not, plain or TLS.
func TestParkedSessionsHoldNothing(t *testing.T) {
	r := newRig(t, nil)
	for i, dial := range []func() (net.Conn, error){r.dial, r.dial, r.dialTLS, r.dialTLS} {
		conn, err := dial()
		c := newClient(t, conn, err)
		c.expect("* OK")
		c.ok("LOGIN alice secret")
		c.ok("SELECT INBOX")
		if i%2 == 0 {
			c.send("x IDLE\r\n")
			c.expect("+ ")
		}
	}
	parked := func() (n int) {
		r.srv.mu.Lock()
		defer r.srv.mu.Unlock()
		for s := range r.srv.sessions {
			if s.events.Load() == 0 {
				n++
			}
		}
		return n
	}
	waitFor(t, "rest", func() bool { return parked() == 4 })
	r.srv.mu.Lock()
	defer r.srv.mu.Unlock()
	for s := range r.srv.sessions {
		if s.dec.Holds() || s.enc.Holds() || s.t.waiting {
			t.Errorf("a parked session holds a buffer or a goroutine")
		}
		s.events.Or(0) // so that the session's next run comes after this look at it, also for the race detector
	}
}
