package mbox

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"testing"
	"testing/iotest"
	"time"
)

type read struct {
	offset  int64
	sender  string
	date    time.Time
	content string
}

func readAll(t testing.TB, r io.Reader, o Options) (all []read, format Format) {
	t.Helper()
	d := NewReader(r, o)
	for {
		m, err := d.Next()
		if err == io.EOF {
			return all, d.Format()
		}
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(m)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, read{m.Offset, m.Sender, m.Date, string(b)})
	}
}

func contents(all []read) (s []string) {
	for _, m := range all {
		s = append(s, m.content)
	}
	return s
}

const from = "From alice@example.test Mon Nov 23 13:40:04 2026\n"

func TestReader(t *testing.T) {
	git := "From 0123456789abcdef0123456789abcdef01234567 Mon Sep 17 00:00:00 2001\n"
	for _, c := range []struct {
		name, in string
		o        Options
		want     []string
		format   Format
	}{
		{"empty", "", Options{}, nil, Detect},
		{"blank", "\n\n", Options{}, nil, Detect},
		{"one", from + "A: b\n\nbody\n\n", Options{}, []string{"A: b\n\nbody\n"}, MboxRD},
		{"no blank line at the end", from + "A: b\n\nbody\n", Options{}, []string{"A: b\n\nbody\n"}, MboxRD},
		{"no line end at the end", from + "A: b\n\nbody", Options{}, []string{"A: b\n\nbody"}, MboxRD},
		{"blank lines before", "\n\n" + from + "x\n", Options{}, []string{"x\n"}, MboxRD},
		{"two", from + "1\n\n" + from + "2\n\n", Options{}, []string{"1\n", "2\n"}, MboxRD},
		{"blank lines of the message stay", from + "1\n\n\n\n" + from + "2\n\n\n", Options{}, []string{"1\n\n\n", "2\n\n"}, MboxRD},
		{"empty messages", from + "\n" + from + "\n" + from, Options{}, []string{"", "", ""}, MboxRD},
		{"crlf", strings.ReplaceAll(from+"1\n\n"+from+"2\n\n", "\n", "\r\n"), Options{}, []string{"1\r\n", "2\r\n"}, MboxRD},
		{"no blank line before", from + "1\n" + from + "2\n", Options{}, []string{"1\n" + from + "2\n"}, MboxRD},
		{"no blank line before, lenient", from + "1\n" + from + "2\n", Options{Lenient: true}, []string{"1\n", "2\n"}, MboxRD},
		{"text that is no from-line", from + "1\n\nFrom here on it is text, Mon Nov\n\n", Options{}, []string{"1\n\nFrom here on it is text, Mon Nov\n"}, MboxRD},
		{"mboxrd", from + ">From a\n>>From b\n>Fro\n>>>From\n", Options{}, []string{"From a\n>From b\n>Fro\n>>>From\n"}, MboxRD},
		{"mboxo", from + ">From a\n>>From b\n", Options{Format: MboxO}, []string{">From a\n>>From b\n"}, MboxO},
		{"git", git + "1\n\n" + from + ">From x\n\n" + git + "2\n\n", Options{}, []string{"1\n\n" + from + ">From x\n", "2\n\n"}, Git},
		{"git's line in another format", from + "1\n\n" + git + "2\n\n", Options{}, []string{"1\n", "2\n"}, MboxRD},
		{"content length ignored", from + "Content-Length: 60\n\n1\n\n" + from + "2\n", Options{}, []string{"Content-Length: 60\n\n1\n", "2\n"}, MboxRD},
		{"content length", from + "Content-Length: 54\n\n1\n\n" + from + "x\n\n" + from + "2\n", Options{ContentLength: true}, []string{"Content-Length: 54\n\n1\n\n" + from + "x\n", "2\n"}, MboxRD},
		{"content length up to the end", from + "Content-Length: 3\n\n1\n2", Options{ContentLength: true}, []string{"Content-Length: 3\n\n1\n2"}, MboxRD},
		{"content length that lies", from + "Content-Length: 56\n\n1\n\n" + from + "x\n\n" + from + "2\n", Options{ContentLength: true}, []string{"Content-Length: 56\n\n1\n", "x\n", "2\n"}, MboxRD},
		{"content length in the body", from + "A: b\n\nContent-Length: 5\n\n1\n\n" + from + "2\n", Options{ContentLength: true}, []string{"A: b\n\nContent-Length: 5\n\n1\n", "2\n"}, MboxRD},
	} {
		for cut, r := range map[string]io.Reader{
			"whole": strings.NewReader(c.in), "bytes": iotest.OneByteReader(strings.NewReader(c.in)), "data with error": iotest.DataErrReader(strings.NewReader(c.in)),
		} {
			if c.o.ContentLength && cut != "whole" {
				continue
			}
			all, format := readAll(t, r, c.o)
			if got := contents(all); fmt.Sprintf("%q", got) != fmt.Sprintf("%q", c.want) || format != c.format {
				t.Errorf("%s, %s:\n got %q %v\nwant %q %v", c.name, cut, got, format, c.want, c.format)
			}
		}
	}
}

