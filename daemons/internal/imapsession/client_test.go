package imapsession

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

// client is a connection for tests that cannot be told as a script.
type client struct {
	net.Conn
	t testing.TB
	r *bufio.Reader
	n int
}

func newClient(t testing.TB, c net.Conn, err error) *client {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return &client{Conn: c, t: t, r: bufio.NewReader(c)}
}

// connect opens a connection, reads the greeting and logs in.
func (r *rig) connect(user string) *client {
	r.t.Helper()
	conn, err := r.dial()
	c := newClient(r.t, conn, err)
	c.expect("* OK")
	c.ok("LOGIN " + user + " secret")
	return c
}

func (c *client) send(text string) {
	c.t.Helper()
	if _, err := io.WriteString(c, text); err != nil {
		c.t.Fatal(err)
	}
}

// line reads a line, within a bound that a working server does not come near.
func (c *client) line() string {
	c.t.Helper()
	c.SetReadDeadline(time.Now().Add(20 * time.Second))
	line, err := c.r.ReadString('\n')
	if err != nil {
		c.t.Fatalf("after %q: %v", line, err)
	}
	return strings.TrimSuffix(line, "\r\n")
}

// expect reads a line that must begin with prefix.
func (c *client) expect(prefix string) string {
	c.t.Helper()
	line := c.line()
	if !strings.HasPrefix(line, prefix) {
		c.t.Fatalf("got %q, want %q...", line, prefix)
	}
	return line
}

// do sends a command and returns the untagged lines and the tagged one.
func (c *client) do(command string) (untagged []string, tagged string) {
	c.t.Helper()
	c.n++
	tag := fmt.Sprintf("t%d", c.n)
	c.send(tag + " " + command + "\r\n")
	for {
		line := c.line()
		if rest, ok := strings.CutPrefix(line, tag+" "); ok {
			return untagged, rest
		}
		untagged = append(untagged, line)
	}
}

// ok is do for a command that must succeed.
func (c *client) ok(command string) []string {
	c.t.Helper()
	untagged, tagged := c.do(command)
	if !strings.HasPrefix(tagged, "OK") {
		c.t.Fatalf("%s: %s", command, tagged)
	}
	return untagged
}

// closed demands that the server closes the connection without another word.
func (c *client) closed() {
	c.t.Helper()
	c.SetReadDeadline(time.Now().Add(20 * time.Second))
	if rest, err := io.ReadAll(c.r); len(rest) > 0 || err != nil && !isReset(err) {
		c.t.Fatalf("got %q and %v, want the end of the connection", rest, err)
	}
}
