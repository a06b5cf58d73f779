package cluster

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"
)

// nobody is who the old server runs as, when the test is root.
const nobody = 65534

// dovecot is Debian's Dovecot without its daemons: each client gets an imap or pop3 process of its own, logged in.
type dovecot struct {
	folder, conf, home string
}

func newDovecot(t *testing.T, folder, mail string) *dovecot {
	t.Helper()
	d := &dovecot{folder: folder, conf: filepath.Join(folder, "dovecot.conf"), home: filepath.Join(folder, "home")}
	owner := ""
	if os.Geteuid() == 0 {
		owner = fmt.Sprintf("mail_uid = %d\nmail_gid = %[1]d\n", nobody)
	}
	put(t, d.conf, 0o644, `base_dir = %s/base
log_path = /dev/stderr
protocols = imap pop3
ssl = no
first_valid_uid = 1
mail_location = maildir:%s
%snamespace inbox {
  inbox = yes
  mailbox "Gesendete Post" {
    special_use = \Sent
  }
  mailbox Ablage.Alt {
    special_use = \Archive
  }
}
`, folder, mail, owner)
	return d
}

// argv runs a program of Dovecot's as its user.
func (d *dovecot) argv(program string) []string {
	a := []string{"env", "USER=u", "HOME=" + d.home, "/usr/lib/dovecot/" + program, "-c", d.conf}
	if os.Geteuid() == 0 {
		a = append([]string{"setpriv", fmt.Sprintf("--reuid=%d", nobody), fmt.Sprintf("--regid=%d", nobody), "--clear-groups"}, a...)
	}
	return a
}

// connect starts a program and gives the conversation with it.
func (d *dovecot) connect(t *testing.T, program string) net.Conn {
	t.Helper()
	pair, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	ours, theirs := os.NewFile(uintptr(pair[0]), "ours"), os.NewFile(uintptr(pair[1]), "theirs")
	argv := d.argv(program)
	cmd := exec.CommandContext(t.Context(), argv[0], argv[1:]...)
	var errOut bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr, cmd.Dir = theirs, theirs, &errOut, d.folder
	conn, err := net.FileConn(ours)
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	ours.Close()
	theirs.Close()
	t.Cleanup(func() {
		conn.Close()
		if err := cmd.Wait(); err != nil && t.Failed() {
			t.Logf("%s: %v\n%s", program, err, errOut.String())
		}
	})
	return conn
}

func (d *dovecot) imap(t *testing.T) *imapclient.Client {
	t.Helper()
	c := imapclient.New(d.connect(t, "imap"), nil)
	if err := c.WaitGreeting(); err != nil {
		t.Fatal(err)
	}
	return c
}

// onlyRev1 hides IMAP4rev2 from the client library, which writes names in UTF-8 to servers that have it, and reads modified UTF-7.
type onlyRev1 struct{ net.Conn }

func (c onlyRev1) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	copy(p, bytes.ReplaceAll(p[:n], []byte("IMAP4rev2"), []byte("XMAP4rev2")))
	return n, err
}

// oldClient logs in at one box as a client of before 2021 does.
func (s *service) oldClient(t *testing.T, u user, box string) *imapclient.Client {
	t.Helper()
	conn, err := tls.Dial("tcp", s.address("imaps", box), s.tls(t))
	check(t, err)
	c := imapclient.New(onlyRev1{conn}, nil)
	t.Cleanup(func() { c.Close() })
	check(t, c.Login(u.Address, u.Password).Wait())
	return c
}

