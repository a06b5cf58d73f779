package hint

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"shoal/daemons/internal/mailstore"
)

func TestLinesRoundTrip(t *testing.T) {
	for _, ref := range []mailstore.Ref{
		{Volume: "vol01", Account: "abcdefgh", Mailbox: "box1.7q3k2.1"},
		{Volume: "vol01", Account: "abcdefgh", Mailbox: ""},
		{Volume: "v", Account: strings.Repeat("a", 64), Mailbox: strings.Repeat("b", 64)},
	} {
		line, ok := appendHint(nil, ref)
		if !ok || len(line) > maxLine {
			t.Errorf("%v: not written, or %d bytes", ref, len(line))
			continue
		}
		got, known, err := parseLine(bytes.TrimSuffix(line, []byte("\n")))
		if err != nil || !known || got != ref {
			t.Errorf("%q: %v %v %v", line, got, known, err)
		}
	}
	for _, ref := range []mailstore.Ref{
		{}, {Volume: "v", Account: "a b", Mailbox: "c"}, {Volume: "v\n", Account: "a", Mailbox: "c"}, {Volume: "v", Account: "a", Mailbox: "-"},
		{Volume: "v", Account: "a", Mailbox: "../x"}, {Volume: "v", Account: strings.Repeat("a", 65), Mailbox: "c"}, {Volume: "V", Account: "a", Mailbox: "c"},
	} {
		if line, ok := appendHint(nil, ref); ok || len(line) > 0 {
			t.Errorf("%v was written as %q", ref, line)
		}
	}
}

func TestParseLine(t *testing.T) {
	for line, want := range map[string]string{
		"m v a b":     "hint",
		"m v a -":     "hint",
		"z":           "skipped",
		"z whatever":  "skipped",
		"x \xff\x00":  "skipped",
		"":            "error",
		"m":           "error",
		"m v a":       "error",
		"m v a b c":   "error",
		"m v  a b":    "error",
		"m v a B":     "error",
		"m v a ../..": "error",
		"m v a b\r":   "error",
		"M v a b":     "error",
		"hello":       "error",
		" m v a b":    "error",
		"\x00":        "error",
	} {
		_, known, err := parseLine([]byte(line))
		got := "skipped"
		switch {
		case err != nil:
			got = "error"
		case known:
			got = "hint"
		}
		if got != want {
			t.Errorf("%q: %s, wanted %s", line, got, want)
		}
	}
	for line, ok := range map[string]bool{
		"shoal-hint 1.0": true, "shoal-hint 1.17": true, "shoal-hint 2.0": false, "shoal-hint 1": false, "shoal-hint 0.9": false,
		"shoal-hint 1.x": false, "shoal-hint -1.0": false, "SSH-2.0": false, "": false,
	} {
		if err := parseGreeting([]byte(line)); (err == nil) != ok {
			t.Errorf("greeting %q: %v", line, err)
		}
	}
}

func FuzzParseLine(f *testing.F) {
	for _, s := range []string{"m vol01 abcdefgh box1.7q3k2.1", "m v a -", "z later version", "m", "M v a b", "shoal-hint 1.0", "e text", "m v a \xc3\xbc", strings.Repeat("m ", 100)} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		_ = parseGreeting(line)
		ref, known, err := parseLine(line)
		if err != nil || !known {
			if ref != (mailstore.Ref{}) {
				t.Errorf("%q: %v beside %v", line, ref, err)
			}
			return
		}
		out, ok := appendHint(nil, ref)
		if !ok || string(out) != string(line)+"\n" {
			t.Errorf("%q: written back as %q", line, out)
		}
	})
}

func TestBucket(t *testing.T) {
	b := newBucket(100, 0)
	if n := b.take(1000, 0); n != 200 {
		t.Errorf("%d at once", n)
	}
	if n := b.take(1, 0); n != 0 {
		t.Errorf("%d from the empty bucket", n)
	}
	if n := b.take(1000, time.Second); n != 100 {
		t.Errorf("%d after a second", n)
	}
	if n := b.take(1000, time.Hour); n != 200 {
		t.Errorf("%d after an hour", n)
	}
}
