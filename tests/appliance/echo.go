package appliance

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
)

// Echo is a server that says its name and then gives back what it gets; it takes a PROXY v2 header.
func Echo(t testing.TB, name, address string) {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				head := make([]byte, 16) // the fixed part, then as many bytes as it says
				if _, err := io.ReadFull(c, head); err != nil {
					return
				}
				if _, err := io.CopyN(io.Discard, c, int64(head[14])<<8|int64(head[15])); err != nil {
					return
				}
				fmt.Fprintf(c, "%s\n", name)
				_, _ = io.Copy(c, c)
			}()
		}
	}()
}

// Client is a connection to one of them.
type Client struct {
	net.Conn
	r    *bufio.Reader
	Name string
}

// Dial connects, through a balancer, and reads the name of whom it reached.
func Dial(t testing.TB, address string) *Client {
	t.Helper()
	c, err := TryDial(t, address)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TryDial is Dial where nobody may be there yet.
func TryDial(t testing.TB, address string) (*Client, error) {
	c, err := net.Dial("tcp", address)
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() { c.Close() })
	k := &Client{Conn: c, r: bufio.NewReader(c)}
	k.Name, err = k.r.ReadString('\n')
	k.Name = strings.TrimSpace(k.Name)
	return k, err
}

// Works shows that the connection still stands.
func (c *Client) Works(t testing.TB) {
	t.Helper()
	fmt.Fprintln(c, "hello")
	if line, err := c.r.ReadString('\n'); err != nil || line != "hello\n" {
		t.Fatalf("the connection to %s: %q %v", c.Name, line, err)
	}
}
