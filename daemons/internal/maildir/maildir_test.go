package maildir

import (
	"archive/tar"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

// unpack puts a tree of testdata into a folder.
func unpack(t *testing.T, name string) string {
	t.Helper()
	f, err := os.Open(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	root := t.TempDir()
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if err == io.EOF {
			return root
		}
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(root, h.Name)
		if h.Typeflag == tar.TypeDir {
			err = os.MkdirAll(path, 0o700)
		} else {
			var b []byte
			if b, err = io.ReadAll(r); err == nil {
				err = os.WriteFile(path, b, 0o600)
			}
		}
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, h.ModTime, h.ModTime); err != nil {
			t.Fatal(err)
		}
	}
}

// describe writes what was found in a tree, a line each.
func describe(t *testing.T, tree *Tree) (out []string) {
	t.Helper()
	for _, f := range tree.Folders() {
		m, err := f.Read()
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, fmt.Sprintf("%s V%d N%d", f.Name, m.UIDValidity, m.UIDNext))
		for _, msg := range m.Messages {
			out = append(out, fmt.Sprintf("  %d %s %v %s", msg.UID, msg.Letters, msg.Keywords, msg.UIDL))
		}
	}
	subs, err := tree.Subscriptions()
	if err != nil {
		t.Fatal(err)
	}
	return append(out, fmt.Sprint(subs))
}