func TestFromLine(t *testing.T) {
	for line, want := range map[string]string{
		"From a@b.test Mon Nov 23 13:40:04 2026":                   "a@b.test 2026-11-23T13:40:04Z",
		"From a@b.test Mon Nov  3 13:40:04 2026":                   "a@b.test 2026-11-03T13:40:04Z",
		"From a@b.test  Mon Nov 23 13:40 2026":                     "a@b.test 2026-11-23T13:40:00Z",
		"From a@b.test Mon Nov 23 13:40:04 CET 2026":               "a@b.test 2026-11-23T13:40:04Z",
		"From a@b.test Mon Nov 23 13:40:04 2026 +0100":             "a@b.test 2026-11-23T13:40:04+01:00",
		"From a@b.test Mon Nov 23 13:40:04 +0100 2026":             "a@b.test 2026-11-23T13:40:04+01:00",
		"From a@b.test Mon, 23 Nov 2026 13:40:04 -0500":            "a@b.test 2026-11-23T13:40:04-05:00",
		"From a@b.test Mon Nov 23 13:40:04 2026 remote from relay": "a@b.test 2026-11-23T13:40:04Z",
		"From \"a b\"@c.test Mon Nov 23 13:40:04 2026":             "\"a b\"@c.test 2026-11-23T13:40:04Z",
		"From Mon Nov 23 13:40:04 2026":                            " 2026-11-23T13:40:04Z",
		"From - Mon Nov 23 13:40:04 2026\r\n":                      "- 2026-11-23T13:40:04Z",
		"From a@b.test":                                            "a@b.test 0001-01-01T00:00:00Z",
		"From a@b.test Mon Nov 23 2026":                            "a@b.test 0001-01-01T00:00:00Z",
		"From a@b.test Mon Nov 32 13:40:04 2026":                   "a@b.test 0001-01-01T00:00:00Z",
		"From ":                                                    " 0001-01-01T00:00:00Z",
	} {
		f, ok := parseFromLine([]byte(line))
		if got := f.sender + " " + f.date.Format(time.RFC3339); !ok || got != want {
			t.Errorf("%q: %q, want %q", line, got, want)
		}
	}
	if _, ok := parseFromLine([]byte("From: a@b.test")); ok {
		t.Error("a field is taken for a from-line")
	}
}

// Every message's offset is where a second reader reads it and all after it.
func TestResume(t *testing.T) {
	file := from + "1\n\n" + from + ">From 2\n\n\n" + from + strings.Repeat("long line ", 20000) + "\n\n" + from + "4\n"
	all, _ := readAll(t, strings.NewReader(file), Options{})
	if len(all) != 4 {
		t.Fatalf("%d messages", len(all))
	}
	for i, m := range all {
		again, _ := readAll(t, strings.NewReader(file[m.offset:]), Options{Offset: m.offset})
		if fmt.Sprint(again) != fmt.Sprint(all[i:]) {
			t.Errorf("from %d: %d messages, want %d", m.offset, len(again), len(all[i:]))
		}
	}
}

func TestNextLeavesTheRestOut(t *testing.T) {
	r := NewReader(strings.NewReader(from+strings.Repeat("1\n\n", 50000)+from+"2\n"), Options{})
	first, err := r.Next()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(first, make([]byte, 7)); err != nil {
		t.Fatal(err)
	}
	second, err := r.Next()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := first.Read(make([]byte, 1)); err == nil || err == io.EOF {
		t.Errorf("read of a message that is past: %v", err)
	}
	if b, err := io.ReadAll(second); err != nil || string(b) != "2\n" {
		t.Errorf("%q, %v", b, err)
	}
	if _, err := r.Next(); err != io.EOF {
		t.Errorf("at the end: %v", err)
	}
}