// snapshot is what a client keeps of an account: by mailbox its values, and a line for each message.
func snapshot(t *testing.T, c *imapclient.Client) map[string][]string {
	t.Helper()
	out := map[string][]string{}
	boxes, err := c.List("", "*", &imap.ListOptions{ReturnSubscribed: true, ReturnSpecialUse: true}).Collect()
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range boxes {
		if slices.Contains(b.Attrs, imap.MailboxAttrNonExistent) || slices.Contains(b.Attrs, imap.MailboxAttrNoSelect) {
			continue
		}
		name := strings.ReplaceAll(b.Mailbox, string(b.Delim), "/")
		st, err := c.Select(b.Mailbox, nil).Wait()
		if err != nil {
			t.Fatal(err)
		}
		lines := []string{fmt.Sprintf("UIDVALIDITY %d UIDNEXT %d", st.UIDValidity, st.UIDNext)}
		for _, a := range b.Attrs {
			if a == imap.MailboxAttrSubscribed || a == imap.MailboxAttrSent || a == imap.MailboxAttrArchive {
				lines = append(lines, string(a))
			}
		}
		slices.Sort(lines[1:])
		if st.NumMessages > 0 {
			all, err := c.Fetch(imap.SeqSet{{Start: 1}}, &imap.FetchOptions{UID: true, Flags: true, InternalDate: true, RFC822Size: true,
				BodySection: []*imap.FetchItemBodySection{{Peek: true}, {Peek: true, Partial: &imap.SectionPartial{Offset: 100_001, Size: 70_000}}}}).Collect()
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range all {
				m.Flags = slices.DeleteFunc(m.Flags, func(f imap.Flag) bool { return f == "\\Recent" })
				slices.Sort(m.Flags)
				line := fmt.Sprintf("%d %v %v %d", m.UID, m.Flags, m.InternalDate.UTC().Format(time.DateTime), m.RFC822Size)
				for _, part := range m.BodySection {
					line += fmt.Sprintf(" %08x", sum(part.Bytes))
				}
				lines = append(lines, line)
			}
		}
		out[name] = lines
	}
	return out
}

func sum(b []byte) (h uint32) {
	for _, c := range b {
		h = h*16777619 ^ uint32(c)
	}
	return h
}

func sameMail(t *testing.T, what string, got, want map[string][]string) {
	t.Helper()
	for name, lines := range want {
		if !slices.Equal(got[name], lines) {
			t.Errorf("%s: %s has\n  %s\nwant\n  %s", what, name, strings.Join(got[name], "\n  "), strings.Join(lines, "\n  "))
		}
	}
	for name := range got {
		if _, ok := want[name]; !ok {
			t.Errorf("%s: there is also %s: %q", what, name, got[name])
		}
	}
}

// popList is what UIDL and LIST say.
func popList(t *testing.T, conn net.Conn, login string) (out []string) {
	t.Helper()
	r := bufio.NewReader(conn)
	if _, err := io.WriteString(conn, login+"UIDL\r\nLIST\r\nQUIT\r\n"); err != nil {
		t.Fatal(err)
	}
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return out
		}
		if line = strings.TrimSpace(line); line[0] >= '1' && line[0] <= '9' {
			out = append(out, line)
		}
	}
}

// syncer is a user's mbsync that knows first the old server, then the new one.
type syncer struct{ folder string }

// messages gives the files of the client's mail: their letters by folder and name.
func (y *syncer) messages(t *testing.T) map[string]string {
	t.Helper()
	out := map[string]string{}
	check(t, filepath.WalkDir(filepath.Join(y.folder, "mail"), func(path string, d os.DirEntry, err error) error {
		if sub := filepath.Base(filepath.Dir(path)); err == nil && !d.IsDir() && (sub == "cur" || sub == "new") {
			base, letters, _ := strings.Cut(d.Name(), ":2,")
			out[filepath.Dir(filepath.Dir(path))+"/"+base] = letters
		}
		return err
	}))
	return out
}

// run syncs both ways and says what became of the client's mail: how many messages came, changed their flags, went.
func (y *syncer) run(t *testing.T, account string) string {
	t.Helper()
	rc := put(t, filepath.Join(y.folder, "rc"), 0o600, `FSync no

IMAPStore there
%s

MaildirStore here
Path %[2]s/mail/
Inbox %[2]s/mail/INBOX
SubFolders Verbatim

Channel all
Far :there:
Near :here:
Patterns *
Create Near
Remove Near
Expunge Both
SyncState *
`, account, y.folder)
	before := y.messages(t)
	command(t, "", "mbsync", "-c", rc, "all")
	var came, changed, went int
	after := y.messages(t)
	for name, letters := range after {
		if was, ok := before[name]; !ok {
			came++
		} else if was != letters {
			changed++
		}
		delete(before, name)
	}
	went = len(before)
	return fmt.Sprintf("%d came, %d changed, %d went", came, changed, went)
}

