package imapsession

import (
	"bufio"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// ask sends one command and gives all of its response; literals are in it as they came.
func ask(t *testing.T, c net.Conn, r *bufio.Reader, tag, command string) string {
	t.Helper()
	if _, err := io.WriteString(c, tag+" "+command+"\r\n"); err != nil {
		t.Fatal(err)
	}
	literal := regexp.MustCompile(`\{(\d+)\}\r\n$`)
	var b strings.Builder
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			t.Fatalf("%s: %v after %q", command, err, b.String())
		}
		b.WriteString(line)
		if m := literal.FindStringSubmatch(line); m != nil {
			n, _ := strconv.ParseInt(m[1], 10, 64)
			if _, err := io.CopyN(&b, r, n); err != nil {
				t.Fatal(err)
			}
		}
		if strings.HasPrefix(line, tag+" ") {
			return b.String()
		}
	}
}

// A message that came as BINARYMIME has its bytes in BINARY, and is text without NUL in everything else, with structure, sizes and
// sections that fit together; searches and previews see what is in it.
func TestBinaryMessage(t *testing.T) {
	rig := newRig(t, nil)
	blob := "\x00PNG\n\r\xff" + strings.Repeat("\x00\x01", 200<<10) // more than is read at once
	small, large := "\x00needle\n", blob
	message := func(blob string) string {
		return "Subject: bin\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=x\r\nContent-Transfer-Encoding: binary\r\n\r\n" +
			"--x\r\nContent-Type: text/plain\r\n\r\nplain\r\n--x\r\nContent-Type: text/x-blob\r\nContent-Transfer-Encoding: binary\r\n\r\n" + blob + "\r\n--x--\r\n"
	}
	rig.deliver("alice", "INBOX", message(small), message(large), "Subject: nul\r\n\r\na\x00b\r\n")
	c, err := rig.dial()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	r := bufio.NewReader(c)
	if _, err := r.ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	ask(t, c, r, "a", "LOGIN alice secret")
	ask(t, c, r, "b", "SELECT INBOX")
	for range 2 { // the second time, what is kept of it would show
		for i, blob := range []string{small, large} {
			n := strconv.Itoa(i + 1)
			got := ask(t, c, r, "c", "FETCH "+n+" (BINARY.PEEK[2] BINARY.SIZE[2])")
			if want := fmt.Sprintf("* %s FETCH (BINARY[2] ~{%d}\r\n%s BINARY.SIZE[2] %d)\r\n", n, len(blob), blob, len(blob)); !strings.HasPrefix(got, want) {
				t.Errorf("BINARY[2] of %s is %.300q", n, got)
			}
			if got := ask(t, c, r, "d", "FETCH "+n+" BINARY.PEEK[2]<3.5>"); !strings.Contains(got, "BINARY[2]<3> ~{"+strconv.Itoa(len(blob[3:min(8, len(blob))]))+"}\r\n"+blob[3:min(8, len(blob))]) {
				t.Errorf("a part of BINARY[2] of %s is %q", n, got)
			}
			all := ask(t, c, r, "e", "FETCH "+n+" (BODY.PEEK[] BODYSTRUCTURE BODY.PEEK[2] BODY.PEEK[2.MIME] BODY.PEEK[HEADER] ENVELOPE PREVIEW)")
			if strings.IndexByte(all, 0) >= 0 {
				t.Errorf("NUL in the text of %s", n)
			}
			section := func(name string) string {
				m := regexp.MustCompile(regexp.QuoteMeta(name) + ` \{(\d+)\}\r\n`).FindStringSubmatchIndex(all)
				if m == nil {
					t.Fatalf("no %s in %.2000q", name, all)
				}
				size, _ := strconv.Atoi(all[m[2]:m[3]])
				return all[m[1]:][:size]
			}
			body := section("BODY[2]")
			if out, err := base64.StdEncoding.DecodeString(strings.ReplaceAll(body, "\r\n", "")); err != nil || string(out) != blob {
				t.Errorf("BODY[2] of %s decodes to %.100q, %v", n, out, err)
			}
			whole := section("BODY[]")
			if !strings.HasPrefix(whole, section("BODY[HEADER]")) || !strings.Contains(whole, section("BODY[2.MIME]")+body+"\r\n--x--") {
				t.Errorf("BODY[] of %s does not have its sections: %.600q", n, whole)
			}
			if want := fmt.Sprintf(`("text" "x-blob" NIL NIL NIL "base64" %d %d`, len(body), strings.Count(body, "\n")); !strings.Contains(all, want) || strings.Contains(all, `"binary"`) {
				t.Errorf("the structure of %s has no %s: %.2000q", n, want, all)
			}
		}
		if got := ask(t, c, r, "f", "FETCH 3 (BODY.PEEK[TEXT] BINARY.PEEK[1])"); !strings.Contains(got, "BODY[TEXT] {10}\r\nYQBiDQo=\r\n") || !strings.Contains(got, "BINARY[1] ~{5}\r\na\x00b\r\n") {
			t.Errorf("NUL that was not announced: %q", got)
		}
		if got := ask(t, c, r, "g", "SEARCH BODY needle"); !strings.Contains(got, "* SEARCH 1\r\n") {
			t.Errorf("a search in it gives %q", got)
		}
	}
}