func TestReaderErrors(t *testing.T) {
	if _, err := NewReader(strings.NewReader("Subject: x\n\nno mbox\n"), Options{}).Next(); !errors.Is(err, ErrNotMbox) {
		t.Errorf("no mbox: %v", err)
	}
	broken := errors.New("disk on fire")
	file := from + "1\n\n" + from + "2\n"
	for n := range len(file) {
		r := NewReader(io.MultiReader(strings.NewReader(file[:n]), iotest.ErrReader(broken)), Options{})
		var err error
		for err == nil {
			var m *Message
			if m, err = r.Next(); err == nil {
				_, err = io.Copy(io.Discard, m)
			}
		}
		if !errors.Is(err, broken) {
			t.Errorf("broken at %d: %v", n, err)
		}
	}
}

func randomMessage(rnd *rand.Rand) string {
	var b strings.Builder
	for range rnd.IntN(40) {
		b.WriteString([]string{"From x\n", ">From y\n", from, ">>" + from, "\n", "text\n", "text\r\n", "\r\n", strings.Repeat("z", rnd.IntN(2*readSize)) + "\n", ">\n", "From", "\r"}[rnd.IntN(12)])
	}
	return b.String()
}

// What Writer writes Reader reads: the same bytes, but for CRLF and for a line end at the end.
func TestWriterRoundTrip(t *testing.T) {
	rnd := rand.New(rand.NewPCG(7, 8))
	date := time.Date(2026, 11, 23, 13, 40, 4, 0, time.FixedZone("", 3600))
	for range 100 {
		var file bytes.Buffer
		w := NewWriter(&file)
		var want []string
		for range 1 + rnd.IntN(5) {
			m := randomMessage(rnd)
			if err := w.Write("a b@c.test", date, iotest.HalfReader(strings.NewReader(m))); err != nil {
				t.Fatal(err)
			}
			m = strings.ReplaceAll(m, "\r\n", "\n")
			if m != "" && !strings.HasSuffix(m, "\n") {
				m += "\n"
			}
			want = append(want, m)
		}
		all, format := readAll(t, &file, Options{})
		if fmt.Sprintf("%.300q", contents(all)) != fmt.Sprintf("%.300q", want) || format != MboxRD {
			t.Fatalf("%v\n got %.300q\nwant %.300q", format, contents(all), want)
		}
		if all[0].sender != "a-b@c.test" || !all[0].date.Equal(date) {
			t.Fatalf("%+v", all[0])
		}
	}
}

func TestWriterErrors(t *testing.T) {
	broken := errors.New("disk on fire")
	if err := NewWriter(io.Discard).Write("", time.Time{}, iotest.ErrReader(broken)); !errors.Is(err, broken) {
		t.Errorf("source: %v", err)
	}
	if err := NewWriter(failingWriter{broken}).Write("", time.Time{}, strings.NewReader("x")); !errors.Is(err, broken) {
		t.Errorf("sink: %v", err)
	}
}

type failingWriter struct{ err error }

func (f failingWriter) Write([]byte) (int, error) { return 0, f.err }

func TestCRLFReader(t *testing.T) {
	for in, want := range map[string]string{
		"":                                      "",
		"a\nb\n":                                "a\r\nb\r\n",
		"a\r\nb\n":                              "a\r\nb\r\n",
		"\n\n":                                  "\r\n\r\n",
		"a\rb\r\r\n\n":                          "a\rb\r\r\n\r\n",
		"a\r":                                   "a\r",
		strings.Repeat("x", 8<<10-1) + "\r\n\n": strings.Repeat("x", 8<<10-1) + "\r\n\r\n",
		strings.Repeat("\n", 20000):             strings.Repeat("\r\n", 20000),
	} {
		for _, r := range []io.Reader{
			CRLFReader(strings.NewReader(in)), CRLFReader(iotest.OneByteReader(strings.NewReader(in))),
			iotest.OneByteReader(CRLFReader(strings.NewReader(in))), CRLFReader(iotest.DataErrReader(strings.NewReader(in))),
		} {
			if got, err := io.ReadAll(r); err != nil || string(got) != want {
				t.Errorf("%.20q: %.40q, %v; want %.40q", in, got, err, want)
			}
		}
	}
}

