package imapsession

import (
	"bytes"
	"compress/flate"
	"io"
	"net"
	"regexp"
	"testing"
	"time"
)

var sessionSeeds = []string{
	"a NOOP\r\nb CAPABILITY\r\nc LOGOUT\r\n",
	"a LOGIN {5+}\r\nalice \"secret\"\r\nb SELECT INBOX\r\nc FETCH 1:* (FLAGS BODY[] ENVELOPE BODYSTRUCTURE)\r\n",
	"a AUTHENTICATE PLAIN AGFsaWNlAHNlY3JldA==\r\nb LIST \"\" *\r\n",
	"a LIST (SUBSCRIBED RECURSIVEMATCH) \"\" (% */b) RETURN (STATUS (MESSAGES SIZE))\r\n",
	"a CREATE x/y (USE (\\Sent))\r\nb RENAME x z\r\nc DELETE z/y\r\n",
	"a APPEND INBOX (\\Seen k) \" 1-Feb-2020 10:00:00 +0000\" {5+}\r\nabcde {3+}\r\nxyz\r\n",
	"a SELECT INBOX (QRESYNC (1 2 1:5 (1:2 1:2)))\r\nb ENABLE QRESYNC IMAP4rev2\r\nc SELECT INBOX (QRESYNC (1 2))\r\n",
	"a STORE 1,2 (UNCHANGEDSINCE 5) +FLAGS.SILENT (\\Deleted kw)\r\nb EXPUNGE\r\nc UID EXPUNGE 1:*\r\n",
	"a SEARCH RETURN (SAVE MIN COUNT) OR BODY \"x\" NOT (SINCE 1-Jan-2020 MODSEQ 3)\r\nb UID FETCH $ (BINARY[1]<0.5> BODY.PEEK[HEADER.FIELDS (A B)])\r\n",
	"a SORT (REVERSE SUBJECT DATE DISPLAYFROM) UTF-8 ALL\r\nb UID SORT RETURN (ALL SAVE COUNT) (CC TO SIZE ARRIVAL) US-ASCII $\r\nc THREAD REFERENCES UTF-8 TEXT two\r\nd UID THREAD ORDEREDSUBJECT UTF-8 1:*\r\n",
	"a COPY 1:* INBOX\r\nb UID MOVE 1,3 Other\r\nc UID FETCH 1:* (UID MODSEQ) (CHANGEDSINCE 1 VANISHED)\r\n",
	"a NOTIFY SET STATUS (selected (MessageNew (UID BODY[]) MessageExpunge FlagChange)) (personal (MailboxName MessageNew MessageExpunge))\r\nb APPEND INBOX {4+}\r\na: b\r\nc CREATE Noted\r\nd NOTIFY NONE\r\n",
	"a APPEND INBOX CATENATE (TEXT {3+}\r\nA:b URL /INBOX/;UID=1/;SECTION=1/;PARTIAL=0.3 URL \"INBOX;UIDVALIDITY=1/;UID=2\")\r\n",
	"a GENURLAUTH imap://alice@h/INBOX/;UID=1;URLAUTH=anonymous INTERNAL\r\nb URLFETCH (imap://alice@h/INBOX/;UID=1;URLAUTH=anonymous:internal:01 BINARY BODYPARTSTRUCTURE) x\r\nc RESETKEY INBOX\r\n",
	"a SETACL INBOX bob +lrs\r\nb GETACL INBOX\r\nc LISTRIGHTS INBOX $team\r\nd MYRIGHTS \"Other Users/bob\"\r\ne SELECT \"Other Users/bob\"\r\nf DELETEACL INBOX -bob\r\n",
	"a SETMETADATA INBOX (/private/comment {3+}\r\nabc /shared/comment NIL)\r\nb GETMETADATA (DEPTH infinity MAXSIZE 2) \"\" (/private /shared)\r\nc LIST \"\" * RETURN (MYRIGHTS METADATA (/private/comment))\r\nd ENABLE METADATA\r\n",
	"a IDLE\r\nDONE\r\nb IDLE\r\nrubbish\r\n",
	"a FETCH 1 (BODY[1.2.3.MIME]<1.2> BINARY.SIZE[1] RFC822.TEXT PREVIEW (LAZY))\r\n",
	"a STATUS INBOX (MESSAGES UNSEEN HIGHESTMODSEQ MAILBOXID)\r\n{5}\r\n\x00\r\r\n",
}

// A response is a line that begins with "*", "+" or a tag.
var reResponse = regexp.MustCompile(`^(\*|\+|[!-~]{1,128}) `)