func expect(t *testing.T, got []string, want ...string) {
	t.Helper()
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// The tree was made by Debian's courier-imap 5.0.13 (imapd and courierpop3d), through their protocols.
func TestCourierTree(t *testing.T) {
	tree, err := Open(unpack(t, "courier.tar.gz"), Options{})
	if err != nil {
		t.Fatal(err)
	}
	if tree.Server != Courier || tree.FS || !tree.UTF8 {
		t.Errorf("%+v", tree)
	}
	expect(t, describe(t, tree),
		"INBOX V795453095 N5", "  1 S [$Label1 foo] UID1-1795453129", "  2 FR [$Label1] UID2-1795453129", "  4  [] UID3-1795453129",
		"Grüße V795453098 N2", "  1 S [] ",
		"Lists/Go V795453094 N1",
		"Sent V795453093 N2", "  1 S [$Label1 foo] ",
		"[Sent Lists/Go Grüße]")
}

func put(t *testing.T, root string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(name, "/") {
			if err := os.MkdirAll(path, 0o700); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// Dovecot's lists as they are while it runs: lines of messages that are gone, messages that are not listed yet, half a
// last line, control files elsewhere, LAYOUT=fs. (Trees that Dovecot itself made: tests/cluster.)
func TestDovecotTrees(t *testing.T) {
	root, control := t.TempDir(), t.TempDir()
	put(t, root, map[string]string{
		"cur/1.M1.h,S=3,W=4:2,FSabz": "", "cur/2.M1.h:2,": "", "cur/.hidden": "", "new/4.M1.h": "", "tmp/9": "", "cur/3.M1.h:2,PST": "",
		".Lists.R&-D/cur/": "", ".Lists.R&-D/new/": "", ".nothing/": "", "dir/cur/": "", "dir/new/": "",
	})
	put(t, control, map[string]string{
		"dovecot-uidlist":             "3 V1700000000 N9 Gabc\n5 W4 PUID%5 :1.M1.h,S=3,W=4\n6 :gone\n7 :3.M1.h:2,S\n8 :2.M",
		"dovecot-keywords":            "0 $Label1\n1 Junk (bad)\n25 work\n26 beyond\nx y\n",
		"subscriptions":               "INBOX\nLists.R&-D\n",
		".Lists.R&-D/dovecot-uidlist": "1 1700000001 12\n3 x:2,S\n",
	})
	if err := os.Chtimes(filepath.Join(root, "new/4.M1.h"), time.Unix(10, 0), time.Unix(10, 0)); err != nil {
		t.Fatal(err)
	}
	tree, err := Open(root, Options{Control: control})
	if err != nil {
		t.Fatal(err)
	}
	expect(t, describe(t, tree), "INBOX V1700000000 N9", "  5 FS [$Label1 work] UID%5", "  7 PST [] ", "  0  [] ", "  0  [] ",
		"Lists/R&D V1700000001 N12", "[INBOX Lists/R&D]")
	m, err := tree.Folders()[0].Read()
	if err != nil || len(m.Gone) != 1 || m.Gone[0] != 6 || m.Messages[2].Base != "4.M1.h" {
		t.Errorf("%+v %v", m, err)
	}

	root = t.TempDir()
	put(t, root, map[string]string{"cur/": "", "new/": "", "A.b/C/cur/": "", "A.b/C/new/": "", "A.b/x": "", "Gr&APwA3w-e/cur/": "", "Gr&APwA3w-e/new/1": "",
		"dovecot-uidlist": "3 V5 N1\n", "subscriptions": "V\t2\n\nA.b\tC\n"})
	if tree, err = Open(root, Options{}); err != nil {
		t.Fatal(err)
	}
	expect(t, describe(t, tree), "INBOX V5 N1", "A.b/C V0 N0", "Grüße V0 N1", "  0  [] ", "[A.b/C]")
	if _, err := Open(filepath.Join(root, "A.b"), Options{}); !errors.Is(err, ErrNotMaildir) {
		t.Errorf("no Maildir: %v", err)
	}
	for _, bad := range []string{"", "2 V1 N1\n", "3 N1\n", "3 V1 N1\nx :y\n", "3 V1 N1\n5 y\n", "3 V1 N1\n0 :y\n", "3 V1 N1\n4294967295 :y\n", "3 V1 N1\n5 :a/b\n"} {
		put(t, root, map[string]string{"dovecot-uidlist": bad})
		if _, err := tree.Folders()[0].Read(); !errors.Is(err, ErrFormat) || !strings.Contains(err.Error(), "dovecot-uidlist") {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestUIDLFormats(t *testing.T) {
	m := &Message{UID: 300, Base: "17.M1.Host"}
	for format, want := range map[string]string{DefaultUIDL: "0000012c00001267", "%v-%u": "4711-300", "UID%u-%v": "UID300-4711", "%f": "17.M1.Host", "%Lf%%": "17.m1.host%", "%Uf": "17.M1.HOST"} {
		if got, err := FormatUIDL(format, 4711, m); got != want || err != nil {
			t.Errorf("%s: %q %v, want %q", format, got, err, want)
		}
	}
	for _, format := range []string{"%m", "%", "%08", "%999u"} {
		if got, err := FormatUIDL(format, 1, m); !errors.Is(err, ErrFormat) {
			t.Errorf("%s: %q %v", format, got, err)
		}
	}
}

func TestSettings(t *testing.T) {
	s, err := ParseSettings([]byte("# 2.3\nmail_location = maildir:~/Maildir\nnamespace inbox {\n  inbox = yes\n  mailbox \"Sent Messages\" {\n    special_use = \\Sent\n  }\n" +
		"  mailbox Ablage.2023 {\n    auto = subscribe\n    special_use = \\Archive \\Important\n  }\n  separator = .\n}\nprotocol pop3 {\n  pop3_uidl_format = UID%u-%v\n}\n"))
	if err != nil {
		t.Fatal(err)
	}
	want := map[string][]string{"Sent Messages": {"Sent"}, "Ablage/2023": {"Archive", "Important"}}
	if !reflect.DeepEqual(s.SpecialUse, want) || s.UIDLFormat != "UID%u-%v" {
		t.Errorf("%+v", s)
	}
	var folders []Folder
	for _, n := range []string{"INBOX", "Ablage/2023", "Archive", "Sent", "Sent Messages", "Spam"} {
		folders = append(folders, Folder{Name: n})
	}
	want["Spam"] = []string{"Junk"}
	if got := SpecialUses(folders, s); !reflect.DeepEqual(got, want) {
		t.Errorf("%v", got)
	}
	for _, bad := range []string{"}", "a {"} {
		if _, err := ParseSettings([]byte(bad)); !errors.Is(err, ErrFormat) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

// What is written is read back, and has the files themselves.
func TestWriter(t *testing.T) {
	dir := t.TempDir()
	put(t, dir, map[string]string{"a": "Subject: x\n\n", "b": "Subject: y\r\n\r\n"})
	root := filepath.Join(dir, "Maildir")
	var owned int
	w, err := Create(root, func(string) error { owned++; return nil })
	if err != nil {
		t.Fatal(err)
	}
	var many []string
	for i := range 28 {
		many = append(many, fmt.Sprintf("k%02d", i))
	}
	date := time.Unix(1700000000, 0)
	lost, err := w.Folder("INBOX", 77, 30, func(yield func(Outgoing) bool) {
		_ = yield(Outgoing{Path: filepath.Join(dir, "a"), UID: 3, Letters: "SF", Keywords: []string{"k01"}, Date: date, File: 12, Size: 14, UIDL: "abc"}) &&
			yield(Outgoing{Path: filepath.Join(dir, "b"), UID: 20, Keywords: many, Date: date, File: 14, Size: 14})
	})
	if err != nil || len(lost) != 2 || lost[1] != "k27" {
		t.Fatalf("%v %v", lost, err)
	}
	if _, err := w.Folder("Lists/Grüße", 78, 1, func(func(Outgoing) bool) {}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Folder("a.b", 79, 1, func(func(Outgoing) bool) {}); err == nil {
		t.Error("a level with a dot was written")
	}
	w.Subscribe("INBOX")
	w.Subscribe("Lists/Grüße")
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	tree, err := Open(root, Options{})
	if err != nil {
		t.Fatal(err)
	}
	expect(t, describe(t, tree), "INBOX V77 N30", "  3 FS [k01] abc", "  20  "+fmt.Sprint(append([]string{"k01", "k00"}, many[2:26]...))+" ", "Lists/Grüße V78 N1", "[INBOX Lists/Grüße]")
	m, err := tree.Folders()[0].Read()
	if err != nil {
		t.Fatal(err)
	}
	a, err1 := os.Stat(filepath.Join(dir, "a"))
	b, err2 := os.Stat(m.Messages[0].Path)
	if err1 != nil || err2 != nil || !os.SameFile(a, b) || !b.ModTime().Equal(date) || owned < 10 || w.Copied != 0 {
		t.Errorf("%v %v; %d owned", err1, err2, owned)
	}
	if _, err := Create(root, nil); !errors.Is(err, os.ErrExist) {
		t.Errorf("over what is there: %v", err)
	}
}

func FuzzUIDList(f *testing.F) {
	for _, s := range []string{"3 V1700000000 N9 Gabc\n5 W4 PUID%5 :1.M1.h,S=3,W=4\n6 :gone\n8 :2.M", "1 795453095 5\n1 1700000001.M1P1.host\n2 b:2,S", "3 V1 N1\n", "", "3 V1 N4294967295\n4294967294 :x\n"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		h, list, err := parseUIDList(b)
		if err != nil {
			if !errors.Is(err, ErrFormat) {
				t.Fatal(err)
			}
			return
		}
		for _, e := range list {
			if e.uid == 0 || e.uid >= h.next || e.base == "" || strings.ContainsAny(e.base, "/:\n") {
				t.Fatalf("%+v of %+v", e, h)
			}
		}
	})
}

func FuzzCourierLists(f *testing.F) {
	f.Add([]byte("$Label1\nfoo\n\n1700000001.M1P1.host:0 1\nx,S=93:0\n"), ".5984844.1700000002.M1P1.host")
	f.Add([]byte("/3 4 1795453129\n1700000001.M1P1.host:2,S 100 1:1795453129:0\na 5 7\nb 9\n"), "base")
	f.Add([]byte("INBOX\nINBOX.Sent\nINBOX.\nx\n"), ":list")
	f.Fuzz(func(t *testing.T, b []byte, name string) {
		for base, kw := range parseCourierKeywords(b) {
			for _, k := range kw {
				if base == "" || !validKeyword(k) {
					t.Fatalf("%q: %q", base, kw)
				}
			}
		}
		for base, id := range parseCourierPOP(b) {
			if base != "" && id == "" {
				t.Fatalf("%q has no id", base)
			}
		}
		for _, levels := range parseCourierSubscribed(b) {
			if len(levels) == 0 {
				t.Fatal("a subscription without a name")
			}
		}
		if base, age, ok := keywordUpdate(name); ok && (base == "" || age < 0) {
			t.Fatalf("%q: %q %d", name, base, age)
		}
	})
}

func FuzzDovecotTexts(f *testing.F) {
	f.Add([]byte("V\t2\n\nLists\tGo\nGr&APwA3w-e\n"), "%08Xu%08Xv")
	f.Add([]byte("0 foo\n1 $Label1\n"), "UID%u-%v")
	f.Add([]byte("namespace inbox {\n  mailbox Sent {\n    special_use = \\Sent\n  }\n  separator = .\n}\n"), "%f%")
	f.Fuzz(func(t *testing.T, b []byte, format string) {
		parseDovecotSubscriptions(b)
		for _, k := range parseKeywords(b) {
			if k != "" && !validKeyword(k) {
				t.Fatalf("keyword %q", k)
			}
		}
		if _, err := ParseSettings(b); err != nil && !errors.Is(err, ErrFormat) {
			t.Fatal(err)
		}
		if _, err := FormatUIDL(format, 1, &Message{UID: 2, Base: "x"}); err != nil && !errors.Is(err, ErrFormat) {
			t.Fatal(err)
		}
	})
}
