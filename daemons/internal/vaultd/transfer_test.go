package vaultd

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"shoal/daemons/internal/conf"
)

// A body that has more octets than the setting allows is refused, by its head or in the middle.
func TestIncomingIsBounded(t *testing.T) {
	said := make(chan string, 1)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		in := &incoming{from: r.Body, c: http.NewResponseController(w), limit: 4096, silence: time.Minute}
		n, err := io.Copy(io.Discard, in)
		if err == nil {
			said <- conf.Size(n).String()
			return
		}
		said <- err.Error()
	}))
	defer server.Close()
	for size, want := range map[int]string{4096: "4 KiB", 4097: "larger than 4 KiB: raise content in the block limits"} {
		res, err := http.Post(server.URL, "text/plain", bytes.NewReader(make([]byte, size)))
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if got := <-said; !strings.Contains(got, want) {
			t.Errorf("%d octets: %q, not %q", size, got, want)
		}
	}
}

// A client that stops in the middle, or that takes no answer, ends what it began.
func TestTransferEndsWithASilentClient(t *testing.T) {
	for _, h2 := range []bool{false, true} {
		reads, writes := make(chan error, 1), make(chan error, 1)
		server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			c := http.NewResponseController(w)
			if r.Method == http.MethodPut {
				_, err := io.Copy(io.Discard, &incoming{from: r.Body, c: c, limit: 1 << 30, silence: 50 * time.Millisecond})
				reads <- err
				return
			}
			out := &outgoing{w, c, 50 * time.Millisecond}
			var err error
			for b := make([]byte, 1<<20); err == nil; {
				_, err = out.Write(b)
			}
			writes <- err
		}))
		server.EnableHTTP2 = h2
		server.StartTLS()
		client := server.Client()
		body, hold := io.Pipe()
		go func() {
			_, _ = hold.Write([]byte("the beginning"))
		}()
		request, err := http.NewRequestWithContext(t.Context(), http.MethodPut, server.URL, body)
		if err != nil {
			t.Fatal(err)
		}
		answered := make(chan struct{})
		go func() {
			defer close(answered)
			if res, err := client.Do(request); err == nil {
				res.Body.Close()
			}
		}()
		if err := <-reads; err == nil || !strings.Contains(err.Error(), "nothing came for 50ms, after 13 octets") {
			t.Errorf("HTTP/2 %t: a body that stops: %v", h2, err)
		}
		hold.CloseWithError(os.ErrClosed)
		<-answered
		res, err := client.Get(server.URL)
		if err != nil {
			t.Fatal(err)
		}
		if res.ProtoMajor != map[bool]int{false: 1, true: 2}[h2] {
			t.Errorf("the answer has version %s", res.Proto)
		}
		if err := <-writes; err == nil {
			t.Errorf("HTTP/2 %t: an answer that nobody takes was written", h2)
		}
		res.Body.Close()
		client.CloseIdleConnections()
		server.Close()
	}
}

func TestRoomFor(t *testing.T) {
	dir := t.TempDir()
	if err := roomFor(dir, 0); err != nil {
		t.Error(err)
	}
	if err := roomFor(dir, 1<<62); err == nil || !strings.Contains(err.Error(), "MiB free") && !strings.Contains(err.Error(), "GiB free") {
		t.Errorf("room for 4 EiB: %v", err)
	}
	if err := roomFor(dir+"/missing", 1); err == nil {
		t.Error("a folder that is missing has room")
	}
}
