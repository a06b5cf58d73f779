package inflate

import (
	"bytes"
	"compress/flate"
	"errors"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
)

// inflate decodes in pieces: feed bytes of input, then outputs of room bytes until there is no more.
func inflate(in []byte, feed, room int, rest bool) ([]byte, error) {
	var z Reader
	var out []byte
	p := make([]byte, room)
	for {
		n, err := z.Decode(p)
		out = append(out, p[:n]...)
		switch {
		case err == ErrMore && len(in) > 0:
			if rest {
				z.Rest()
			}
			k := min(feed, len(in))
			z.Feed(in[:k])
			in = in[k:]
		case err == io.EOF:
			return out, nil
		case err != nil:
			return out, err
		case n == 0:
			return out, errors.New("neither output nor error")
		}
	}
}

func deflate(t testing.TB, level int, pieces ...string) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := flate.NewWriter(&b, level)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range pieces {
		io.WriteString(w, p)
		w.Flush()
	}
	w.Close()
	return b.Bytes()
}

func texts() []string {
	r := rand.New(rand.NewPCG(1, 1))
	noise := make([]byte, 100_000)
	for i := range noise {
		noise[i] = byte(r.Uint32())
	}
	var words strings.Builder
	for range 30_000 {
		words.WriteString([]string{"a", "FETCH ", "(FLAGS) ", "UID ", "\r\n", "BODY.PEEK[HEADER]", "1:*"}[r.IntN(7)])
	}
	return []string{"", "a", "a1 NOOP\r\n", strings.Repeat("x", 100_000), string(noise), words.String(), words.String() + string(noise[:5000]) + words.String()}
}

// Whatever the pieces of input and output are, the result is the same.
func TestPieces(t *testing.T) {
	for _, text := range texts() {
		for _, level := range []int{flate.HuffmanOnly, 0, 1, 6, 9} {
			in := deflate(t, level, text[:len(text)/3], "", text[len(text)/3:])
			for _, c := range []struct {
				feed, room int
				rest       bool
			}{{1 << 20, 1 << 20, false}, {1, 700, false}, {1000, 1, false}, {4096, 4096, true}, {1300, 40_000, true}} {
				out, err := inflate(in, c.feed, c.room, c.rest)
				if err != nil || string(out) != text {
					t.Fatalf("%d bytes, level %d, %+v: %d bytes, %v", len(text), level, c, len(out), err)
				}
			}
		}
	}
}

// Between pieces no more is kept than the stream may refer to.
func TestRest(t *testing.T) {
	var b bytes.Buffer
	w, _ := flate.NewWriter(&b, 6)
	var z Reader
	total := 0
	p := make([]byte, 4096)
	for round := range 60 {
		io.WriteString(w, strings.Repeat("0123456789abcdef", 200))
		w.Flush()
		z.Feed(b.Bytes())
		b.Reset()
		for {
			n, err := z.Decode(p)
			if total += n; err == ErrMore {
				break
			} else if err != nil {
				t.Fatal(err)
			}
		}
		z.Rest()
		if total != (round+1)*3200 || cap(z.hist) > min(total, window)+100 || cap(z.in) > 8 || z.codes != nil {
			t.Fatalf("after %d bytes it keeps %d of output and %d of input", total, cap(z.hist), cap(z.in))
		}
	}
}

func TestCorrupt(t *testing.T) {
	for name, in := range map[string]string{
		"a block of type 3": "\x07", "a length and no complement": "\x01\x01\x00\x00\x00x", "a distance before the beginning": "\x03\x02\x00", "a length that is none": "\x1b\x03",
		"noise": "\xff\xfe\xfd",
	} {
		if out, err := inflate([]byte(in), 1, 10, false); err != ErrCorrupt {
			t.Errorf("%s: %q, %v", name, out, err)
		}
	}
	if _, err := inflate(deflate(t, 6, "hello")[:4], 1, 10, false); err != ErrMore {
		t.Errorf("half of a stream: %v", err)
	}
}

// FuzzInflate compares with the standard library.
func FuzzInflate(f *testing.F) {
	for _, text := range texts()[:4] {
		f.Add(deflate(f, 6, text), uint8(3))
		f.Add(deflate(f, 0, text[:min(len(text), 50)]), uint8(1))
	}
	f.Add(deflate(f, 9, "a1 SELECT INBOX\r\n", "a2 FETCH 1:* (FLAGS)\r\n", "a3 FETCH 1:* (FLAGS UID)\r\n"), uint8(0))
	f.Fuzz(func(t *testing.T, in []byte, feed uint8) {
		const most = 1 << 20
		want, wantErr := io.ReadAll(io.LimitReader(flate.NewReader(bytes.NewReader(in)), most))
		if len(want) == most {
			return
		}
		got, err := inflate(in, int(feed)+1, 1+int(feed)*17, feed%2 == 0)
		if (err == nil) != (wantErr == nil) {
			t.Fatalf("%v after %d bytes, the library says %v after %d", err, len(got), wantErr, len(want))
		}
		if err == nil && !bytes.Equal(got, want) {
			t.Fatalf("%q, the library says %q", got, want)
		}
	})
}