// The real thing: git's own output, compared with the files that git writes for the same commits.
func TestGitFormatPatch(t *testing.T) {
	dir := t.TempDir()
	git := func(args ...string) []byte {
		t.Helper()
		cmd := exec.Command("git", append([]string{"-C", dir, "-c", "user.name=A", "-c", "user.email=a@example.test", "-c", "commit.gpgsign=false"}, args...)...)
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("git %v: %v", args, err)
		}
		return out
	}
	git("init", "-q")
	for i := range 20 {
		if err := os.WriteFile(dir+"/f", []byte(strings.Repeat("From here\n\nline\n", i+1)), 0o600); err != nil {
			t.Fatal(err)
		}
		git("add", "f")
		git("commit", "-q", "-m", fmt.Sprintf("commit %d\n\n%sFrom the body\n\n>From it\n", i, from))
	}
	all, format := readAll(t, bytes.NewReader(git("format-patch", "--stdout", "--root")), Options{})
	if format != Git || len(all) != 20 {
		t.Fatalf("%d messages, %v", len(all), format)
	}
	for i, name := range strings.Fields(string(git("format-patch", "-o", dir, "--root"))) {
		want, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		_, after, _ := bytes.Cut(want, []byte("\n"))
		if got := all[i].content; got != string(after) {
			t.Errorf("message %d:\n%q\n%q", i, got, after)
		}
	}
}

// FuzzReader: any bytes are read to the end, with offsets that ascend, and reading resumes at each.
func FuzzReader(f *testing.F) {
	for _, s := range []string{"", from, from + "1\n\n" + from + "2\n\n", from + ">From x\n\r\n" + from, "From 0123456789abcdef0123456789abcdef01234567 Mon Sep 17 00:00:00 2001\nx\n", from + "Content-Length: 3\n\n1\n2\n", "From \n\n\nFrom\n"} {
		f.Add([]byte(s), false, false)
		f.Add([]byte(s), true, true)
	}
	f.Fuzz(func(t *testing.T, file []byte, lenient, length bool) {
		o := Options{Lenient: lenient, ContentLength: length}
		var all []read
		total := 0
		r := NewReader(bytes.NewReader(file), o)
		for {
			m, err := r.Next()
			if err == io.EOF || errors.Is(err, ErrNotMbox) && all == nil {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			b, err := io.ReadAll(m)
			if err != nil {
				t.Fatal(err)
			}
			if len(all) > 0 && m.Offset <= all[len(all)-1].offset {
				t.Fatalf("offset %d after %d", m.Offset, all[len(all)-1].offset)
			}
			if !bytes.HasPrefix(file[m.Offset:], fromPrefix) {
				t.Fatalf("no from-line at %d", m.Offset)
			}
			all = append(all, read{m.Offset, m.Sender, m.Date, string(b)})
			total += len(b)
		}
		if total > len(file) {
			t.Fatalf("%d bytes out of %d", total, len(file))
		}
		if len(all) > 0 && r.Offset() != int64(len(file)) {
			t.Fatalf("read up to %d of %d", r.Offset(), len(file))
		}
		o.Format = r.Format()
		for i, m := range all {
			o.Offset = m.offset
			o.ContentLength = false
			if length {
				break // the fields are checked at offsets of the whole file
			}
			again, _ := readAll(t, bytes.NewReader(file[m.offset:]), o)
			if fmt.Sprint(again) != fmt.Sprint(all[i:]) {
				t.Fatalf("from %d: %+v, want %+v", m.offset, again, all[i:])
			}
		}
	})
}

func BenchmarkReader(b *testing.B) {
	file := []byte(strings.Repeat(from+strings.Repeat("a line of a message that says nothing at all\n", 100)+"\n", 1000))
	b.SetBytes(int64(len(file)))
	for b.Loop() {
		if all, _ := readAll(b, bytes.NewReader(file), Options{}); len(all) != 1000 {
			b.Fatal(len(all))
		}
	}
}
