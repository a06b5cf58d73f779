package shoalctl

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/iotest"
	"time"

	"shoal/daemons/internal/mbox"
)

// sampleMail is mail with everything that an export could lose.
func sampleMail() []item {
	at := func(n int) time.Time { return time.Date(2019, 3, n, 4, 5, 6, 0, time.UTC) }
	return []item{
		{mailbox: "INBOX", date: at(1), flags: []string{`\Seen`, `\Answered`, "$Forwarded", "urgent"}, content: []byte("Return-Path: <x@far.test>\r\nSubject: one\r\n\r\nFrom here\r\n>From there\r\n")},
		{mailbox: "INBOX", date: at(2), flags: []string{`\Flagged`, "Zweites"}, content: []byte("Subject: two\r\n\r\nbare \r here\r\n\r\n\r\n")},
		{mailbox: "INBOX", date: at(3), content: []byte("Subject: 8 bit \xff\xfe\r\n\r\n" + strings.Repeat("long line ", 20000) + "\r\n")},
		{mailbox: "Archive", date: at(4), flags: []string{`\Draft`, `\Deleted`}, content: []byte("Subject: four\r\n\r\n.\r\n")},
		{mailbox: "Archive/2019 & before", date: at(5), content: []byte("Subject: five\r\n\r\nx\r\n")},
		{mailbox: "Archive/Später", date: at(6), content: []byte("Subject: six\r\n\r\nx\r\n")},
	}
}

func sortedFlags(flags []string) []string {
	var all []string
	for _, f := range flags {
		if !strings.EqualFold(f, `\Recent`) {
			all = append(all, f)
		}
	}
	slices.Sort(all)
	return all
}

func (l *liveIMAP) mustRun(args ...string) string {
	l.t.Helper()
	code, out, errOut := l.run("secret\n", append(args, "--password-stdin")...)
	if code != 0 {
		l.t.Fatalf("%v: exit code %d, %s", args, code, errOut)
	}
	return out
}

func TestMaildirExportComesBackTheSame(t *testing.T) {
	for _, crlf := range []bool{false, true} {
		l := newLive(t)
		l.put("alice@example.test", sampleMail()...)
		target := filepath.Join(t.TempDir(), "alice")
		args := []string{"export", "alice@example.test", target, "--all"}
		if crlf {
			args = append(args, "--crlf")
		}
		l.mustRun(args...)
		l.mustRun("import", "bob@example.test", target)
		for _, mailbox := range []string{"INBOX", "Archive", "Archive/2019 & before", "Archive/Später"} {
			raw := mailbox
			before, after := l.contents("alice@example.test", raw), l.contents("bob@example.test", raw)
			if len(before) != len(after) || len(before) == 0 {
				t.Fatalf("%s: %d messages before, %d after", mailbox, len(before), len(after))
			}
			for i, m := range before {
				n := after[i]
				if m.content != n.content || !m.date.Equal(n.date) || !slices.Equal(sortedFlags(m.flags), sortedFlags(n.flags)) {
					t.Errorf("%s, message %d: before %.60q %v %q, after %.60q %v %q", mailbox, i+1, m.content, m.date, m.flags, n.content, n.date, n.flags)
				}
			}
		}
		for _, m := range l.contents("alice@example.test", "INBOX") {
			if strings.Contains(m.content, "8 bit") && len(m.flags) != 0 {
				t.Errorf("export set flags: %q", m.flags)
			}
		}
	}
}

