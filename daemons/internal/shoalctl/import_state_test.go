package shoalctl

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/emersion/go-imap/v2"
)

// bigMbox has n messages, every tenth of them the same as the one before.
func bigMbox(t *testing.T, n int) (path string, want map[string]int) {
	t.Helper()
	var file bytes.Buffer
	want = map[string]int{}
	for i := range n {
		text := fmt.Sprintf("Subject: message %d\n\n%s\n", i-i%10/9, strings.Repeat("text ", i%50*4))
		if i%10 == 9 {
			text = fmt.Sprintf("Subject: message %d\n\n%s\n", i-1, strings.Repeat("text ", (i-1)%50*4))
		}
		fmt.Fprintf(&file, "From a@b Mon Nov 23 12:00:00 2026\n%s\n", text)
		want[strings.ReplaceAll(text, "\n", "\r\n")]++
	}
	path = filepath.Join(t.TempDir(), "big.mbox")
	writeFile(t, path, file.String())
	return path, want
}

func compare(t *testing.T, got []whole, want map[string]int) {
	t.Helper()
	counts := map[string]int{}
	for _, m := range got {
		counts[m.content]++
	}
	for text, n := range want {
		if counts[text] != n {
			t.Errorf("%d times in the mailbox, %d in the source: %.60q", counts[text], n, text)
		}
	}
	for text, n := range counts {
		if want[text] == 0 {
			t.Errorf("%d times in the mailbox, not in the source: %.60q", n, text)
		}
	}
}

// An import is killed again and again, while other mail comes into the same mailbox. At the end every message is
// there exactly as often as the source has it.
func TestKilledImportLosesAndDoublesNothing(t *testing.T) {
	l := newLive(t)
	path, want := bigMbox(t, 2400)
	writeFile(t, l.path("password"), "secret\n")
	watch := l.reader("alice@example.test")
	kills := 0
	for goal := int64(150); ; goal += 450 {
		cmd := l.as("import", "alice@example.test", path, "--password-file", l.path("password"))
		var out bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &out
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		go func() { ended <- cmd.Wait() }()
		running := true
		for running {
			select {
			case err := <-ended:
				if err != nil {
					t.Fatalf("%v: %s", err, out.String())
				}
				running = false
			default:
			}
			m := &mailboxView{name: "INBOX", raw: "INBOX"}
			if err := watch.measure(m); err != nil {
				t.Fatal(err)
			}
			if running && m.messages >= goal {
				if err := cmd.Process.Signal(syscall.SIGKILL); err != nil && !errors.Is(err, os.ErrProcessDone) {
					t.Fatal(err)
				}
				if err := <-ended; err != nil {
					kills++
					break
				}
				running = false
			}
		}
		if !running {
			if kills > 0 && !strings.Contains(out.String(), "were there already") {
				t.Errorf("the last run says: %s", out.String())
			}
			break
		}
		other := fmt.Sprintf("Subject: from elsewhere %d\r\n\r\nx\r\n", goal)
		l.put("alice@example.test", item{mailbox: "INBOX", content: []byte(other)})
		want[other]++
	}
	if kills < 4 {
		t.Errorf("the import was killed %d times only", kills)
	}
	compare(t, l.contents("alice@example.test", "INBOX"), want)
	left, err := filepath.Glob(l.path("state/shoal/import/*"))
	if err != nil || len(left) != 0 {
		t.Errorf("a finished import leaves its state: %q, %v", left, err)
	}
	t.Logf("%d kills", kills)
}

