package imapsession

import (
	"bufio"
	"bytes"
	"compress/flate"
	"fmt"
	"io"
	"net"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// squeezed is a client's connection after COMPRESS.
type squeezed struct {
	net.Conn
	w *flate.Writer
	r io.Reader
}

func (s *squeezed) Read(p []byte) (int, error) { return s.r.Read(p) }

func (s *squeezed) Write(p []byte) (int, error) {
	if _, err := s.w.Write(p); err != nil {
		return 0, err
	}
	return len(p), s.w.Flush()
}

// compress begins compression.
func (c *client) compress() {
	c.t.Helper()
	c.send("x COMPRESS DEFLATE\r\n")
	c.expect("x OK DEFLATE active")
	w, err := flate.NewWriter(c.Conn, 6)
	if err != nil {
		c.t.Fatal(err)
	}
	c.Conn = &squeezed{c.Conn, w, flate.NewReader(c.r)}
	c.r = bufio.NewReader(c.Conn)
}

// What is said with compression is what is said without, with TLS too: literals, commands sent ahead, IDLE.
func TestCompress(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	plain := r.connect("alice")
	if list := plain.whole("CAPABILITY"); !strings.Contains(list, " COMPRESS=DEFLATE") {
		t.Error(list)
	}
	conn, err := r.dialTLS()
	secure := newClient(t, conn, err)
	secure.expect("* OK")
	secure.ok("LOGIN alice secret")
	for _, c := range []*client{r.connect("alice"), secure} {
		c.compress()
		if list := c.whole("CAPABILITY"); strings.Contains(list, "COMPRESS") {
			t.Error(list)
		}
		if answer := c.whole("COMPRESS DEFLATE"); !strings.HasPrefix(answer, "z NO [COMPRESSIONACTIVE]") {
			t.Error(answer)
		}
		text := sample + strings.Repeat("0123456789 a line of a letter that is long\r\n", 20000)
		c.send(fmt.Sprintf("y APPEND INBOX {%d}\r\n", len(text)))
		c.expect("+")
		c.send(text + "\r\n")
		c.expect("y OK")
		for _, command := range []string{"SELECT INBOX", "FETCH 1:* (UID FLAGS ENVELOPE BODYSTRUCTURE BODY.PEEK[])", "SORT (DATE) UTF-8 ALL"} {
			want := plain.whole(command)
			if got := c.whole(command); got != want {
				t.Errorf("%s: %d bytes, without compression %d", command, len(got), len(want))
			}
		}
		c.send("a NOOP\r\nb NOOP\r\nc IDLE\r\n")
		c.expect("a OK")
		c.expect("b OK")
		c.expect("+")
		r.deliver("alice", "INBOX", "Subject: news\r\n\r\n")
		if line := c.expect("*"); !strings.HasSuffix(line, "EXISTS") {
			t.Error(line)
		}
		for range 200 { // each of them rests
			c.send("DONE\r\n")
			for !strings.HasPrefix(c.line(), "c OK") {
			}
			c.send("c IDLE\r\n")
			for !strings.HasPrefix(c.line(), "+") {
			}
		}
	}
}

// Input that is no DEFLATE, and input that would become endless, end the session.
func TestCompressedRubbish(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	if answer := r.connect("alice").whole("COMPRESS LZ4"); !strings.HasPrefix(answer, "z BAD") {
		t.Error(answer)
	}
	ahead := r.connect("alice")
	ahead.send("x COMPRESS DEFLATE\r\nb NOOP\r\n")
	ahead.expect("* BYE")
	var bomb bytes.Buffer
	w, err := flate.NewWriter(&bomb, 9)
	if err != nil {
		t.Fatal(err)
	}
	line := bytes.Repeat([]byte("x"), 1<<20)
	for range 64 {
		w.Write(line)
	}
	w.Flush()
	for name, in := range map[string][]byte{"no stream": []byte("a NOOP\r\n\xff\xff\xff\xff"), "a bomb": bomb.Bytes(), "the end of the stream": {3, 0}} {
		c := r.connect("alice")
		c.compress()
		raw := c.Conn.(*squeezed).Conn
		raw.SetDeadline(time.Now().Add(20 * time.Second))
		go func() {
			raw.Write(in)
			raw.(*net.TCPConn).CloseWrite()
		}()
		if _, err := io.ReadAll(raw); err != nil && !isReset(err) {
			t.Errorf("%s: no end of the session: %v", name, err)
		}
	}
}

// Python's imaplib over its zlib.
const pythonCompress = `
import imaplib, sys, zlib
class Compressed(imaplib.IMAP4):
    def begin(self):
        typ, data = self.xatom("COMPRESS", "DEFLATE")
        assert typ == "OK", data
        self.out, self.into, self.got = zlib.compressobj(9, zlib.DEFLATED, -15), zlib.decompressobj(-15), b""
    def send(self, data):
        if hasattr(self, "out"):
            data = self.out.compress(data) + self.out.flush(zlib.Z_SYNC_FLUSH)
        super().send(data)
    def more(self):
        if not hasattr(self, "out"):
            return False
        piece = self.sock.recv(65536)
        assert piece
        self.got += self.into.decompress(piece)
        return True
    def readline(self):
        if not hasattr(self, "out"):
            return super().readline()
        while b"\n" not in self.got:
            self.more()
        line, _, self.got = self.got.partition(b"\n")
        return line + b"\n"
    def read(self, size):
        if not hasattr(self, "out"):
            return super().read(size)
        while len(self.got) < size:
            self.more()
        data, self.got = self.got[:size], self.got[size:]
        return data
imaplib.Commands["COMPRESS"] = ("AUTH", "SELECTED")
m = Compressed("127.0.0.1", int(sys.argv[1]))
m.login("alice", "secret")
m.begin()
text = b"Subject: one\r\n\r\n" + b"0123456789abcdef line\r\n" * 30000
for n in range(5):
    assert m.append("INBOX", None, None, text + b"%d\r\n" % n)[0] == "OK"
assert m.select()[1] == [b"5"]
data = m.fetch("1:*", "(BODY.PEEK[])")[1]
assert [d[1] for d in data if isinstance(d, tuple)] == [text + b"%d\r\n" % n for n in range(5)]
for n in range(300):
    assert m.search(None, "SUBJECT", '"one"')[1] == [b"1 2 3 4 5"]
assert m.sort("(REVERSE ARRIVAL)", "UTF-8", "ALL")[0] == "OK"
assert m.logout()[0] == "BYE"
print("well")
`

func TestCompressWithPython(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	_, port, err := net.SplitHostPort(r.addr)
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), "python3", "-c", pythonCompress, port).CombinedOutput()
	if err != nil || string(out) != "well\n" {
		t.Errorf("%v\n%s", err, out)
	}
}
