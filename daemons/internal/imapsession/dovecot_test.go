package imapsession

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// dovecot starts the imap process of Debian's Dovecot on an empty Maildir, logged in.
func dovecot(t *testing.T) *client {
	t.Helper()
	folder, err := os.MkdirTemp("", "shoal-dovecot-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(folder) })
	conf := filepath.Join(folder, "dovecot.conf")
	text := fmt.Sprintf("base_dir = %s/base\nlog_path = /dev/stderr\nprotocols = imap\nssl = no\nfirst_valid_uid = 1\nmail_location = maildir:%[1]s/Maildir\n", folder)
	argv := []string{"env", "USER=u", "HOME=" + folder, "/usr/lib/dovecot/imap", "-c", conf}
	if os.Geteuid() == 0 {
		const nobody = 65534
		text += fmt.Sprintf("mail_uid = %d\nmail_gid = %[1]d\n", nobody)
		argv = append([]string{"setpriv", fmt.Sprintf("--reuid=%d", nobody), fmt.Sprintf("--regid=%d", nobody), "--clear-groups"}, argv...)
		if err := os.Chown(folder, nobody, nobody); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(conf, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	pair, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	ours, theirs := os.NewFile(uintptr(pair[0]), "ours"), os.NewFile(uintptr(pair[1]), "theirs")
	defer ours.Close()
	defer theirs.Close()
	cmd := exec.CommandContext(t.Context(), argv[0], argv[1:]...)
	var said bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr, cmd.Dir = theirs, theirs, &said, folder
	conn, err := net.FileConn(ours)
	if err == nil {
		err = cmd.Start()
	}
	c := newClient(t, conn, err)
	t.Cleanup(func() {
		conn.Close()
		if err := cmd.Wait(); err != nil && t.Failed() {
			t.Logf("dovecot: %v\n%s", err, said.String())
		}
	})
	c.expect("* PREAUTH")
	return c
}

// oddMail are letters with what makes sorting and threading hard: subjects in all shapes, references that are broken,
// missing or go round in circles, dates that are none, the same identifier twice.
func oddMail(n int) (all []string) {
	r := rand.New(rand.NewPCG(7, 8))
	pick := func(list ...string) string { return list[r.IntN(len(list))] }
	id := func() string { return fmt.Sprintf("<%d.letter@example.org>", r.IntN(n*5/4)) }
	for i := range n {
		var b strings.Builder
		topic := pick("Budget", "budget", "Grüße", "=?utf-8?q?Gr=C3=BC=C3=9Fe?=", "=?iso-8859-1?q?Gr=FC=DFe?= aus", "Ärger", "zebra", "a  b\t c", "The plan [draft]",
			"[team] weekly", "[team]", "=?utf-8?b?5bGx55Sw?=", "Status", "x", "[a[b]] odd", "10% off", "\"quoted\"", "ÉCOLE", "école", fmt.Sprint("Topic ", r.IntN(20)))
		for range r.IntN(3) {
			topic = pick("Re: ", "RE:", "re : ", "Fwd: ", "FW: ", "Re[2]: ", "[list] Re: ", "[x] ", "Re: [y] ", "  ", "Aw: ") + topic
		}
		if r.IntN(8) == 0 {
			topic += pick(" (fwd)", "(FWD)", " (fwd) ", " [z]")
		}
		if r.IntN(15) == 0 {
			topic = "[Fwd: " + topic + "]"
		}
		person := func() string {
			return pick("Zoe <zoe@a.test>", "alice@b.test", "\"Bob, B.\" <BOB@c.test>", "=?utf-8?q?=C3=84nne?= <aenne@d.test>", "Ärne <arne@d.test>", "bob@a.test (Robert)",
				"Dave <\"d d\"@e.test>", "team: x@a.test, y@b.test;", "undisclosed-recipients:;", "carl", "<only@f.test>", "Eve Émile <eve@x.test>, z@z.test", fmt.Sprintf("P%d <p%d@x.test>", r.IntN(9), r.IntN(9)))
		}
		date := time.Date(2019, 12, 25+r.IntN(12), r.IntN(24), r.IntN(4), 0, 0, time.UTC)
		switch r.IntN(12) {
		case 0:
		case 1:
			fmt.Fprintf(&b, "Date: %s\r\n", pick("yesterday", "", "32 Foo 2020 10:00:00 +0000", "Mon, 1 Jan"))
		default:
			zone := time.FixedZone("", (r.IntN(26)-12)*3600)
			fmt.Fprintf(&b, "Date: %s\r\n", date.In(zone).Format(pick(time.RFC1123Z, "2 Jan 2006 15:04:05 -0700", "Mon, 2 Jan 2006 15:04 -0700", "Mon, 02 Jan 2006 15:04:05 -0700 (here)")))
		}
		for _, name := range []string{"From", "To", "Cc"} {
			if r.IntN(6) > 0 {
				fmt.Fprintf(&b, "%s: %s\r\n", name, person())
			}
		}
		if r.IntN(15) > 0 {
			fmt.Fprintf(&b, "Subject: %s\r\n", topic)
		}
		if r.IntN(12) > 0 {
			own := fmt.Sprintf("<%d.letter@example.org>", i)
			if r.IntN(25) == 0 {
				own = id()
			}
			fmt.Fprintf(&b, "Message-ID: %s\r\n", own)
		}
		if r.IntN(2) == 0 {
			var refs []string
			for range 1 + r.IntN(4) {
				refs = append(refs, id())
			}
			fmt.Fprintf(&b, "References: %s\r\n", strings.Join(refs, pick(" ", "\r\n ", "", "\t")))
		} else if r.IntN(3) == 0 {
			fmt.Fprintf(&b, "References: %s\r\n", pick("nothing useful", "", "<broken", "<no-at-sign>"))
		}
		if r.IntN(3) == 0 {
			fmt.Fprintf(&b, "In-Reply-To: %s\r\n", pick("", "Your letter ", "")+id()+pick("", " "+id()))
		}
		fmt.Fprintf(&b, "\r\n%s\r\n", strings.Repeat("x", r.IntN(200)))
		all = append(all, b.String())
	}
	return all
}

var reStatus = regexp.MustCompile(`(?m)^(z OK|\* OK).*\r\n`)

// TestSortAndThreadAsDovecot: for the same mailbox the answers are those of Debian's Dovecot.
func TestSortAndThreadAsDovecot(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	us, them := r.connect("alice"), dovecot(t)
	for i, m := range oddMail(400) {
		at := time.Date(2020, 1, 1, 0, i*7%100, 0, 0, time.UTC).Format("_2-Jan-2006 15:04:05 -0700")
		for _, c := range []*client{us, them} {
			if answer := c.whole(fmt.Sprintf("APPEND INBOX \"%s\" {%d+}\r\n%s", at, len(m), m)); !strings.Contains(answer, "z OK") {
				t.Fatal(answer)
			}
		}
	}
	us.whole("SELECT INBOX")
	them.whole("SELECT INBOX")
	for _, keys := range []string{"ARRIVAL", "REVERSE ARRIVAL", "DATE", "REVERSE DATE", "SIZE", "FROM", "TO", "CC", "SUBJECT", "REVERSE SUBJECT", "SUBJECT REVERSE DATE", "FROM SUBJECT SIZE",
		"REVERSE CC TO REVERSE FROM", "DISPLAYFROM", "DISPLAYTO", "REVERSE DISPLAYTO DATE"} {
		sameAnswer(t, us, them, "SORT ("+keys+") UTF-8 ALL")
	}
	for _, command := range []string{"UID SORT (SUBJECT DATE) US-ASCII 100:250 SMALLER 200", "SORT RETURN (MIN MAX COUNT ALL) (DATE) UTF-8 50:350",
		"THREAD ORDEREDSUBJECT UTF-8 ALL", "THREAD REFERENCES UTF-8 ALL", "UID THREAD REFERENCES UTF-8 1:77", "THREAD REFERENCES UTF-8 SUBJECT budget", "UID THREAD ORDEREDSUBJECT UTF-8 300:*"} {
		sameAnswer(t, us, them, command)
	}
}

func sameAnswer(t *testing.T, us, them *client, command string) {
	t.Helper()
	a, b := reStatus.ReplaceAllString(us.whole(command), ""), reStatus.ReplaceAllString(them.whole(command), "")
	if a != b || len(a) < 20 {
		i := 0
		for i < min(len(a), len(b)) && a[i] == b[i] {
			i++
		}
		from := max(0, i-60)
		t.Errorf("%s: from byte %d on\n%.200s\nDovecot says\n%.200s", command, i, a[from:], b[from:])
	}
}
