package imapsession

import (
	"strings"
	"testing"
	"time"

	"shoal/tests/dialogue"
)

// With a limit of three messages for one command, commands are answered in part or refused as RFC 9738 says; without it MESSAGELIMIT
// is not announced.
func TestMessageLimit(t *testing.T) {
	r := newRig(t, func(o *Options) { o.Limits.MessageLimit = 3 })
	for range 5 {
		r.deliver("alice", "INBOX", "Subject: a\r\n\r\nx\r\n")
	}
	dialogue.Run(t, `
open 1 imap
S1: * OK {{.*}}
C1: a0 LOGIN alice secret
S1: a0 OK {{.* MESSAGELIMIT=3.*}}
C1: a1 SELECT INBOX
S1~: a1 OK {{.*}}
C1: b1 UID FETCH 1:* FLAGS
S1: * 3 FETCH (UID 3 FLAGS ())
S1: * 4 FETCH (UID 4 FLAGS ())
S1: * 5 FETCH (UID 5 FLAGS ())
S1: b1 OK [MESSAGELIMIT 3 3] {{.*}}
C1: b2 UID FETCH 1:2 FLAGS
S1: * 1 FETCH (UID 1 FLAGS ())
S1: * 2 FETCH (UID 2 FLAGS ())
S1: b2 OK UID FETCH completed
C1: b3 FETCH 1,3:5 UID (PARTIAL 1:2)
S1: * 1 FETCH (UID 1)
S1: * 3 FETCH (UID 3)
S1: b3 OK FETCH completed
C1: b4 FETCH 1:* UID (PARTIAL 1:4)
S1: b4 NO [MESSAGELIMIT 3] {{.*}}
C1: b5 FETCH 1,2,4:5 UID
S1: * 2 FETCH (UID 2)
S1: * 4 FETCH (UID 4)
S1: * 5 FETCH (UID 5)
S1: b5 OK [MESSAGELIMIT 3 2] {{.*}}
C1: c1 SEARCH SUBJECT a
S1: * SEARCH 3 4 5
S1: c1 OK [MESSAGELIMIT 3 3] {{.*}}
C1: c2 UID SEARCH UIDBEFORE 3 SUBJECT a
S1: * SEARCH 1 2
S1: c2 OK UID SEARCH completed
C1: c3 UID SEARCH UIDAFTER 3
S1: * SEARCH 4 5
S1: c3 OK UID SEARCH completed
C1: c4 UID SEARCH OR UIDAFTER 4294967295 UIDBEFORE 1
S1: * SEARCH
S1: c4 OK [MESSAGELIMIT 3 3] {{.*}}
C1: c5 UID SEARCH UIDAFTER 0
S1: c5 BAD {{.*}}
C1: c6 SORT (ARRIVAL) UTF-8 ALL
S1: c6 NO [MESSAGELIMIT 3] {{.*}}
C1: c7 SORT (ARRIVAL) UTF-8 1:3
S1: * SORT 1 2 3
S1: c7 OK {{.*}}
C1: c8 THREAD REFERENCES UTF-8 ALL
S1: c8 NO [MESSAGELIMIT 3] {{.*}}
C1: d1 STORE 1:* +FLAGS.SILENT (\Flagged)
S1: d1 OK [MESSAGELIMIT 3 3] {{.*}}
C1: d2 SEARCH FLAGGED
S1: * SEARCH 3 4 5
S1: d2 OK [MESSAGELIMIT 3 3] {{.*}}
C1: d3 CREATE Other
S1: d3 OK {{.*}}
C1: d4 COPY 1:* Other
S1: d4 NO [MESSAGELIMIT 3] {{.*}}
C1: d5 COPY 1:3 Other
S1: d5 OK [COPYUID {{.*}}
C1: d6 MOVE 1:* Other
S1: * OK [COPYUID {{\d+}} 3:5 4:6] Moved
S1: * 5 EXPUNGE
S1: * 4 EXPUNGE
S1: * 3 EXPUNGE
S1: d6 OK [MESSAGELIMIT 3 3] {{.*}}
C1: e1 SELECT Other
S1~: e1 OK {{.*}}
C1: e2 STORE 1:3 +FLAGS.SILENT (\Deleted)
S1: e2 OK {{.*}}
C1: e3 STORE 4:6 +FLAGS.SILENT (\Deleted)
S1: e3 OK {{.*}}
C1: e4 UID EXPUNGE 1:*
S1: * 6 EXPUNGE
S1: * 5 EXPUNGE
S1: * 4 EXPUNGE
S1: e4 OK [MESSAGELIMIT 3 4] {{.*}}
C1: e5 APPEND Other {3+}
C1!: a:b {3+}\r\na:b {3+}\r\na:b {3+}\r\na:b\r\n
S1: e5 NO [MESSAGELIMIT 3] {{.*}}
# a code of its own: said before
C1: f1 ENABLE QRESYNC
S1: * ENABLED QRESYNC
S1: f1 OK {{.*}}
C1: f2 APPEND Other (\Deleted) {3+}
C1!: a:b (\Deleted) {3+}\r\na:b\r\n
S1~: f2 OK {{.*}}
C1: f3 UID EXPUNGE 1:*
S1: * VANISHED 3,7:8
S1: * NO [MESSAGELIMIT 3 3] {{.*}}
S1: f3 OK [HIGHESTMODSEQ {{.*}}
`[1:], r.targets(), dialogue.Timeout(20*time.Second))
	if got := newRig(t, nil).connect("bob").ok("CAPABILITY"); len(got) != 1 || strings.Contains(got[0], "MESSAGELIMIT") {
		t.Error(got)
	}
}
