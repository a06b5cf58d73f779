package cluster

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// historyCommits is how many messages the history has.
const historyCommits = 3000

// history makes a git repository with thousands of varied commits and returns its patches as an mbox.
func history(t *testing.T) []byte {
	t.Helper()
	folder := t.TempDir()
	command(t, "", "git", "init", "-q", "--bare", folder)
	command(t, fastImport(), "git", "-C", folder, "fast-import", "--quiet")
	cmd := exec.CommandContext(t.Context(), "git", "-C", folder, "format-patch", "--stdout", "--root", "--binary", "refs/heads/main")
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	if err := cmd.Run(); err != nil {
		t.Fatalf("git format-patch: %v\n%s", err, errOut.String())
	}
	return out.Bytes()
}

// fastImport writes the history: texts, binaries, long lines, several alphabets, and lines that trouble mail:
// "From ", ">From ", a lone dot, blanks at the end, CRLF, no line end at the end.
func fastImport() string {
	var b strings.Builder
	r := rand.New(rand.NewPCG(1, 2)) // the same at each run
	authors := []string{"Ann Example", "Björn Jörgensen", "Zoë O'Neill", "山田太郎", "\"Quoted, Name\"", "Иван Петров"}
	subjects := []string{"Fix the build", "Grüße aus Köln: Umlaute überall", "日本語の件名", "A subject that goes on and on, so that it has to be folded into several lines of the header, twice perhaps", "From here to there", "[v2] brackets"}
	lines := []string{
		"From the beginning of a line\n", ">From quoted once\n", ">>From twice\n", ".\n", "..\n", "trailing blanks   \n", "\ttabs\t\n",
		"DOS line end\r\n", "naïve café 100 €\n", "latin-1 \xe9\xe8\n", "\n", "From 0123456789012345678901234567890123456789 Mon Sep 17 00:00:00 2002\n",
		strings.Repeat("long ", 300) + "\n", "=20 =3D not quoted-printable\n", "--boundary\n",
	}
	data := func(s string) { fmt.Fprintf(&b, "data %d\n%s\n", len(s), s) }
	for i := range historyCommits {
		fmt.Fprintf(&b, "commit refs/heads/main\nmark :%d\nauthor %s <a%d@example.org> %d %+05d\ncommitter C <c@example.org> %d +0000\n",
			i+1, authors[r.IntN(len(authors))], i%7, 1600000000+i*1000, (r.IntN(24)-12)*100, 1600000000+i*1000)
		text := subjects[r.IntN(len(subjects))] + fmt.Sprintf(" (%d)\n\n", i)
		for range r.IntN(6) {
			text += lines[r.IntN(6)]
		}
		data(text)
		if i > 0 {
			fmt.Fprintf(&b, "from :%d\n", i)
		}
		content := fmt.Sprintln("change", i)
		if i%10 == 0 {
			raw := make([]byte, r.IntN(3000)+1)
			for j := range raw {
				raw[j] = byte(r.Uint32())
			}
			content = fmt.Sprint(i, "\n", string(raw))
		} else {
			for range r.IntN(40) {
				content += lines[r.IntN(len(lines))]
			}
			if i%13 == 0 {
				content += "no line end here"
			}
		}
		fmt.Fprintf(&b, "M 100644 inline dir%d/file%d\n", i%5, i%200)
		data(content)
		b.WriteString("\n")
	}
	b.WriteString("done\n")
	return b.String()
}

// gitFrom is the from-line of git's patches.
var gitFrom = regexp.MustCompile(`(?m)^From [0-9a-f]{40} Mon Sep 17 00:00:00 2001\n`)

// patches splits an mbox of git, in another way than the program does.
func patches(mbox []byte) [][]byte {
	starts := gitFrom.FindAllIndex(mbox, -1)
	var all [][]byte
	for i, at := range starts {
		end := len(mbox)
		if i+1 < len(starts) {
			end = starts[i+1][0] - len("\n") // git separates patches by a blank line
		}
		all = append(all, mbox[at[1]:end])
	}
	return all
}

// onWire is the documented rule for line ends: each LF without a CR before it becomes CRLF.
func onWire(text []byte) []byte {
	var b bytes.Buffer
	for i, c := range text {
		if c == '\n' && (i == 0 || text[i-1] != '\r') {
			b.WriteByte('\r')
		}
		b.WriteByte(c)
	}
	return b.Bytes()
}

// onDisk is what mbsync makes of a message in a Maildir: it leaves out every CR, also the bare ones that some of
// the patches have. That those are kept is shown by IMAP.
func onDisk(text []byte) string {
	return strings.ReplaceAll(string(text), "\r", "")
}

