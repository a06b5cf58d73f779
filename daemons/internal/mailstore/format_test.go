package mailstore

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the golden files anew: only for a new format version")

// foldLines folds records, one per line, from the first on.
func foldLines(fold logFold, text string) (marks, error) {
	m := marks{}
	n := uint64(0)
	for line := range strings.SplitSeq(text, "\n") {
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		n++
		r, err := parseRecord(line)
		if err != nil {
			return m, fmt.Errorf("record %d: %w", n, err)
		}
		if err := fold.applyRecord(&tailRecord{n, r.nonce, r.body}, nil); err != nil {
			return m, fmt.Errorf("record %d: %w", n, err)
		}
		m.add(r.nonce, n)
	}
	return m, nil
}

// TestGolden folds records that were written by version 1.0 and compares the state with what version 1.0 made
// of them, and reads a snapshot that version 1.0 wrote. These files never change: a later version must
// understand them in the same way.
func TestGolden(t *testing.T) {
	for _, kind := range []*logKind{mailboxKind, accountKind} {
		t.Run(kind.name, func(t *testing.T) {
			file := func(ext string) string { return filepath.Join("testdata", "golden", kind.name+ext) }
			records, err := os.ReadFile(file(".records"))
			if err != nil {
				t.Fatal(err)
			}
			fold := kind.fresh()
			m, err := foldLines(fold, string(records))
			if err != nil {
				t.Fatal(err)
			}
			state := fold.state()
			snap := state.(snapshotter).appendSnapshot(nil, m, nil)
			if *update {
				for ext, b := range map[string][]byte{".state": []byte(canonical(state)), ".snapshot": snap} {
					if err := os.WriteFile(file(ext), b, 0o644); err != nil {
						t.Fatal(err)
					}
				}
			}
			want, err := os.ReadFile(file(".state"))
			if err != nil {
				t.Fatal(err)
			}
			if got := canonical(state); got != string(want) {
				t.Errorf("the fold of the records differs: %s", firstDifference(got, string(want)))
			}
			old, err := os.ReadFile(file(".snapshot"))
			if err != nil {
				t.Fatal(err)
			}
			s, err := parseSnapshot(string(old), kind.name, kind.lines)
			if err != nil {
				t.Fatal(err)
			}
			loaded, err := kind.load(s)
			if err != nil {
				t.Fatal(err)
			}
			if got := canonical(loaded.state()); got != string(want) {
				t.Errorf("the snapshot differs: %s", firstDifference(got, string(want)))
			}
			if fmt.Sprint(s.marks) != fmt.Sprint(m) {
				t.Errorf("last records %v, want %v", s.marks, m)
			}
			// And what it writes now means the same.
			again, err := parseSnapshot(string(snap), kind.name, kind.lines)
			if err != nil {
				t.Fatal(err)
			}
			if loaded, err = kind.load(again); err != nil || canonical(loaded.state()) != string(want) {
				t.Errorf("a snapshot of now does not read back: %v", err)
			}
		})
	}
}