// What the server stored without an acknowledgement that reached the state is found again by its content.
func TestMessagesWithoutALineAreFound(t *testing.T) {
	l := newLive(t)
	path, want := bigMbox(t, 40)
	id := importIdentity{"bob@example.test", l.c.Address, "", []string{path}}
	folder := l.path("state/shoal/import")
	state, err := openState(folder, id, false)
	if err != nil {
		t.Fatal(err)
	}
	m := &mailboxView{name: "INBOX", raw: "INBOX"}
	if err := l.reader("bob@example.test").measure(m); err != nil {
		t.Fatal(err)
	}
	if _, err := state.begin("INBOX", m.validity, m.next); err != nil {
		t.Fatal(err)
	}
	src, err := newSource([]string{path}, "auto", 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	l.put("bob@example.test", collect(t, src)[:25]...) // sent, stored, and then the power failed
	if _, err := openState(folder, id, false); !errors.Is(err, errImportRuns) {
		t.Errorf("two imports of the same at one time: %v", err)
	}
	if err := state.close(false, false); err != nil {
		t.Fatal(err)
	}
	code, out, errOut := l.run("secret\n", "import", "bob@example.test", path, "--password-stdin")
	if code != 0 || !strings.Contains(out, "25 messages were there already") {
		t.Errorf("exit code %d, %s, %s", code, out, errOut)
	}
	compare(t, l.contents("bob@example.test", "INBOX"), want)
}

func TestFailedMessagesAreTriedAgain(t *testing.T) {
	l := newLive(t)
	root := t.TempDir()
	for _, sub := range []string{"cur", "new", "tmp"} {
		if err := os.MkdirAll(filepath.Join(root, sub), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	writeFile(t, filepath.Join(root, "cur/1.a:2,S"), "Subject: one\n\n")
	writeFile(t, filepath.Join(root, "cur/2.b:2,"), "Subject: two\n\n"+strings.Repeat("x", 5000)+"\n")
	run := func(args ...string) (int, string) {
		code, out, errOut := l.run("secret\n", append([]string{"import", "carol@example.test", root, "--password-stdin", "--mailbox", "Old"}, args...)...)
		return code, out + errOut
	}
	if code, text := run("--max-size", "1000 B"); code != exitFailed || !strings.Contains(text, "1 messages were not imported") {
		t.Fatalf("exit code %d, %s", code, text)
	}
	// files are renamed by mail programs, and mail comes to the source
	if err := os.Rename(filepath.Join(root, "cur/1.a:2,S"), filepath.Join(root, "cur/1.a:2,RS")); err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(root, "new/0.c"), "Subject: three\n\n")
	if code, text := run(); code != 0 || !strings.Contains(text, "2 messages (") || !strings.Contains(text, "1 messages were there already") {
		t.Errorf("exit code %d, %s", code, text)
	}
	if got := l.contents("carol@example.test", "Old"); len(got) != 3 {
		t.Errorf("%d messages, want 3", len(got))
	}
	// the mailbox is deleted: what was imported into it counts no longer
	if code, _ := run("--max-size", "1000 B"); code != exitFailed {
		t.Errorf("exit code %d", code)
	}
	if _, err := l.reader("carol@example.test").a.command("DELETE Old", ""); err != nil {
		t.Fatal(err)
	}
	if code, text := run(); code != 0 {
		t.Errorf("exit code %d, %s", code, text)
	}
	if got := l.contents("carol@example.test", "Old"); len(got) != 3 {
		t.Errorf("%d messages in the mailbox that was made anew, want 3", len(got))
	}
}

func TestStateSurvivesAHalfLine(t *testing.T) {
	folder := t.TempDir()
	id := importIdentity{"a@b", "s", "M", []string{"/x"}}
	s, err := openState(folder, id, false)
	if err != nil {
		t.Fatal(err)
	}
	box, err := s.begin("Später \"alt\"\n", 7, 9)
	if err != nil {
		t.Fatal(err)
	}
	print := fingerprintOf([]byte("x"))
	for uid := range imap.UID(3) {
		if err := s.acknowledged(box, 20+uid, print); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.close(false, false); err != nil {
		t.Fatal(err)
	}
	file := s.f.Name()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for cut := range len(text) {
		if err := os.WriteFile(file, text[:cut], 0o600); err != nil {
			t.Fatal(err)
		}
		again, err := openState(folder, id, false)
		if err != nil {
			t.Fatalf("cut at byte %d: %v", cut, err)
		}
		lines := bytes.Count(text[:cut], []byte("\n"))
		if got := again.boxes[box.name]; lines >= 2 && (got == nil || got.stored[print] != lines-2 || got.validity != 7 || got.next != 9) {
			t.Fatalf("cut at byte %d, %d lines: %+v", cut, lines, got)
		}
		if again.clean {
			t.Fatalf("cut at byte %d: taken for an end in order", cut)
		}
		again.f.Close()
	}
	for _, bad := range []string{"box 3 1 1 \"x\"", "got 0 1 zz", "got 5 1 " + strings.Repeat("0", 32), "what"} {
		if err := os.WriteFile(file, append(text, bad+"\n"...), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := openState(folder, id, false); err == nil || !strings.Contains(err.Error(), "--restart") {
			t.Errorf("%q: %v", bad, err)
		}
	}
	fresh, err := openState(folder, id, true)
	if err != nil || len(fresh.boxes) != 0 {
		t.Errorf("after --restart: %v, %v", fresh, err)
	}
	if err := fresh.close(false, true); err != nil {
		t.Fatal(err)
	}
	if again, err := openState(folder, id, false); err != nil || !again.clean {
		t.Errorf("an end in order: %v", err)
	}
}
