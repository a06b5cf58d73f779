package appliance

import (
	"net"
	"strings"
	"sync/atomic"
	"testing"
)

// deaf stands between a new server and the authority: it lets handshakes and requests through, and of the answer to whoever sends more than
// a question nothing. Connections are cut once the answer is there. It returns its address and how many answers it kept.
func deaf(t *testing.T, authority string) (string, *atomic.Int32) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	kept := new(atomic.Int32)
	relay := func(client net.Conn) {
		defer client.Close()
		server, err := net.Dial("tcp", authority)
		if err != nil {
			return
		}
		defer server.Close()
		var answered atomic.Bool // the server has spoken: what the client says from now on is no greeting
		var said atomic.Int32
		go func() {
			buf := make([]byte, 32<<10)
			for {
				n, err := client.Read(buf)
				if answered.Load() {
					said.Add(int32(n))
				}
				if n > 0 {
					if _, err := server.Write(buf[:n]); err != nil {
						return
					}
				}
				if err != nil {
					return
				}
			}
		}()
		buf := make([]byte, 32<<10)
		for {
			n, err := server.Read(buf)
			if n > 0 && said.Load() > 700 { // more than the end of a handshake and GET /v1/ca: a certificate request
				kept.Add(1)
				return
			}
			answered.Store(true)
			if _, failed := client.Write(buf[:n]); failed != nil || err != nil {
				return
			}
		}
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go relay(c)
		}
	}()
	return l.Addr().String(), kept
}

// The answer is lost after the token was spent. The same machine asks again and gets in, also at an authority that was started since; another
// machine with the same token does not.
func TestEnrolmentAnswerLost(t *testing.T) {
	r := New(t)
	url, sum := r.Authority(`answered_file = "answered.json"`)
	r.AddServer("box1", "box")
	token := r.token(t, "box1")
	address, kept := deaf(t, strings.TrimPrefix(url, "https://"))
	if out, code := r.enrol("https://"+address, sum, "box1", "box", token, "one"); code != 4 || !strings.Contains(out, "cannot be reached") {
		t.Fatalf("the answer is lost: exit code %d: %s", code, out)
	}
	if n := kept.Load(); n != 1 {
		t.Fatalf("%d answers were kept back, want 1", n)
	}
	if left := r.Shoalctl("token", "list", "box1"); strings.Contains(left, "box1") {
		t.Fatalf("the token is not spent: %s", left)
	}
	if out, code := r.enrol(url, sum, "box1", "box", token, "other"); code != 1 || !strings.Contains(out, "was used") {
		t.Errorf("another machine with the token: exit code %d: %s", code, out)
	}
	if text := r.Read("answered.json"); strings.Contains(text, token) || !strings.Contains(text, `"box1"`) {
		t.Errorf("what the authority remembers: %s", text)
	}
	url, sum = r.Authority(`answered_file = "answered.json"`)
	if out, code := r.enrol(url, sum, "box1", "box", token, "one"); code != 0 {
		t.Fatalf("the same machine again: exit code %d: %s", code, out)
	}
	if c := leaf(t, r, "one"); len(c.URIs) != 1 || c.URIs[0].String() != "shoal://box/box1" {
		t.Errorf("the certificate is of %v", c.URIs)
	}
	own, err := r.Directory(ServerDN("box1"), strings.TrimSpace(r.Read("one/directory.secret")))
	if err != nil {
		t.Fatalf("with the password of the second answer: %v", err)
	}
	_ = own.Close()
	if out, code := r.enrol(url, sum, "box1", "box", token, "other"); code != 1 || !strings.Contains(out, "was used") {
		t.Errorf("another machine with the token, afterwards: exit code %d: %s", code, out)
	}
}
