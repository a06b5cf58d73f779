package migrate

import (
	"context"
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

// A mark finds again what became of each message, as long as it remembers.
func TestMark(t *testing.T) {
	var m mark
	for _, uid := range []uint32{1, 2, 5, 9} { // kept, with holes
		m.add(uid, uid)
	}
	if len(m.Runs) != 1 || m.here(5) != 5 || m.here(10) != 0 {
		t.Errorf("kept: %v", m.Runs)
	}
	m.add(10, 12) // something came in between here
	m.add(11, 13)
	m.add(20, 14) // a hole there, none here
	if m.here(9) != 9 || m.here(10) != 12 || m.here(11) != 13 || m.here(20) != 14 || m.here(12) != 0 || m.here(19) != 0 {
		t.Errorf("shifted: %v", m.Runs)
	}
	for i := range uint32(2 * maxRuns) {
		m.add(100+2*i, 50+i)
	}
	if len(m.Runs) != maxRuns || m.here(1) != 0 || m.here(100+2*(2*maxRuns-1)) != 50+2*maxRuns-1 {
		t.Errorf("%d runs", len(m.Runs))
	}
}

func TestNameHere(t *testing.T) {
	for _, x := range []struct {
		name, prefix string
		delim        rune
		want         string
	}{
		{"INBOX", "", '.', "INBOX"}, {"inbox", "", '/', "INBOX"}, {"Lists.Go", "", '.', "Lists/Go"}, {"INBOX.Sent", "INBOX.", '.', "Sent"},
		{"INBOX.Sent", "", '.', "INBOX/Sent"}, {"inbox/x", "", '/', "INBOX/x"}, {"a/b.c", "", '.', "a_b/c"}, {"Grüße", "", 0, "Grüße"},
	} {
		if got := nameHere(x.name, x.prefix, x.delim); got != x.want {
			t.Errorf("%q (%q, %c): %q, want %q", x.name, x.prefix, x.delim, got, x.want)
		}
	}
}

// What an old server sends is bounded, however it is cut, and IMAP4rev2 is hidden until the login is over.
func TestGuarded(t *testing.T) {
	ours, theirs := net.Pipe()
	defer theirs.Close()
	g := &guarded{Conn: ours, timeout: 10 * time.Second, first: []byte("* OK\r\n")}
	defer g.Close()
	g.hide.Store(true)
	g.allow(40)
	go func() {
		for _, part := range []string{"IMAP4re", "v1 IIMAP4r", "ev2 x", strings.Repeat("y", 100)} {
			_, _ = io.WriteString(theirs, part)
		}
	}()
	var got []byte
	buf := make([]byte, 16)
	for {
		n, err := g.Read(buf)
		got = append(got, buf[:n]...)
		if err != nil {
			if !strings.Contains(err.Error(), "more than was asked for") {
				t.Error(err)
			}
			break
		}
	}
	if !strings.HasPrefix(string(got), "* OK\r\nIMAP4rev1 IIMAP4rev9 x") || len(got) > 6+40+16 {
		t.Errorf("%q", got)
	}
}

// STARTTLS takes no octet beyond the answer, and no server that refuses it.
func TestStartTLS(t *testing.T) {
	for script, ok := range map[string]bool{
		"* OK hello\r\n|* CAPABILITY x\r\ns OK go\r\n*injected": true,
		"* OK hello\r\n|s NO never\r\n":                         false,
		"* BYE full\r\n|":                                       false,
		strings.Repeat("x", 9000):                               false,
	} {
		ours, theirs := net.Pipe()
		_ = ours.SetDeadline(time.Now().Add(10 * time.Second))
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			defer cancel()
			defer theirs.Close()
			first, second, _ := strings.Cut(script, "|")
			_, _ = io.WriteString(theirs, first)
			if second != "" {
				buf := make([]byte, 64)
				_, _ = theirs.Read(buf)
				_, _ = io.WriteString(theirs, second)
			}
		}()
		err := startTLS(ours)
		if (err == nil) != ok {
			t.Errorf("%.60q: %v", script, err)
		}
		if ok {
			rest := make([]byte, 9)
			if _, err := io.ReadFull(ours, rest); err != nil || string(rest) != "*injected" {
				t.Errorf("read on: %q %v", rest, err)
			}
		}
		ours.Close()
		<-ctx.Done()
	}
}

func FuzzMark(f *testing.F) {
	f.Add(`{"v":1,"name":"INBOX","id":"x","uv":3,"hi":7,"ms":9,"r":[[1,7,1]]}`)
	f.Add(`{"v":2}`)
	f.Add(`{"r":[[9,1,4294967295]]}`)
	f.Fuzz(func(t *testing.T, text string) {
		m := &mark{}
		if decode(text, m, &m.Version) != nil {
			return
		}
		_ = m.here(5)
		m.add(6, 7)
		if len(m.Runs) == 0 {
			t.Error("nothing was added")
		}
	})
}