func TestMboxExportComesBackTheSame(t *testing.T) {
	l := newLive(t)
	l.put("alice@example.test", sampleMail()...)
	file := filepath.Join(t.TempDir(), "inbox.mbox")
	out := l.mustRun("export", "alice@example.test", file, "--mailbox", "INBOX", "--format", "mbox", "--json")
	var v exportView
	if err := json.Unmarshal([]byte(out), &v); err != nil || v.Messages != 3 || len(v.Inexact) != 0 {
		t.Errorf("%v, %s", err, out)
	}
	text, err := os.ReadFile(file)
	if err != nil || !bytes.HasPrefix(text, []byte("From x@far.test Fri Mar  1 04:05:06 2019\nReturn-Path: <x@far.test>\nSubject: one\n\n>From here\n>>From there\n\nFrom MAILER-DAEMON Sat Mar  2")) {
		t.Errorf("%v, the file begins %.200q", err, text)
	}
	l.mustRun("import", "bob@example.test", file, "--format", "mboxrd")
	before, after := l.contents("alice@example.test", "INBOX"), l.contents("bob@example.test", "INBOX")
	for i := range before {
		if before[i].content != after[i].content || !before[i].date.Equal(after[i].date) {
			t.Errorf("message %d: %.60q %v, then %.60q %v", i+1, before[i].content, before[i].date, after[i].content, after[i].date)
		}
	}
	folder := filepath.Join(t.TempDir(), "all")
	l.mustRun("export", "alice@example.test", folder, "--all", "--format", "mbox")
	for _, name := range []string{"INBOX.mbox", "Archive.mbox", "Archive/2019 & before.mbox", "Archive/Später.mbox"} {
		if _, err := os.Stat(filepath.Join(folder, name)); err != nil {
			t.Error(err)
		}
	}
	if left, _ := filepath.Glob(filepath.Join(folder, "*", ".shoal*")); len(left) != 0 {
		t.Errorf("left behind: %q", left)
	}
}

func TestExportOverwritesNothing(t *testing.T) {
	l := newLive(t)
	l.put("alice@example.test", sampleMail()...)
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "full/precious"), "x")
	writeFile(t, filepath.Join(dir, "file"), "x")
	for _, args := range []string{"full --all", "full --all --format mbox", "file --mailbox INBOX --format mbox", "full --all --resume"} {
		fields := strings.Fields(args)
		fields[0] = filepath.Join(dir, fields[0])
		code, _, errOut := l.run("secret\n", append([]string{"export", "alice@example.test", "--password-stdin"}, fields...)...)
		if code == 0 || !strings.Contains(errOut, fields[0]) {
			t.Errorf("%s: exit code %d, %s", args, code, errOut)
		}
	}
	entries, err := os.ReadDir(filepath.Join(dir, "full"))
	if err != nil || len(entries) != 1 {
		t.Errorf("%v, %v", entries, err)
	}
	for _, args := range []string{"", "--all --mailbox X", "--all --format elm", "--mailbox X --format mbox --resume"} {
		if code, _, errOut := l.run("", append([]string{"export", "a@b", dir}, strings.Fields(args)...)...); code != exitUsage {
			t.Errorf("%q: exit code %d, %s", args, code, errOut)
		}
	}
	if code, _, errOut := l.run("secret\n", "export", "alice@example.test", filepath.Join(dir, "new"), "--mailbox", "None", "--password-stdin"); code != exitName {
		t.Errorf("a mailbox that is not there: exit code %d, %s", code, errOut)
	}
}

func TestMailboxExportTakesThoseBelow(t *testing.T) {
	l := newLive(t)
	l.put("alice@example.test", sampleMail()...)
	target := filepath.Join(t.TempDir(), "archive")
	l.mustRun("export", "alice@example.test", target, "--mailbox", "Archive")
	l.mustRun("import", "bob@example.test", target, "--mailbox", "Old")
	for _, mailbox := range []string{"Old", "Old/2019 & before", "Old/Später"} {
		if got := l.contents("bob@example.test", mailbox); len(got) != 1 {
			t.Errorf("%s: %d messages", mailbox, len(got))
		}
	}
}

func TestExportNamesWhatItCannotKeep(t *testing.T) {
	l := newLive(t)
	l.put("alice@example.test", item{mailbox: "v1.0", content: []byte("Subject: x\r\n\r\nbare\nLF\r\n")},
		item{mailbox: "v1.0", content: []byte("Subject: y\r\n\r\ntwo CR\r\r\n")}, item{mailbox: "v1.0", content: []byte("Subject: z\r\n\r\ngood\r\n")})
	target := filepath.Join(t.TempDir(), "x")
	var v exportView
	if err := json.Unmarshal([]byte(l.mustRun("export", "alice@example.test", target, "--all", "--json")), &v); err != nil {
		t.Fatal(err)
	}
	if len(v.Inexact) != 2 || !strings.Contains(v.Inexact[0], "v1.0") || len(v.Notes) != 1 || !strings.Contains(v.Notes[0], `"v1_0"`) {
		t.Errorf("%+v", v)
	}
}

