package mbox

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"sort"
	"strings"
	"testing"
	"time"
)

func TestUTF7(t *testing.T) {
	for coded, plain := range map[string]string{
		"INBOX":                 "INBOX",
		"Entw&APw-rfe":          "Entwürfe",
		"A&-B":                  "A&B",
		"&U,BTFw-&ZeVnLIqe-":    "台北日本語",
		"&2D3eAA-":              "😀",
		"~peter":                "~peter",
		"Gesendete Objekte 100": "Gesendete Objekte 100",
	} {
		if got := DecodeUTF7(coded); got != plain {
			t.Errorf("decode %q: %q, want %q", coded, got, plain)
		}
		if again := DecodeUTF7(EncodeUTF7(plain)); again != plain {
			t.Errorf("%q: %q, then %q", plain, EncodeUTF7(plain), again)
		}
	}
	for in, want := range map[string]string{"&unclosed": "&unclosed", "Entwürfe": "Entwürfe", "&!-": "&!-", "&AA-": "&AA-", "\xff": "\ufffd"} {
		if got := DecodeUTF7(in); got != want {
			t.Errorf("decode %q: %q, want %q", in, got, want)
		}
	}
}

func mkdirs(t *testing.T, dirs ...string) {
	t.Helper()
	for _, d := range dirs {
		if err := makeFolders(d); err != nil {
			t.Fatal(err)
		}
	}
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func messages(t *testing.T, m *Maildir, f Folder) (all []MaildirMessage) {
	t.Helper()
	if err := m.Messages(f, func(msg MaildirMessage) error {
		all = append(all, msg)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	sort.Slice(all, func(i, j int) bool { return all[i].Base < all[j].Base })
	return all
}

func TestMaildir(t *testing.T) {
	root := t.TempDir()
	mkdirs(t, root, root+"/.Sent", root+"/.Entw&APw-rfe.2026", root+"/.A&AC8-B")
	if err := os.MkdirAll(root+"/.notafolder/cur", 0o700); err != nil {
		t.Fatal(err)
	}
	write(t, root+"/subscriptions", "Sent\nNo.Such\n")
	write(t, root+"/dovecot-keywords", "0 $Junk\n2 work\nnonsense\n99 x\n")
	write(t, root+"/new/1.fresh", "new")
	write(t, root+"/cur/2.seen,S=3:2,S", "abc")
	write(t, root+"/cur/3.all:2,DFPRSTac", "x")
	write(t, root+"/cur/4.none:2,", "x")
	write(t, root+"/cur/5.noinfo", "x")
	write(t, root+"/cur/6.other;2,F", "x")
	write(t, root+"/cur/7.experimental:1,x", "x")
	write(t, root+"/cur/.hidden", "x")
	if err := os.Mkdir(root+"/cur/directory", 0o700); err != nil {
		t.Fatal(err)
	}
	date := time.Unix(1700000000, 0)
	if err := os.Chtimes(root+"/cur/2.seen,S=3:2,S", date, date); err != nil {
		t.Fatal(err)
	}
	m, err := OpenMaildir(root)
	if err != nil {
		t.Fatal(err)
	}
	folders, err := m.Folders()
	if err != nil {
		t.Fatal(err)
	}
	if got, want := fmt.Sprint(folders), fmt.Sprintf("[{INBOX %[1]s true} {A_B %[1]s/.A&AC8-B false} {Entwürfe/2026 %[1]s/.Entw&APw-rfe.2026 false} {Sent %[1]s/.Sent true}]", root); got != want {
		t.Errorf("folders:\n got %s\nwant %s", got, want)
	}
	var got []string
	all := messages(t, m, folders[0])
	for _, msg := range all {
		got = append(got, fmt.Sprintf("%s%v%v%d", msg.Base, msg.Flags, msg.Keywords, msg.Size))
	}
	want := []string{
		"1.fresh[][]3", `2.seen,S=3[\Seen][]3`, `3.all[\Draft \Flagged $Forwarded \Answered \Seen \Deleted][$Junk work]1`,
		"4.none[][]1", "5.noinfo[][]1", `6.other[\Flagged][]1`, "7.experimental[][]1",
	}
	if !slices.Equal(got, want) {
		t.Errorf("messages:\n got %q\nwant %q", got, want)
	}
	if !all[1].Date.Equal(date) {
		t.Errorf("date %v", all[1].Date)
	}
	stop := errors.New("stop")
	if err := m.Messages(folders[0], func(MaildirMessage) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("%v", err)
	}
}

func TestSubscriptionFiles(t *testing.T) {
	for name, file := range map[string][2]string{
		"Dovecot 1":        {"subscriptions", "INBOX\nA.B\n"},
		"Dovecot, slashes": {"subscriptions", "A/B\n"},
		"Dovecot 2":        {"subscriptions", "V\t2\n\nA\tB\n"},
		"Courier":          {"courierimapsubscribed", "INBOX.A.B\n"},
	} {
		root := t.TempDir()
		mkdirs(t, root, root+"/.A", root+"/.A.B")
		write(t, filepath.Join(root, file[0]), file[1])
		m, err := OpenMaildir(root)
		if err != nil {
			t.Fatal(err)
		}
		folders, err := m.Folders()
		if err != nil {
			t.Fatal(err)
		}
		var subscribed []string
		for _, f := range folders {
			if f.Subscribed {
				subscribed = append(subscribed, f.Name)
			}
		}
		if !slices.Equal(subscribed, []string{"INBOX", "A/B"}) {
			t.Errorf("%s: %q", name, subscribed)
		}
	}
}

// A mail client changes flags and moves new messages while they are read.
func TestMaildirThatChanges(t *testing.T) {
	root := t.TempDir()
	mkdirs(t, root)
	const n = 3 * maildirBatch
	for i := range n {
		write(t, fmt.Sprintf("%s/cur/%04d:2,", root, i), "x")
	}
	write(t, root+"/new/fresh", "x")
	m, err := OpenMaildir(root)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]int{}
	if err := m.Messages(Folder{Path: root}, func(msg MaildirMessage) error {
		if len(seen) == 0 {
			if err := os.Rename(msg.Path, root+"/cur/fresh:2,S"); err != nil {
				return err
			}
		}
		if len(seen) == 1 { // every file gets a new name, those of the batch at hand included
			for i := range n {
				old := fmt.Sprintf("%s/cur/%04d:2,", root, i)
				if err := os.Rename(old, old+"S"); err != nil {
					return err
				}
			}
		}
		seen[msg.Base]++
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if len(seen) != n+1 {
		t.Errorf("%d messages, want %d", len(seen), n+1)
	}
	if seen["fresh"] != 1 {
		t.Errorf("a message that moved from new to cur was given %d times", seen["fresh"])
	}
}

func TestOpenMaildirErrors(t *testing.T) {
	if _, err := OpenMaildir(t.TempDir()); !errors.Is(err, ErrNotMaildir) {
		t.Errorf("no Maildir: %v", err)
	}
	if _, err := OpenMaildir(t.TempDir() + "/none"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("nothing there: %v", err)
	}
}

func TestMaildirWriter(t *testing.T) {
	root := t.TempDir() + "/out"
	w, err := CreateMaildir(root)
	if err != nil {
		t.Fatal(err)
	}
	date := time.Unix(1700000000, 0)
	type message struct {
		content         string
		flags, keywords []string
	}
	want := map[string][]message{
		"INBOX":         {{"one\r\n", []string{`\Seen`}, nil}, {"two", nil, []string{"$Forwarded", "Work"}}},
		"Entwürfe/2026": {{"", []string{`\Flagged`, `\Draft`}, []string{"b", "a"}}, {strings.Repeat("x", 100000), nil, []string{"A"}}},
	}
	for _, name := range []string{"INBOX", "Entwürfe/2026"} {
		f, err := w.Folder(name, true)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range want[name] {
			if err := f.Write(strings.NewReader(m.content), m.flags, m.keywords, date); err != nil {
				t.Fatal(err)
			}
		}
		if lost, err := f.Close(); err != nil || lost != nil {
			t.Fatal(lost, err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}

	m, err := OpenMaildir(root)
	if err != nil {
		t.Fatal(err)
	}
	folders, err := m.Folders()
	if err != nil || len(folders) != 2 || folders[1].Name != "Entwürfe/2026" || !folders[1].Subscribed {
		t.Fatalf("%+v, %v", folders, err)
	}
	wantInfo := map[string][]string{
		"INBOX":         {`[\Seen] []`, `[$Forwarded] [Work]`},
		"Entwürfe/2026": {`[\Draft \Flagged] [b a]`, `[] [a]`},
	}
	for _, f := range folders {
		for i, msg := range messages(t, m, f) {
			b, err := os.ReadFile(msg.Path)
			if err != nil || string(b) != want[f.Name][i].content || !msg.Date.Equal(date) {
				t.Errorf("%s %d: %.20q, %v", f.Name, i, b, err)
			}
			if got := fmt.Sprint(msg.Flags, " ", msg.Keywords); got != wantInfo[f.Name][i] {
				t.Errorf("%s %d: %s, want %s", f.Name, i, got, wantInfo[f.Name][i])
			}
		}
	}
	if left, err := os.ReadDir(root + "/tmp"); err != nil || len(left) > 0 {
		t.Errorf("left in tmp: %v, %v", left, err)
	}
}

func TestMaildirWriterLimits(t *testing.T) {
	w, err := CreateMaildir(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"", "a//b", "a.b", "/a"} {
		if _, err := w.Folder(name, false); !errors.Is(err, ErrFolderName) {
			t.Errorf("%q: %v", name, err)
		}
	}
	f, err := w.Folder("inbox", false)
	if err != nil {
		t.Fatal(err)
	}
	var keywords []string
	for i := range maxKeywords + 2 {
		keywords = append(keywords, fmt.Sprintf("k%d", i))
	}
	if err := f.Write(strings.NewReader("x"), nil, keywords, time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	if lost, err := f.Close(); err != nil || !reflect.DeepEqual(lost, []string{"k26", "k27"}) {
		t.Errorf("lost %q, %v", lost, err)
	}
	if err := f.Write(failing{}, nil, nil, time.Unix(1, 0)); !errors.Is(err, errDisk) {
		t.Errorf("failing source: %v", err)
	}
	if left, err := os.ReadDir(filepath.Join(w.path, "tmp")); err != nil || len(left) > 0 {
		t.Errorf("left in tmp: %v, %v", left, err)
	}
}

var errDisk = errors.New("disk on fire")

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, errDisk }
