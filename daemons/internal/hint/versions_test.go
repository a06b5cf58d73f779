package hint

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"shoal/daemons/internal/clock"
	"shoal/daemons/internal/pki"
)

// oldPeer is a box of version 1.0 of the protocol, which knew hints only: it skips lines that begin with another
// lower-case letter, and ends the connection at everything else. It gives the hints that it took, and why it ended.
func oldPeer(t *testing.T, creds *pki.Credentials, hints chan<- string) string {
	t.Helper()
	l, err := tls.Listen("tcp", "127.0.0.1:0", creds.ServerTLS(pki.RoleBox))
	must(t, err)
	t.Cleanup(func() { l.Close() })
	talk := func(conn net.Conn) error {
		defer conn.Close()
		if _, err := conn.Write([]byte("shoal-hint 1.0\n")); err != nil {
			return err
		}
		lines := bufio.NewScanner(conn)
		if !lines.Scan() || !strings.HasPrefix(lines.Text(), "shoal-hint 1.") {
			return fmt.Errorf("greeting %q", lines.Text())
		}
		for lines.Scan() {
			line := lines.Text()
			fields := strings.Split(line, " ")
			switch {
			case len(line) > 255 || len(fields[0]) != 1 || line[0] < 'a' || line[0] > 'z':
				return fmt.Errorf("bad line %q", line)
			case line[0] == 'm' && len(fields) == 4:
				hints <- line
			case line[0] == 'm':
				return fmt.Errorf("bad hint %q", line)
			}
		}
		return lines.Err()
	}
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			if err := talk(conn); err != nil {
				hints <- err.Error()
			}
		}
	}()
	return l.Addr().String()
}

// While a fleet is being updated, a box of today tells one of yesterday what that one understands; the reports of
// logins, which came with 1.1, do not end the connection.
func TestPeerOfVersion10(t *testing.T) {
	c := newCreds(t)
	hints := make(chan string, 10)
	addr := oldPeer(t, c.of("box", "box2"), hints)
	s := sender(t, c.of("box", "box1"), &directory{boxes: map[string]string{"box2": addr}}, clock.NewFake(time.Unix(1e9, 0)), nil)
	s.Tell("0a1b", "2c3d", false)
	s.Notify(addr, ref(1))
	if got := <-hints; got != "m vol01 account1 box1.1.1" {
		t.Fatalf("the old box got %q", got)
	}
	s.Tell("0a1b", "-", true)
	s.Notify(addr, ref(2))
	if got := <-hints; got != "m vol01 account1 box1.1.2" {
		t.Fatalf("the old box got %q", got)
	}
}
