package smtpsession

import (
	"bytes"
	"io"
	"testing"
	"time"

	"shoal/daemons/internal/clock"
	"shoal/daemons/internal/deliver"
)

func TestTraces(t *testing.T) {
	now := time.Date(2026, 11, 23, 12, 0, 0, int(7*time.Millisecond), time.UTC)
	fake := clock.NewFake(now)
	a, b := NewTraces("switch1", fake), NewTraces("switch2", fake)
	seen := map[string]bool{}
	for range 10000 {
		for _, s := range []*Traces{a, b} {
			id := s.Next()
			if seen[id] || len(id) > 26 {
				t.Fatalf("id %q", id)
			}
			seen[id] = true
		}
	}
	id := a.Next()
	if when, ok := TraceTime(id); !ok || !when.Equal(now) {
		t.Errorf("time of %q is %v", id, when)
	}
	fake.Advance(time.Second)
	if later := a.Next(); later <= id {
		t.Errorf("%q does not sort after %q", later, id)
	}
	for _, bad := range []string{"", "x", "zzzzzzzzzzzzzzzzzzzzz", id + "0"} {
		if _, ok := TraceTime(bad); ok {
			t.Errorf("%q is taken for an id", bad)
		}
	}
}

func TestNewChecks(t *testing.T) {
	good := Options{Hostname: "h", Listener: "smtp", Router: router{}, Transport: &deliver.Transport{}, Traces: NewTraces("s", clock.System()), Limits: testLimits()}
	for name, change := range map[string]func(*Options){
		"hostname": func(o *Options) { o.Hostname = "" }, "router": func(o *Options) { o.Router = nil },
		"limits": func(o *Options) { o.Limits = Limits{} }, "auth": func(o *Options) { o.Submission = true },
	} {
		o := good
		change(&o)
		if _, err := New(o); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// FuzzHeader: any header section, in any pieces: the octets stay, and the end is where the empty line is.
func FuzzHeader(f *testing.F) {
	for _, s := range []string{"Subject: x\r\n\r\nbody", "Received: from x by mx;\n\nbody", "no header", "From a\r\nX: y\r\n z\r\n\r\n", "A:\r\n", ": x\r\n", "\r\n", "A: b\r\nbody"} {
		f.Add([]byte(s), uint8(3))
	}
	f.Fuzz(func(t *testing.T, text []byte, piece uint8) {
		r := &pieces{text, int(piece) + 1}
		raw, end, ok, err := readHeader(r, 1<<20)
		if err != nil || !ok {
			t.Fatalf("%q: %v, %v", text, ok, err)
		}
		if end > len(raw) || string(raw)+string(r.b) != string(text) {
			t.Fatalf("%q: octets were lost", text)
		}
		if end > 0 && end < len(text) && text[end-1] != '\n' {
			t.Fatalf("%q: ends in the middle of a line", text)
		}
		whole, wend, _, _ := readHeader(bytes.NewReader(text), 1<<20)
		if wend != end || !bytes.HasPrefix(text, whole) {
			t.Fatalf("%q: ends at %d or %d", text, end, wend)
		}
		var h header
		h.scan(raw[:end], "mx", nil)
	})
}

type pieces struct {
	b []byte
	n int
}

func (p *pieces) Read(b []byte) (int, error) {
	if len(p.b) == 0 {
		return 0, io.EOF
	}
	n := copy(b, p.b[:min(p.n, len(p.b))])
	p.b = p.b[n:]
	return n, nil
}

func to(addresses []string) deliver.Settings {
	s := deliver.DefaultSettings()
	s.Addresses = addresses
	return s
}