func TestRealMailComesBackByteForByte(t *testing.T) {
	s := shared(t)
	u := s.newAccount(t)
	secret := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(secret, []byte(u.Password+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	mbox := history(t)
	want := patches(mbox)
	if len(want) != historyCommits {
		t.Fatalf("the history has %d messages, want %d", len(want), historyCommits)
	}
	path := filepath.Join(t.TempDir(), "history.mbox")
	if err := os.WriteFile(path, mbox, 0o600); err != nil {
		t.Fatal(err)
	}

	var done struct {
		Messages int
		Seconds  float64
	}
	answer := s.shoalctl(t, "import", u.Address, path, "--mailbox", "History", "--password-file", secret, "--json")
	if err := json.Unmarshal([]byte(answer), &done); err != nil || done.Messages != len(want) {
		t.Fatalf("import: %v: %s", err, answer)
	}
	t.Logf("%d messages (%d bytes) imported in %.1f s", done.Messages, len(mbox), done.Seconds)

	samples := spamassassinSamples(t)
	for _, sample := range samples {
		s.shoalctl(t, "import", u.Address, sample, "--mailbox", "Samples", "--password-file", secret)
	}

	t.Run("by IMAP", func(t *testing.T) {
		got := fetchAll(t, s.imap(t, u, "box1", nil), "History")
		if len(got) != len(want) {
			t.Fatalf("%d messages, want %d", len(got), len(want))
		}
		for i := range got {
			if !bytes.Equal(got[i], onWire(want[i])) {
				t.Fatalf("message %d differs:\n%s", i+1, difference(got[i], onWire(want[i])))
			}
		}
	})
	t.Run("by mbsync from the other box", func(t *testing.T) {
		folder := s.mbsync(t, u, "box2")
		wantDisk := make([]string, len(want))
		for i, m := range want {
			wantDisk[i] = onDisk(onWire(m))
		}
		compareSets(t, maildir(t, filepath.Join(folder, "History")), wantDisk)
		var wantSamples []string
		for _, sample := range samples {
			text, err := os.ReadFile(sample)
			if err != nil {
				t.Fatal(err)
			}
			_, content, _ := bytes.Cut(text, []byte("\n")) // the from-line
			if bytes.HasSuffix(content, []byte("\n\n")) {
				content = content[:len(content)-1] // the blank line that ends each message of an mbox
			}
			wantSamples = append(wantSamples, onDisk(onWire(content)))
		}
		compareSets(t, maildir(t, filepath.Join(folder, "Samples")), wantSamples)

		// And back in: the Maildir as mbsync wrote it.
		again := s.newAccount(t)
		if err := os.WriteFile(secret, []byte(again.Password+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		s.shoalctl(t, "import", again.Address, filepath.Join(folder, "Samples"), "--mailbox", "Again", "--password-file", secret)
		compareSets(t, maildir(t, filepath.Join(s.mbsync(t, again, "box1"), "Again")), wantSamples)
	})
}

// spamassassinSamples are the sample mails of Debian's package, each made an mbox of one message.
func spamassassinSamples(t *testing.T) []string {
	t.Helper()
	var all []string
	for _, name := range []string{"sample-spam.txt", "sample-nonspam.txt"} {
		text, err := os.ReadFile("/usr/share/doc/spamassassin/examples/" + name)
		if err != nil {
			t.Fatalf("%v: run make install-deps", err)
		}
		path := filepath.Join(t.TempDir(), name)
		if !bytes.HasPrefix(text, []byte("From ")) {
			text = append([]byte("From sample@example.org Mon Nov 23 12:00:00 2026\n"), text...)
		}
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		all = append(all, path)
	}
	return all
}

// ownField is what mbsync adds to the header of a message that it stores.
var ownField = regexp.MustCompile(`(?m)^X-TUID: .{12}\n`)

// compareSets compares messages that mbsync stored, whose order is not kept.
func compareSets(t *testing.T, got, want []string) {
	t.Helper()
	for i, m := range got {
		if at := ownField.FindStringIndex(m); at != nil {
			got[i] = m[:at[0]] + m[at[1]:]
		}
	}
	if len(got) != len(want) {
		t.Fatalf("%d messages, want %d", len(got), len(want))
	}
	got, want = slices.Sorted(slices.Values(got)), slices.Sorted(slices.Values(want))
	for i := range got {
		if got[i] != want[i] {
			t.Fatalf("a message differs:\n%s", difference([]byte(got[i]), []byte(want[i])))
		}
	}
}

// difference shows the first place where two texts differ.
func difference(got, want []byte) string {
	i := 0
	for i < len(got) && i < len(want) && got[i] == want[i] {
		i++
	}
	near := func(b []byte) []byte { return b[max(0, i-60):min(len(b), i+60)] }
	return fmt.Sprintf("at byte %d of %d and %d\ngot  %q\nwant %q", i, len(got), len(want), near(got), near(want))
}