// TestRefused: what must not be read, and why.
func TestRefused(t *testing.T) {
	const head = "box1.abc.1 "
	for _, c := range []struct {
		record string
		want   error
	}{
		{"", ErrCorrupt}, {"box1.abc.1", ErrCorrupt}, {"box1.abc.1 ", ErrCorrupt}, {"Box1.abc.1 Z", ErrCorrupt},
		{"box1.ABC.1 Z", ErrCorrupt}, {"box1.1 Z", ErrCorrupt}, {"box1.abc.01 Z", ErrCorrupt}, {"floor.abc.1 Z", ErrCorrupt},
		{head + "Z|", ErrCorrupt}, {head + "|Z", ErrCorrupt}, {head + "Z x", ErrCorrupt},
		{head + "Y", ErrNewerFormat}, {head + "Z|Q 1", ErrNewerFormat}, {head + "O 2.0 v=1", ErrNewerFormat},
		{head + "O 1.0 V=1", ErrNewerFormat}, {head + "O 1.7 v=1 q=later", nil}, {head + "O 1.0 v=0", ErrCorrupt},
		{head + "q later|Z", nil}, {head + "? x", ErrCorrupt}, {head + "1", ErrCorrupt},
		{head + "D abc", ErrCorrupt}, {head + "D abc .1.2", ErrCorrupt}, {head + "D abc .1.2.3", nil},
		{head + "D -abc box2.xyz.1.2.3", nil}, {head + "D abc .1.2.3;q=later", nil}, {head + "D abc .1.2.3;Q=later", ErrNewerFormat},
		{head + "D abc .1.2.3;u=0", ErrCorrupt}, {head + "D abc .1.2.3;u=4294967295", ErrCorrupt}, {head + "D abc .1.2.zzzzzzzz", ErrCorrupt},
		{head + "D abc .1.2.3;f=Q", ErrCorrupt}, {head + "D abc .1.2.3;f=S,%2", ErrCorrupt}, {head + "D abc .1.2.3;f=S,%41", ErrCorrupt},
		{head + "F S 1", ErrCorrupt}, {head + "F +S 0", ErrCorrupt}, {head + "F +S 2:1", ErrCorrupt}, {head + "F +S 1,1", ErrCorrupt},
		{head + "F +S 1:2,3", ErrCorrupt}, {head + "F +S 1:*", nil}, {head + "F +S 1 u", ErrCorrupt}, {head + "F +S 1 u0", nil},
		{head + "E", ErrCorrupt}, {head + "X 4294967296", ErrCorrupt}, {head + "V 0", ErrCorrupt}, {head + "G x", ErrCorrupt},
		{head + "@1.2", nil}, {head + "@0.2", ErrCorrupt}, {head + "@zzzzzzz.1", ErrCorrupt}, {head + "@1", ErrCorrupt},
	} {
		_, err := foldLines(newMailFold(), "a.1.1 O 1.0 v=1\n"+c.record)
		if c.record == "" {
			_, err = parseRecord("")
		}
		if strings.HasPrefix(c.record, head+"@") {
			_, err = parseRecord(c.record)
		}
		if !errors.Is(err, c.want) || c.want == nil && err != nil {
			t.Errorf("%q: %v, want %v", c.record, err, c.want)
		}
	}
	for _, c := range []struct {
		record string
		want   error
	}{
		{head + "C box1.a.1 1 INBOX", nil}, {head + "C box1.a.1 0 INBOX", ErrCorrupt}, {head + "C box1.a.1 1", ErrCorrupt},
		{head + "C box1.a.1 1 a b=c", nil}, {head + "C box1.a.1 1 a B=c", ErrNewerFormat}, {head + "C box1.a.1 1 a b", ErrCorrupt},
		{head + "R - a", ErrCorrupt}, {head + "R - a b c", ErrCorrupt}, {head + "D a", ErrCorrupt}, {head + "S", ErrCorrupt},
		{head + "S a%20b", nil}, {head + "S a=b", ErrCorrupt}, {head + "A - x", ErrCorrupt}, {head + "A - x=", nil},
		{head + "q x", nil}, {head + "Q x", ErrNewerFormat}, {head + "Zx", ErrCorrupt},
	} {
		if _, err := foldLines(newAcctFold(), c.record); !errors.Is(err, c.want) || c.want == nil && err != nil {
			t.Errorf("account: %q: %v, want %v", c.record, err, c.want)
		}
	}
}

