package smtpguard

import (
	"bufio"
	"io"
	"strings"
	"testing"
)

// lines reads replies.
type lines struct{ r *bufio.Reader }

func newLines(r io.Reader) *lines { return &lines{bufio.NewReader(r)} }

// next reads one reply of any number of lines and returns its last line without CRLF.
func (l *lines) next() (string, error) {
	for {
		line, err := l.r.ReadString('\n')
		if err != nil {
			return "", err
		}
		line = strings.TrimRight(line, "\r\n")
		if len(line) < 4 || line[3] != '-' {
			return line, nil
		}
	}
}

func (l *lines) expect(t testing.TB, code string) {
	t.Helper()
	line, err := l.next()
	if err != nil || !strings.HasPrefix(line, code+" ") {
		t.Fatalf("got %q, %v; want %s", line, err, code)
	}
}

func (l *lines) eof(t testing.TB) {
	t.Helper()
	if line, err := l.next(); err == nil {
		t.Fatalf("got %q; want the end", line)
	}
}