func letter(i int, body string) string {
	return fmt.Sprintf("From: Ann <ann%d@example.org>\r\nSubject: letter %d\r\nMessage-ID: <letter-%[2]d@example.org>\r\nDate: Mon, 1 Jan 2024 10:00:00 +0000\r\n\r\n%s", i, i, body)
}

func appendTo(t *testing.T, c *imapclient.Client, mailbox, text string, at time.Time, flags ...imap.Flag) {
	t.Helper()
	a := c.Append(mailbox, int64(len(text)), &imap.AppendOptions{Flags: flags, Time: at})
	if _, err := io.WriteString(a, text); err != nil {
		t.Fatal(err)
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Wait(); err != nil {
		t.Fatal(err)
	}
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// A user's Maildir changes hands, from Debian's Dovecot to this service and back. Messages are neither copied nor changed, and nobody who
// has them downloads them again: an mbsync that knows them from Dovecot finds at our place what it knows, and at Dovecot's again
// after the way back. Runs that are killed are taken up by the next.
func TestMaildirChangesHands(t *testing.T) {
	s := shared(t)
	u := s.newAccount(t)
	folder, err := os.MkdirTemp(filepath.Dir(filepath.Dir(s.data)), "shoal-adopt-") // the volume's file system
	check(t, err)
	t.Cleanup(func() { os.RemoveAll(folder) })
	check(t, os.Chmod(folder, 0o755))
	mail := filepath.Join(folder, "home", "Maildir")
	old := newDovecot(t, folder, mail)
	check(t, os.Mkdir(old.home, 0o700))
	if os.Geteuid() == 0 {
		check(t, os.Chown(old.home, nobody, nobody))
	}
	volume := filepath.Join(s.data, "volumes", "vol01")
	day := time.Date(2024, 1, 1, 10, 0, 0, 0, time.UTC)

	// The old server's mail, made through its own IMAP.
	c := old.imap(t)
	for _, name := range []string{"Gesendete Post", "Ablage", "Ablage.Alt", "Lists.Go", "Grüße aus Köln", "R&D", "leer", "weg"} {
		check(t, c.Create(name, nil).Wait())
	}
	for _, name := range []string{"INBOX", "Gesendete Post", "Lists.Go", "Grüße aus Köln"} {
		check(t, c.Subscribe(name).Wait())
	}
	for i := range 40 {
		flags := [][]imap.Flag{{}, {imap.FlagSeen}, {imap.FlagSeen, imap.FlagAnswered, "$Label1"}, {imap.FlagFlagged, "work", "$Forwarded"}}[i%4]
		body := strings.Repeat(fmt.Sprintf("line of letter %d\r\n", i), i*3)
		if i == 7 {
			body = strings.Repeat("a large letter, which no box keeps in memory\r\n", 12000)
		}
		appendTo(t, c, "INBOX", letter(i, body), day.Add(time.Duration(i)*time.Hour), flags...)
	}
	for i, name := range []string{"Gesendete Post", "Ablage.Alt", "Lists.Go", "Grüße aus Köln", "R&D", "weg"} {
		appendTo(t, c, name, letter(100+i, "text\r\n"), day, imap.FlagSeen, imap.Flag("key"+fmt.Sprint(i)))
	}
	_, err = c.Select("INBOX", nil).Wait()
	check(t, err)
	check(t, c.Store(imap.UIDSetNum(3, 40), &imap.StoreFlags{Op: imap.StoreFlagsAdd, Flags: []imap.Flag{imap.FlagDeleted}}, nil).Close())
	check(t, c.Expunge().Close())

	client := &syncer{folder: t.TempDir()}
	check(t, os.Mkdir(filepath.Join(client.folder, "mail"), 0o700))
	tunnel := func(d *dovecot) string { return fmt.Sprintf("Tunnel %q", strings.Join(d.argv("imap"), " ")) }
	if did := client.run(t, tunnel(old)); did != "44 came, 0 changed, 0 went" {
		t.Fatalf("the first sync with Dovecot did %s", did)
	}

	// Runs while the old server works; some are killed.
	adopt := func(more ...string) (v struct{ Added, Bytes, FlagsChanged, Expunged, WithoutUID int64 }) {
		t.Helper()
		out := s.shoalctl(t, append([]string{"adopt", "run", u.Address, mail, "--volume-path", volume, "--doveconf", old.conf, "--json"}, more...)...)
		var raw map[string]any
		check(t, json.Unmarshal([]byte(out), &raw))
		number := func(k string) int64 { n, _ := raw[k].(float64); return int64(n) }
		v.Added, v.Bytes, v.FlagsChanged, v.Expunged, v.WithoutUID = number("added"), number("bytes"), number("flags_changed"), number("expunged"), number("without_uid")
		return v
	}
	if v := adopt("--dry-run"); v.Added != 44 {
		t.Errorf("a rehearsal: %+v", v)
	}
	for i := range 6 {
		ctx, cancel := context.WithTimeout(t.Context(), time.Duration(20+15*i)*time.Millisecond)
		cmd := exec.CommandContext(ctx, filepath.Join(bin, "shoalctl"), "--data", s.data, "adopt", "run", u.Address, mail, "--volume-path", volume, "--doveconf", old.conf)
		_ = cmd.Run() // killed, or done
		cancel()
	}
	adopt()
	if v := adopt(); v.Added+v.FlagsChanged+v.Expunged != 0 {
		t.Errorf("a run with nothing to do: %+v", v)
	}

	// What happens in the last days: flags, mail, removals, folders, and a mail that no client has seen.
	_, err = c.Select("INBOX", nil).Wait()
	check(t, err)
	check(t, c.Store(imap.UIDSetNum(1, 2), &imap.StoreFlags{Op: imap.StoreFlagsAdd, Flags: []imap.Flag{imap.FlagFlagged, "later"}}, nil).Close())
	check(t, c.Store(imap.UIDSetNum(4), &imap.StoreFlags{Op: imap.StoreFlagsSet, Flags: nil}, nil).Close())
	check(t, c.Store(imap.UIDSetNum(5, 6), &imap.StoreFlags{Op: imap.StoreFlagsAdd, Flags: []imap.Flag{imap.FlagDeleted}}, nil).Close())
	check(t, c.Expunge().Close())
	appendTo(t, c, "INBOX", letter(50, "late\r\n"), day)
	appendTo(t, c, "INBOX", letter(51, "late and removed\r\n"), day, imap.FlagDeleted)
	check(t, c.Expunge().Close())
	check(t, c.Delete("weg").Wait())
	check(t, c.Create("neu", nil).Wait())
	appendTo(t, c, "neu", letter(52, "in a new folder\r\n"), day)
	if v := adopt(); v.Added != 2 || v.FlagsChanged != 3 || v.Expunged != 2 {
		t.Errorf("the second run: %+v", v)
	}
	if did := client.run(t, tunnel(old)); did != "2 came, 3 changed, 2 went" {
		t.Errorf("the last sync with Dovecot did %s", did)
	}
	want := snapshot(t, c)
	pop := popList(t, old.connect(t, "pop3"), "")
	check(t, c.Logout().Wait())
	unseen := filepath.Join(mail, "new", "1704200000.M1P2.host")
	put(t, unseen, 0o600, "%s", strings.ReplaceAll(letter(60, "nobody has seen this\r\n"), "\r\n", "\n"))
	check(t, os.Chtimes(unseen, day, day))
	if os.Geteuid() == 0 {
		check(t, os.Chown(unseen, nobody, nobody))
	}
	if v := adopt(); v.WithoutUID != 1 || v.Added != 0 {
		t.Errorf("a mail without UID: %+v", v)
	}

	// The switch.
	if v := adopt("--final"); v.Added != 1 {
		t.Errorf("the final run: %+v", v)
	}
	if v := adopt("--final"); v.Added+v.FlagsChanged+v.Expunged != 0 {
		t.Errorf("the final run again: %+v", v)
	}
	owners := func() (n int) {
		check(t, filepath.WalkDir(mail, func(path string, d os.DirEntry, err error) error {
			if i, ierr := d.Info(); ierr == nil && i.Mode().IsRegular() && strings.Contains(path, "/cur/") {
				st := i.Sys().(*syscall.Stat_t)
				if st.Nlink < 2 {
					t.Errorf("%s has no second name", path)
				}
				if int(st.Uid) != os.Geteuid() {
					n++
				}
			}
			return err
		}))
		return n
	}
	if n := owners(); os.Geteuid() == 0 && n != 43 { // 38 letters - 2 + 1 in INBOX, and 6
		t.Errorf("%d files are the old server's before the end", n)
	}
	s.shoalctl(t, "adopt", "finish", u.Address, "--volume-path", volume)
	if n := owners(); n != 0 {
		t.Errorf("%d files are the old server's after the end", n)
	}
	if out, err := s.tryShoalctl(t, "adopt", "run", u.Address, mail, "--volume-path", volume); err == nil || !strings.Contains(out, "finished") {
		t.Errorf("a run after the end: %v\n%s", err, out)
	}

	// The new server has the same, and the client downloads what it never had.
	inbox := want["INBOX"]
	last := letter(60, "nobody has seen this\r\n")
	inbox[0] = strings.Replace(inbox[0], "UIDNEXT 43", "UIDNEXT 44", 1)
	want["INBOX"] = append(inbox, fmt.Sprintf("43 [] %s %d %08x %08x", day.Format(time.DateTime), len(last), sum([]byte(last)), sum(nil)))
	for _, box := range []string{"box1", "box2"} {
		got := snapshot(t, s.oldClient(t, u, box))
		sameMail(t, box, got, want)
	}
	secure, err := tls.Dial("tcp", s.address("pop3s"), s.tls(t))
	check(t, err)
	defer secure.Close()
	got := popList(t, secure, fmt.Sprintf("USER %s\r\nPASS %s\r\n", u.Address, u.Password))
	if n := len(pop) / 2; len(got) != len(pop)+2 || !slices.Equal(got[:n], pop[:n]) || !slices.Equal(got[n+1:2*n+1], pop[n:]) {
		t.Errorf("POP3 lists\n%q\nDovecot listed\n%q", got, pop)
	}
	account := fmt.Sprintf("Host localhost\nPort %s\nUser %s\nPass %s\nSSLType IMAPS\nCertificateFile %s", portOf(s.address("imaps")), u.Address, u.Password, s.CAFile)
	if did := client.run(t, account); did != "1 came, 0 changed, 0 went" {
		t.Errorf("the first sync with the new server did %s", did)
	}
	s.curlSend(t, u.Address, message("after the switch", 3000))
	s.change(t, u, "letter 8", addFlag(imap.FlagFlagged))
	if did := client.run(t, account); did != "1 came, 1 changed, 0 went" {
		t.Errorf("the second sync with the new server did %s", did)
	}
	want = snapshot(t, s.oldClient(t, u, "box1"))

	// And back.
	back := filepath.Join(folder, "home", "Maildir.back")
	args := []string{"export", u.Address, back, "--volume-path", volume}
	if os.Geteuid() == 0 {
		args = append(args, "--owner", fmt.Sprint(nobody, ":", nobody))
	}
	out := s.shoalctl(t, args...)
	if strings.Contains(out, "copied") {
		t.Errorf("messages were copied: %s", out)
	}
	again := newDovecot(t, folder, back)
	c = again.imap(t)
	sameMail(t, "Dovecot again", snapshot(t, c), want)
	check(t, c.Logout().Wait())
	if list := popList(t, again.connect(t, "pop3"), ""); len(list) != len(got)+2 || !slices.Equal(list[:len(got)/2], got[:len(got)/2]) {
		t.Errorf("Dovecot lists %q again", list)
	}
	if did := client.run(t, tunnel(again)); did != "0 came, 0 changed, 0 went" {
		t.Errorf("the sync with Dovecot after the way back did %s", did)
	}
}