// TestUnknownSurvives: what a later minor version adds is kept by this one, through snapshots.
func TestUnknownSurvives(t *testing.T) {
	f := newMailFold()
	m, err := foldLines(f, "a.1.1 O 1.9 v=7 q=x\na.1.2 D abc .1.2.3;f=S;q=new%20field;e=mail;r=2\na.1.3 w something new|F +F 1")
	if err != nil {
		t.Fatal(err)
	}
	text := string(f.publish().appendSnapshot(nil, m, []string{"y a line of a later version"}))
	for _, want := range []string{"k 3 w something new\n", ";e=mail;q=new%20field;r=2\n", "\ny a line of a later version\n"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	s, err := parseSnapshot(text, kindMailbox, mailLines)
	if err != nil {
		t.Fatal(err)
	}
	f, err = loadMailSnapshot(s)
	if err != nil {
		t.Fatal(err)
	}
	if again := string(f.publish().appendSnapshot(nil, s.marks, s.other)); again != text {
		t.Errorf("not the same after reading and writing:\n%s\n%s", again, text)
	}
}

func FuzzRecord(f *testing.F) {
	for _, name := range []string{"mailbox.records", "account.records"} {
		b, err := os.ReadFile(filepath.Join("testdata", "golden", name))
		if err != nil {
			f.Fatal(err)
		}
		for line := range strings.SplitSeq(string(b), "\n") {
			f.Add(line)
		}
	}
	f.Fuzz(func(t *testing.T, line string) {
		r, err := parseRecord(line)
		if err != nil || r.spill {
			return
		}
		// What parses is written again in the same words, except for the order of fields.
		_ = eachOp(r.body, func(text string) error {
			if op, skip, err := parseMailOp(text, r.nonce.origin); err == nil && !skip {
				out := op.append(nil, r.nonce.origin)
				op2, _, err := parseMailOp(string(out), r.nonce.origin)
				if err != nil || !bytes.Equal(op2.append(nil, r.nonce.origin), out) {
					t.Errorf("%q is written as %q (%v)", text, out, err)
				}
			}
			if op, skip, err := parseAcctOp(text); err == nil && !skip {
				out := op.append(nil)
				op2, _, err := parseAcctOp(string(out))
				if err != nil || !bytes.Equal(op2.append(nil), out) {
					t.Errorf("account: %q is written as %q (%v)", text, out, err)
				}
			}
			return nil
		})
		for _, fold := range []logFold{newMailFold(), newAcctFold()} {
			_ = fold.applyRecord(&tailRecord{1, r.nonce, "O 1.0 v=1"}, nil)
			if fold.applyRecord(&tailRecord{2, r.nonce, "D abc .1.2.3 .2.3.4;f=SD"}, nil) != nil {
				_ = fold.applyRecord(&tailRecord{2, r.nonce, "C a.1.1 1 INBOX"}, nil)
			}
			if fold.applyRecord(&tailRecord{3, r.nonce, r.body}, nil) == nil {
				if s, ok := fold.state().(*State); ok {
					if err := s.check(); err != nil {
						t.Errorf("%q: %v", line, err)
					}
				}
			}
		}
	})
}

func FuzzSnapshot(f *testing.F) {
	for _, kind := range []string{kindMailbox, kindAccount} {
		b, err := os.ReadFile(filepath.Join("testdata", "golden", kind+".snapshot"))
		if err != nil {
			f.Fatal(err)
		}
		text := string(b)
		f.Add(text[:strings.LastIndex(text, "end ")])
	}
	f.Add("shoal-snapshot 1.0 mailbox\nn 12\nb 10\nr 11 a.1.2 Z\nr 12 a.1.3 x y\n")
	f.Fuzz(func(t *testing.T, text string) {
		// The checksum is made right, or nothing would get past it.
		text = string(appendSnapshotEnd([]byte(text)))
		for _, kind := range []*logKind{mailboxKind, accountKind} {
			s, err := parseSnapshot(text, kind.name, kind.lines)
			if err != nil || s.base != 0 {
				continue
			}
			fold, err := kind.load(s)
			if err != nil {
				continue
			}
			state := fold.state()
			if st, ok := state.(*State); ok {
				if err := st.check(); err != nil {
					t.Fatal(err)
				}
			}
			out := string(state.(snapshotter).appendSnapshot(nil, s.marks, s.other))
			s2, err := parseSnapshot(out, kind.name, kind.lines)
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			fold, err = kind.load(s2)
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			if a, b := canonical(state), canonical(fold.state()); a != b {
				t.Fatal(firstDifference(a, b))
			}
		}
	})
}
