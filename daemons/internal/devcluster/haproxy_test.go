package devcluster

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"shoal/daemons/internal/pki"
)

func TestHAProxyTakesItsConfiguration(t *testing.T) {
	haproxy, err := findHAProxy()
	if err != nil {
		t.Fatal(err)
	}
	l := testLayout(t)
	if err := l.claim(); err != nil {
		t.Fatal(err)
	}
	if err := pki.WriteFile(l.haproxyConf(), []byte(l.haproxyConfig()), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := l.checkHAProxy(haproxy); err != nil {
		t.Error(err)
	}
}

func TestBalancerReadsStatistics(t *testing.T) {
	// Bound by a short name, reached by one that is longer than a socket's address may be.
	folder := filepath.Join(t.TempDir(), strings.Repeat("long", 30))
	if err := os.Mkdir(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	t.Chdir(folder)
	listener, err := net.Listen("unix", "s")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	go func() {
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			buf := make([]byte, 100)
			n, _ := c.Read(buf)
			if strings.HasPrefix(string(buf[:n]), "show stat") {
				c.Write([]byte("# pxname,svname,scur,status,check_status,addr,\nbe_imap,box1,3,UP,L7OK,127.0.0.1:21144,\nbe_imap,box2,0,DOWN,L4CON,127.0.0.1:22144,\n\n"))
			} else {
				c.Write([]byte("No such frontend.\n\n"))
			}
			c.Close()
		}
	}()
	b := Balancer{filepath.Join(folder, "s")}
	servers, err := b.Servers(t.Context())
	if err != nil || len(servers) != 2 {
		t.Fatalf("got %v, %v", servers, err)
	}
	if s := servers[0]; !s.Up() || s.Name != "box1" || s.Sessions != 3 || s.Check != "L7OK" {
		t.Errorf("box1: got %+v", s)
	}
	if servers[1].Up() {
		t.Errorf("box2: got up, want down: %+v", servers[1])
	}
	if err := b.disableFrontend(t.Context(), "nntp"); err == nil || !strings.Contains(err.Error(), "No such frontend") {
		t.Errorf("got %v, want HAProxy's refusal", err)
	}
}
