package shoalctl

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"shoal/daemons/internal/clock"
	"shoal/daemons/internal/mailstore"
	"shoal/daemons/internal/vfs"
)

const adoptedID = "adopted-01"

// adoptRig is a volume and a Maildir beside it.
type adoptRig struct {
	t            *testing.T
	volume, mail string
}

func newAdoptRig(t *testing.T) *adoptRig {
	dir := t.TempDir()
	r := &adoptRig{t: t, volume: filepath.Join(dir, "volume"), mail: filepath.Join(dir, "Maildir")}
	must(t, os.Mkdir(r.volume, 0o700))
	must(t, mailstore.InitVolume(vfs.OS(), r.volume, "0d6f3c6e-6d2c-4c0c-9b0e-2f4f6b1f9a51"))
	return r
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// put writes files of the Maildir; a text of "-" removes one.
func (r *adoptRig) put(files map[string]string) {
	r.t.Helper()
	for name, text := range files {
		path := filepath.Join(r.mail, name)
		must(r.t, os.MkdirAll(filepath.Dir(path), 0o700))
		if text == "-" {
			must(r.t, os.RemoveAll(path))
			continue
		}
		must(r.t, os.WriteFile(path, []byte(text), 0o600))
		must(r.t, os.Chtimes(path, time.Unix(1700000000, 0), time.Unix(1700000000, 0)))
	}
}

// adopt runs the command and returns the numbers added, changed, expunged, without UID.
func (r *adoptRig) adopt(more ...string) [4]int64 {
	r.t.Helper()
	code, out, errOut := r.try(more...)
	if code != 0 {
		r.t.Fatalf("exit code %d: %s", code, errOut)
	}
	var v adoptView
	must(r.t, json.Unmarshal([]byte(out), &v))
	return [4]int64{v.Added, v.Changed, v.Expunged, v.Waiting}
}

func (r *adoptRig) try(more ...string) (int, string, string) {
	return run(r.t, "", append([]string{"adopt", "run", "a@b.test", r.mail, "--volume-path", r.volume, "--account-id", adoptedID, "--json"}, more...)...)
}

func (r *adoptRig) open(server string) (*mailstore.Store, *mailstore.Account) {
	r.t.Helper()
	s, err := mailstore.New(mailstore.Options{Server: server, FS: vfs.OS(), Clock: clock.System(), Log: slog.New(slog.DiscardHandler)})
	must(r.t, err)
	r.t.Cleanup(func() { s.Close() })
	must(r.t, s.AddVolume("vol01", r.volume, "0d6f3c6e-6d2c-4c0c-9b0e-2f4f6b1f9a51"))
	a, err := s.Account(r.t.Context(), "vol01", adoptedID)
	must(r.t, err)
	return s, a
}

// holds compares the account with lines, and the volume with itself.
func (r *adoptRig) holds(want ...string) {
	r.t.Helper()
	ctx := r.t.Context()
	s, a := r.open("box1")
	boxes, err := a.Mailboxes(ctx)
	must(r.t, err)
	var got []string
	for _, b := range boxes {
		m, err := a.Open(ctx, b.Name)
		must(r.t, err)
		st, err := m.State(ctx)
		must(r.t, err)
		got = append(got, strings.TrimSpace(fmt.Sprintf("%s V%d N%d %s", b.Name, st.UIDValidity(), st.UIDNext(), strings.Join(b.SpecialUse, " "))))
		for _, msg := range st.All() {
			f, err := m.OpenMessage(ctx, msg.UID)
			must(r.t, err)
			text, err := io.ReadAll(io.NewSectionReader(f, 0, f.Size()))
			must(r.t, err)
			_, subject, _ := strings.Cut(string(text), "Subject: ")
			subject, rest, _ := strings.Cut(subject, "\r\n")
			if strings.Contains(strings.ReplaceAll(rest, "\r\n", ""), "\n") {
				r.t.Errorf("UID %d has an LF alone: %q", msg.UID, text)
			}
			got = append(got, fmt.Sprintf("  %d %v %v %s %s", msg.UID, msg.Flags, msg.Keywords, msg.UIDL(), subject))
		}
	}
	subs, err := a.Subscriptions(ctx)
	must(r.t, err)
	got = append(got, fmt.Sprint(subs))
	if !reflect.DeepEqual(got, want) {
		r.t.Errorf("the account has\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	report, err := s.Verify(ctx, "vol01", mailstore.VerifyOptions{Content: true})
	must(r.t, err)
	for _, p := range report.Problems {
		r.t.Error(p)
	}
}

func mailOf(subject string) string {
	return "From: x@y.test\nSubject: " + subject + "\n\ntext\nof it\n"
}

func uidlList(validity, next int, bases ...string) string {
	s := fmt.Sprintf("3 V%d N%d\n", validity, next)
	for i, b := range bases {
		s += fmt.Sprintf("%d :%s\n", i+1, b)
	}
	return s
}

// The tree was made by Debian's courier-imap, through its protocols (package maildir).
func TestAdoptCourier(t *testing.T) {
	r := newAdoptRig(t)
	f, err := os.Open("../maildir/testdata/courier.tar.gz")
	must(t, err)
	defer f.Close()
	z, err := gzip.NewReader(f)
	must(t, err)
	for tr := tar.NewReader(z); ; {
		h, err := tr.Next()
		if err == io.EOF {
			break
		}
		must(t, err)
		if h.Typeflag == tar.TypeDir {
			must(t, os.MkdirAll(filepath.Join(r.mail, h.Name), 0o700))
			continue
		}
		text, err := io.ReadAll(tr)
		must(t, err)
		r.put(map[string]string{h.Name: string(text)})
	}
	if got := r.adopt(); got != [4]int64{5, 0, 0, 0} {
		t.Errorf("%v", got)
	}
	if got := r.adopt("--final"); got != [4]int64{} {
		t.Errorf("the final run: %v", got)
	}
	want := []string{
		"Grüße V795453098 N2", "  1 1 []  x",
		"INBOX V795453095 N5", "  1 1 [$Label1 foo] UID1-1795453129 message 1", "  2 6 [$Label1] UID2-1795453129 message 2", "  4 0 [] UID3-1795453129 message 4",
		"Lists/Go V795453094 N1",
		"Sent V795453093 N2 Sent", "  1 1 [$Label1 foo]  message 1",
		"[Grüße INBOX Lists/Go Sent]"}
	r.holds(want...)
	other := newAdoptRig(t)
	other.mail = r.mail
	if got := other.adopt("--prefix", "INBOX", "--final"); got != [4]int64{5, 0, 0, 0} {
		t.Errorf("below INBOX: %v", got)
	}
	other.holds(want[2], want[3], want[4], want[5], "INBOX/"+want[0], want[1], "INBOX/"+want[6], "INBOX/"+want[7], want[8], "[INBOX INBOX/Grüße INBOX/Lists/Go INBOX/Sent]")
}

// A file that a run did not see, because the old server was renaming it, is not lost; mail without a UID gets one in the final
// run, which may be repeated; UIDs that were used up stay so.
func TestAdoptWhatWasMissed(t *testing.T) {
	r := newAdoptRig(t)
	r.put(map[string]string{"cur/1:2,S": mailOf("one"), "cur/3:2,": mailOf("three"), "new/x": "", "dovecot-uidlist": uidlList(77, 20, "1", "2", "3")})
	r.put(map[string]string{"new/x": "-"})
	if got := r.adopt(); got != [4]int64{2, 0, 0, 0} {
		t.Errorf("%v", got)
	}
	r.put(map[string]string{"cur/2:2,F": mailOf("two"), "new/9": mailOf("nine")})
	if got := r.adopt(); got != [4]int64{0, 0, 0, 2} {
		t.Errorf("when they are seen: %v", got)
	}
	for _, want := range [][4]int64{{2, 0, 0, 0}, {}} {
		if got := r.adopt("--final"); got != want {
			t.Errorf("the final run: %v, want %v", got, want)
		}
	}
	if got := r.adopt(); got != [4]int64{} {
		t.Errorf("one without --final after it: %v", got)
	}
	r.put(map[string]string{"cur/2:2,F": "-", "cur/2:2,FS": mailOf("two")})
	if got := r.adopt("--final"); got != [4]int64{0, 1, 0, 0} {
		t.Errorf("a flag of such a message: %v", got)
	}
	r.put(map[string]string{"new/9": "-"})
	if got := r.adopt("--final"); got != [4]int64{0, 0, 1, 0} {
		t.Errorf("the removal of such a message: %v", got)
	}
	r.holds("INBOX V77 N22", "  1 1 [] 000000010000004d one", "  3 0 [] 000000030000004d three", "  20 5 [] 000000140000004d two", "[INBOX]")
}

// Folders: new ones, those whose UIDVALIDITY changes, and those that are deleted; LAYOUT=fs.
func TestAdoptFolders(t *testing.T) {
	r := newAdoptRig(t)
	r.put(map[string]string{"cur/x": "-", "new/x": "-", "dovecot-uidlist": uidlList(5, 1), "A.b/C/cur/1:2,": mailOf("one"), "A.b/C/new/x": "-", "A.b/C/dovecot-uidlist": uidlList(6, 2, "1"),
		"Never/cur/1": mailOf("never"), "Never/new/x": "-", "Gone/cur/1:2,": mailOf("gone"), "Gone/new/x": "-", "Gone/dovecot-uidlist": uidlList(7, 2, "1")})
	if got := r.adopt(); got != [4]int64{2, 0, 0, 1} {
		t.Errorf("%v", got)
	}
	r.put(map[string]string{"A.b/C/dovecot-uidlist": uidlList(16, 3, "2", "1"), "Gone": "-"})
	if got := r.adopt("--special-use", "A.b/C=Archive"); got != [4]int64{1, 0, 0, 1} {
		t.Errorf("another UIDVALIDITY: %v", got)
	}
	r.holds("A.b/C V16 N3 Archive", "  2 0 []  one", "Gone V7 N2", "  1 0 []  gone", "INBOX V5 N1", "[INBOX]")
	if got := r.adopt("--final", "--special-use", "A.b/C=Archive"); got[0] != 1 {
		t.Errorf("the final run: %v", got)
	}
	_, a := r.open("box2")
	never, err := a.Open(t.Context(), "Never")
	must(t, err)
	st, err := never.State(t.Context())
	must(t, err)
	r.holds("A.b/C V16 N3 Archive", "  2 0 []  one", "INBOX V5 N1", fmt.Sprintf("Never V%d N2", st.UIDValidity()), "  1 0 []  never", "[INBOX]")
}

// What is packed is unpacked or named; an account that is in use, or whose INBOX cannot keep its UIDs, is left alone.
func TestAdoptRefusals(t *testing.T) {
	r := newAdoptRig(t)
	var packed bytes.Buffer
	w := gzip.NewWriter(&packed)
	fmt.Fprint(w, mailOf("packed"))
	must(t, w.Close())
	r.put(map[string]string{"new/x": "-", "cur/1,S=40:2,": packed.String(), "cur/2:2,": mailOf("plain"), "dovecot-uidlist": uidlList(5, 3, "1,S=40", "2")})
	if got := r.adopt("--uidl-format", "UID%u-%v"); got != [4]int64{2, 0, 0, 0} {
		t.Errorf("%v", got)
	}
	r.holds("INBOX V5 N3", "  1 0 [] UID1-5 packed", "  2 0 [] UID2-5 plain", "[INBOX]")
	r.put(map[string]string{"cur/3:2,": "\x28\xb5\x2f\xfdxxxx", "dovecot-uidlist": uidlList(5, 4, "1,S=40", "2", "3")})
	if code, _, errOut := r.try(); code == 0 || !strings.Contains(errOut, "cur/3:2, is packed with zstd") {
		t.Errorf("exit code %d: %s", code, errOut)
	}
	r.put(map[string]string{"cur/3:2,": "-", "dovecot-uidlist": uidlList(6, 4, "1,S=40", "2")})
	if code, _, errOut := r.try(); code == 0 || !strings.Contains(errOut, "UIDVALIDITY") {
		t.Errorf("exit code %d: %s", code, errOut)
	}
	r.put(map[string]string{"dovecot-uidlist": uidlList(5, 4, "1,S=40", "2")})
	s, a := r.open("box1")
	m, err := s.Stage(context.Background(), "vol01", strings.NewReader("Subject: delivered\r\n\r\n"), 0)
	must(t, err)
	defer m.Close()
	if res := s.Deliver(context.Background(), m, []mailstore.Target{{Account: a}}); res[0].Err != nil {
		t.Fatal(res[0].Err)
	}
	if code, _, errOut := r.try("--final"); code == 0 || !strings.Contains(errOut, "in use") {
		t.Errorf("exit code %d: %s", code, errOut)
	}
	for args, says := range map[string]string{"--special-use x": "FOLDER=USE", "--uidl-format %m": "%m", "--doveconf /nonexistent": "/nonexistent"} {
		if code, _, errOut := r.try(strings.Fields(args)...); code == 0 || !strings.Contains(errOut, says) {
			t.Errorf("%s: exit code %d: %s", args, code, errOut)
		}
	}
	r.mail = r.volume
	if code, _, errOut := r.try(); code == 0 || !strings.Contains(errOut, "not a Maildir") {
		t.Errorf("exit code %d: %s", code, errOut)
	}
}

// Thousands of messages go in several commits; what is stopped between two of them is taken up.
func TestAdoptMany(t *testing.T) {
	r := newAdoptRig(t)
	const n = 2500
	files := map[string]string{"new/x": "-"}
	bases := make([]string, n)
	for i := range bases {
		bases[i] = fmt.Sprint("m", i)
		files["cur/"+bases[i]+":2,S"] = mailOf(bases[i])
	}
	files["dovecot-uidlist"] = uidlList(9, n+1, bases[:1700]...)
	r.put(files)
	if got := r.adopt(); got != [4]int64{1700, 0, 0, 800} {
		t.Errorf("%v", got)
	}
	r.put(map[string]string{"dovecot-uidlist": uidlList(9, n+1, bases...)})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	tl := &tool{out: io.Discard, err: io.Discard}
	if err := tl.runAdopt(ctx, "a@b.test", r.mail, &adoptFlags{volume: r.volume, accountID: adoptedID}); err == nil {
		t.Error("a run that was stopped says that it was not")
	}
	if got := r.adopt("--final"); got != [4]int64{800, 0, 0, 0} {
		t.Errorf("%v", got)
	}
	_, a := r.open("box1")
	m, err := a.Open(t.Context(), mailstore.Inbox)
	must(t, err)
	st, err := m.State(t.Context())
	must(t, err)
	if st.Len() != n || st.UIDNext() != n+1 || st.ModSeq() < adoptBase {
		t.Errorf("%d messages, UIDNEXT %d, mod-sequence %d", st.Len(), st.UIDNext(), st.ModSeq())
	}
}