// An export that is killed goes on: nothing is missing, nothing is there twice, flags changed since stay.
func TestKilledExportGoesOn(t *testing.T) {
	l := newLive(t)
	want := map[string]int{}
	var all []item
	for i := range 600 {
		it := item{mailbox: "INBOX", flags: []string{fmt.Sprintf("k%d", i%20)}, content: []byte(fmt.Sprintf("Subject: %d\r\n\r\nbody\r\n", i/2))}
		all = append(all, it)
		want[string(it.content)]++
	}
	l.put("alice@example.test", all...)
	writeFile(t, l.path("password"), "secret\n")
	target := filepath.Join(t.TempDir(), "alice")
	args := []string{"export", "alice@example.test", target, "--all", "--password-file", l.path("password")}
	cmd := l.as(args...)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for written := 0; written < 50; {
		entries, err := os.ReadDir(filepath.Join(target, "cur"))
		if err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		written = len(entries)
	}
	if err := cmd.Process.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil {
		t.Fatal("the export was over before it was killed")
	}
	code, _, errOut := l.run("", args...)
	if code == 0 || !strings.Contains(errOut, "--resume") {
		t.Errorf("without --resume: exit code %d, %s", code, errOut)
	}
	if code, _, errOut = l.run("", append([]string{"export", "bob@example.test"}, append(args[2:], "--resume")...)...); code == 0 || !strings.Contains(errOut, "another") {
		t.Errorf("of another account: exit code %d, %s", code, errOut)
	}
	code, out, errOut := l.run("", append(args, "--resume")...)
	if code != 0 || !strings.Contains(out, "messages were there already") {
		t.Fatalf("exit code %d, %s, %s", code, out, errOut)
	}
	maildir, err := mbox.OpenMaildir(target)
	if err != nil {
		t.Fatal(err)
	}
	folders, err := maildir.Folders()
	if err != nil {
		t.Fatal(err)
	}
	count := 0
	if err := maildir.Messages(folders[0], func(m mbox.MaildirMessage) error {
		text, err := os.ReadFile(m.Path)
		subject, _, _ := strings.Cut(strings.TrimPrefix(string(text), "Subject: "), "\n")
		var n int
		fmt.Sscan(subject, &n)
		if len(m.Keywords) != 1 || m.Keywords[0] != fmt.Sprintf("k%d", 2*n%20) && m.Keywords[0] != fmt.Sprintf("k%d", (2*n+1)%20) {
			t.Errorf("message %s has keywords %q", subject, m.Keywords)
		}
		want[strings.ReplaceAll(string(text), "\n", "\r\n")]--
		count++
		return err
	}); err != nil {
		t.Fatal(err)
	}
	for text, n := range want {
		if n != 0 {
			t.Errorf("%d too few of %q", n, text)
		}
	}
	if left, _ := os.ReadDir(filepath.Join(target, "tmp")); count != 600 || len(left) > 0 {
		t.Errorf("%d messages, %v left in tmp", count, left)
	}
	if _, err := os.Stat(filepath.Join(target, exportMark)); !os.IsNotExist(err) {
		t.Errorf("the mark of an interrupted export is left: %v", err)
	}
}

func TestLineEnds(t *testing.T) {
	for _, c := range []struct {
		in, out string
		odd     int
	}{
		{"", "", 0}, {"a\r\nb\r\n", "a\nb\n", 0}, {"a\nb", "a\nb", 1}, {"\r", "\r", 0}, {"\r\r\n\r", "\r\n\r", 1}, {"\r\r\n\n", "\r\n\n", 2}, {"\n\r\n\n", "\n\n\n", 2}, {"\ra", "\ra", 0},
	} {
		for name, wrap := range map[string]func(io.Reader) io.Reader{
			"whole": func(r io.Reader) io.Reader { return r }, "bytes": iotest.OneByteReader, "data and error": iotest.DataErrReader,
		} {
			l := &lineEnds{src: wrap(strings.NewReader(c.in))}
			out, err := io.ReadAll(iotest.OneByteReader(l))
			if err != nil || string(out) != c.out || l.odd != c.odd {
				t.Errorf("%s, %q: got %q, %d odd, %v; want %q, %d", name, c.in, out, l.odd, err, c.out, c.odd)
			}
			k := &lineEnds{src: wrap(strings.NewReader(c.in)), keep: true}
			if out, err := io.ReadAll(k); err != nil || string(out) != c.in || k.odd != c.odd {
				t.Errorf("%s, kept, %q: got %q, %d odd, %v", name, c.in, out, k.odd, err)
			}
		}
	}
}
