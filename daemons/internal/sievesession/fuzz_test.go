package sievesession

import (
	"bytes"
	"io"
	"net"
	"os"
	"regexp"
	"testing"
	"time"
)

// fuzzPrefixes bring a session into each of its states: before the login, within AUTHENTICATE, logged in, with a script, within a literal,
// and logged out of the account again.
var fuzzPrefixes = []string{
	"",
	"AUTHENTICATE \"PLAIN\"\r\n",
	"AUTHENTICATE \"PLAIN\" \"AGFsaWNlAHNlY3JldCB3b3Jk\"\r\n",
	"AUTHENTICATE \"PLAIN\" \"AGFsaWNlAHNlY3JldCB3b3Jk\"\r\nPUTSCRIPT \"a\" \"keep;\"\r\nSETACTIVE \"a\"\r\n",
	"AUTHENTICATE \"PLAIN\" \"AGFsaWNlAHNlY3JldCB3b3Jk\"\r\nPUTSCRIPT \"b\" {20+}\r\n",
	"AUTHENTICATE \"PLAIN\" \"AGFsaWNlAHNlY3JldCB3b3Jk\"\r\nUNAUTHENTICATE\r\n",
}

var (
	fuzzCounted = regexp.MustCompile(`\{([0-9]+)\}\r\n`)
	fuzzLine    = regexp.MustCompile(`^(OK|NO|BYE|"|\{)`)
)

// FuzzSession: whatever a client sends in any state, each line of an answer is one of RFC 5804, the session ends when the client closes its
// side, and nothing panics (the rig looks at the metric).
func FuzzSession(f *testing.F) {
	for _, s := range []string{
		"NOOP \"x\"\r\nCAPABILITY\r\nLOGOUT\r\n", "LISTSCRIPTS\r\nGETSCRIPT \"a\"\r\nDELETESCRIPT \"a\"\r\n", "PUTSCRIPT \"x\" {5+}\r\nkeep;\r\nRENAMESCRIPT \"x\" \"y\"\r\n",
		"CHECKSCRIPT {9+}\r\nfilinto;;\r\n", "CHECKSCRIPT \"stop; keep;\"\r\n", "HAVESPACE \"x\" 99999999999999999999\r\n", "PUTSCRIPT \"x\" {99999999999+}\r\n", "PUTSCRIPT \"x\" {3}\r\nabc\r\n",
		"SETACTIVE \"\"\r\nUNAUTHENTICATE\r\nAUTHENTICATE \"LOGIN\"\r\n\"YWxpY2U=\"\r\n\"*\"\r\n", "AUTHENTICATE \"SCRAM-SHA-256\" {4+}\r\nbiws\r\n", "STARTTLS\r\n", "\"*\"\r\nNOOP\r\n", "{8+}\r\nAGFsaWNl\r\n",
		"\"\r\n", "A(\r\n\x00\xff\r\r\n\n", "PUTSCRIPT \"a/b\" \"\"\r\nPUTSCRIPT \"\" \"\"\r\nPUTSCRIPT \"\\\"\\\\\" \"keep;\"\r\nLISTSCRIPTS\r\n", "GETSCRIPT {1+}\r\na\r\n",
	} {
		for state := range uint8(len(fuzzPrefixes)) {
			f.Add([]byte(s), state)
		}
	}
	r := newRig(f, func(o *Options) { o.Limits.AllowPlain = true; o.Limits.ScriptSize = 1 << 10 })
	f.Fuzz(func(t *testing.T, in []byte, state uint8) {
		if len(in) > 1<<14 {
			return
		}
		conn, err := net.Dial("tcp", r.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(20 * time.Second))
		go func() {
			_, _ = conn.Write(append([]byte(fuzzPrefixes[int(state)%len(fuzzPrefixes)]), in...))
			_ = conn.(*net.TCPConn).CloseWrite()
		}()
		got, err := io.ReadAll(conn)
		if os.IsTimeout(err) {
			t.Fatalf("the session does not end: %q", got)
		}
		for len(got) > 0 {
			line, rest, whole := bytes.Cut(got, []byte("\r\n"))
			if !whole || !fuzzLine.Match(line) || bytes.ContainsAny(line, "\r\n\x00") {
				t.Fatalf("no answer: %q before %q", line, rest)
			}
			if m := fuzzCounted.FindSubmatchIndex(got[:len(line)+2]); m != nil { // what it counts, and what is left of the line
				n := 0
				for _, c := range got[m[2]:m[3]] {
					n = 10*n + int(c-'0')
				}
				if n > len(rest) {
					t.Fatalf("a literal of %d bytes, and %d are there", n, len(rest))
				}
				_, rest, _ = bytes.Cut(rest[n:], []byte("\r\n"))
			}
			got = rest
		}
	})
}