// FuzzSession sends whatever comes to a session in each state. No session may end by a panic, what it
// answers must be made of responses, and no answer may hold another user's mail.
func FuzzSession(f *testing.F) {
	for i, s := range sessionSeeds {
		f.Add([]byte(s), uint8(i))
	}
	f.Add([]byte(sessionSeeds[9]), uint8(31))
	f.Add([]byte("\x4b\x54\xf0\xf3\xf7\x0f\xe0\xe5\x02\x00"), uint8(8))
	r := newRig(f, func(o *Options) {
		o.Limits.ReadTimeout = 5 * time.Second
		o.Limits.AppendLimit = 4096
		o.Limits.BadCommands = 1000
	})
	r.deliver("alice", "INBOX", sample, "Subject: two\r\n\r\nbody\r\n", "no header")
	r.deliver("bob", "INBOX", "Subject: not for alice's eyes\r\n\r\nTopSecret\r\n")
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
		prefix := ""
		if state&3 > 0 {
			prefix = "p1 LOGIN alice secret\r\n"
		}
		if state&3 > 1 {
			prefix += "p2 SELECT INBOX\r\n"
		}
		if state&3 > 2 {
			prefix += "p3 IDLE\r\n"
		}
		if state&4 != 0 && state&3 > 0 {
			prefix += "p0 ENABLE IMAP4rev2 QRESYNC\r\n"
		}
		send := append([]byte(prefix), in...)
		var out []byte
		if state&8 != 0 { // compressed, well or not
			out = beginCompression(t, conn)
			if send = in; state&16 != 0 {
				var b bytes.Buffer
				w, _ := flate.NewWriter(&b, 6)
				w.Write(append([]byte(prefix), in...))
				w.Flush()
				send = b.Bytes()
			}
		}
		go func() {
			conn.Write(send)
			conn.(*net.TCPConn).CloseWrite()
		}()
		more, err := io.ReadAll(conn)
		if state&8 != 0 {
			var corrupt error
			if more, corrupt = io.ReadAll(flate.NewReader(bytes.NewReader(more))); corrupt != nil && corrupt != io.ErrUnexpectedEOF {
				t.Fatalf("what the server sent is no stream: %v", corrupt)
			}
		} else if at := bytes.Index(more, []byte("OK DEFLATE active\r\n")); at >= 0 {
			more = more[:at]
		}
		out = append(out, more...)
		if err != nil && !isReset(err) {
			t.Fatalf("no end of the session: %v", err)
		}
		if bytes.Contains(out, []byte("TopSecret")) && !bytes.Contains(in, []byte("TopSecret")) && !bytes.Contains(in, []byte("bob")) {
			t.Fatalf("alice reads bob's mail: %q", out)
		}
		checkResponses(t, out)
		if n := r.value("shoal_imap_panics_total"); n != 0 {
			t.Fatal("a session ended by a bug")
		}
	})
}

// beginCompression logs in and begins compression; it returns what the server said before.
func beginCompression(t *testing.T, conn net.Conn) []byte {
	if _, err := io.WriteString(conn, "l1 LOGIN alice secret\r\n"); err != nil {
		t.Fatal(err)
	}
	var said []byte
	read := func(end string) {
		for b := make([]byte, 1); !bytes.Contains(said, []byte(end)) || !bytes.HasSuffix(said, []byte("\r\n")); {
			if _, err := io.ReadFull(conn, b); err != nil {
				t.Fatalf("%v after %q", err, said)
			}
			said = append(said, b...)
		}
	}
	read("\r\nl1 OK")
	if _, err := io.WriteString(conn, "l2 COMPRESS DEFLATE\r\n"); err != nil {
		t.Fatal(err)
	}
	read("l2 OK DEFLATE active")
	return said
}

var reLiteral = regexp.MustCompile(`\{(\d+)\}$`)

// checkResponses walks over what a server sent: lines, some of which go on behind a literal.
func checkResponses(t *testing.T, out []byte) {
	for begin := true; len(out) > 0; {
		end := bytes.Index(out, []byte("\r\n"))
		if end < 0 {
			return // the connection was reset inside a line
		}
		line := out[:end]
		if begin && !reResponse.Match(line) {
			t.Fatalf("not a response: %q", line)
		}
		out = out[end+2:]
		begin = true
		if m := reLiteral.FindSubmatch(line); m != nil && line[0] != '+' {
			n := 0
			for _, c := range m[1] {
				n = n*10 + int(c-'0')
			}
			if n > len(out) {
				return
			}
			out, begin = out[n:], false
		}
	}
}
