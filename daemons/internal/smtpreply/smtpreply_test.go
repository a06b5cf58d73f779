package smtpreply

import (
	"bufio"
	"errors"
	"strings"
	"testing"
	"unicode/utf8"
)

func read(s string) (int, []string, error) {
	return Read(bufio.NewReaderSize(strings.NewReader(s), MaxLine))
}

func TestRead(t *testing.T) {
	code, lines, err := read("250-mx.example.test\r\n250-SIZE 1000\r\n250 8BITMIME\r\n")
	if err != nil || code != 250 || strings.Join(lines, "|") != "mx.example.test|SIZE 1000|8BITMIME" {
		t.Errorf("%d %q %v", code, lines, err)
	}
	for _, s := range []string{"25\r\n", "250_x\r\n", "abc x\r\n", "199 x\r\n", "600 x\r\n", "250-a\r\n251 b\r\n", "250 " + strings.Repeat("x", MaxLine) + "\r\n",
		strings.Repeat("250-x\r\n", maxLines) + "250 x\r\n"} {
		if _, _, err := read(s); !errors.Is(err, ErrMalformed) {
			t.Errorf("%.20q: %v", s, err)
		}
	}
}

func FuzzRead(f *testing.F) {
	for _, s := range []string{"250 ok\r\n", "250-a\r\n250 b\r\n", "421\r\n", "550 5.1.1 \xff\x00\r\n", "250-\n"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		code, lines, err := read(s)
		if err == nil && (code < 200 || code > 599 || len(lines) == 0 || len(lines) > maxLines) {
			t.Errorf("%q gave %d %q", s, code, lines)
		}
		for _, l := range lines {
			if c := Clean(l, 40); len(c) > 40 || !utf8.ValidString(c) || strings.ContainsAny(c, "\r\n\x00") {
				t.Errorf("%q is not clean", c)
			}
		}
	})
}
