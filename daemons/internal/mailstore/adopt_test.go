package mailstore

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"shoal/daemons/internal/vfs"
)

// foreign puts a file of another server beside the store.
func foreign(t testing.TB, fs vfs.FS, path, text string) AdoptMessage {
	t.Helper()
	if err := writeFile(fs, path, []byte(text)); err != nil {
		t.Fatal(err)
	}
	c, err := Measure(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	return AdoptMessage{Path: path, Content: c, InternalDate: time.Unix(1700000000, 0)}
}

// Files with LF, CRLF and both come out as messages with CRLF, whole and in any part of them, small and large; through
// copies and moves, snapshots and another server; and the files are those that the other server has.
func TestAdoptedFiles(t *testing.T) {
	ctx := context.Background()
	mem := vfs.NewMem(time.Now)
	s := testStore(t, mem, "/", "adopt")
	a, err := s.AdoptAccount(ctx, "vol01", "account-1", InboxOptions{UIDValidity: 4711, ModSeqBase: 1 << 40})
	if err != nil {
		t.Fatal(err)
	}
	if err := mem.Mkdir("/old"); err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(1, 2))
	var large strings.Builder
	for large.Len() < 5*lfBlock {
		large.WriteString(strings.Repeat("x", r.IntN(300)))
		large.WriteString([]string{"\n", "\r\n", "\r", "\n\n"}[r.IntN(4)])
	}
	texts := map[uint32]string{
		3: "Subject: unix\n\nline\nline\n", 4: "Subject: mail\r\n\r\nline\r\n", 9: "\n\r\n\n", 20: "no end", 21: large.String(),
		22: strings.Repeat("y\n", lfBlock), 23: "",
	}
	var msgs []AdoptMessage
	for _, uid := range []uint32{3, 4, 9, 20, 21, 22, 23} {
		m := foreign(t, mem, "/old/"+strings.Repeat("m", int(uid)), texts[uid])
		m.UID, m.Flags, m.Keywords, m.UIDL = uid, FlagSeen, []string{"$Label1"}, "0000002100001267"
		msgs = append(msgs, m)
	}
	box, err := a.Open(ctx, Inbox)
	if err != nil {
		t.Fatal(err)
	}
	st, err := box.Adopt(ctx, msgs)
	if err != nil {
		t.Fatal(err)
	}
	if st.UIDValidity() != 4711 || st.ModSeq() < 1<<40 || st.UIDNext() != 24 || st.Len() != 7 {
		t.Errorf("UIDVALIDITY %d, mod-sequence %d, UIDNEXT %d, %d messages", st.UIDValidity(), st.ModSeq(), st.UIDNext(), st.Len())
	}
	if _, err := a.Create(ctx, "Copies", CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	copies, err := a.Open(ctx, "Copies")
	if err != nil {
		t.Fatal(err)
	}
	copied, err := box.CopyTo(ctx, UIDSet{{1, MaxUID}}, copies)
	if err != nil {
		t.Fatal(err)
	}
	for range 3 * 128 {
		if _, err := box.ChangeFlags(ctx, FlagChange{UIDs: NewUIDSet(3), Op: FlagsAdd, Keywords: []string{"k" + string(rune('a'+r.IntN(26)))}}); err != nil {
			t.Fatal(err)
		}
	}
	look := testInbox(t, testStore(t, mem, "/", "box1"), "account-1")
	check := func(m *Mailbox, uid uint32, text string) {
		t.Helper()
		want := string(appendCRLF(nil, []byte(text), 0))
		f, err := m.OpenMessage(ctx, uid)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		msg, _ := mustState(t, m).ByUID(uid)
		if f.Size() != int64(len(want)) || msg.Size != f.Size() || msg.FileSize() != int64(len(text)) || msg.Server() != "adopt" {
			t.Errorf("UID %d: sizes %d and %d of %d, want %d", uid, f.Size(), msg.Size, msg.FileSize(), len(want))
		}
		got, err := io.ReadAll(io.NewSectionReader(f, 0, f.Size()))
		if err != nil || string(got) != want {
			t.Errorf("UID %d: %d bytes, %v", uid, len(got), err)
		}
		for range 200 {
			off := r.IntN(len(want) + 1)
			p := make([]byte, 1+r.IntN(min(len(want)-off+3, 3*lfBlock)))
			n, err := f.ReadAt(p, int64(off))
			if end := min(off+len(p), len(want)); string(p[:n]) != want[off:end] || (n < len(p)) != (err == io.EOF) || err != nil && err != io.EOF {
				t.Fatalf("UID %d: %d bytes at %d: %d, %v", uid, len(p), off, n, err)
			}
		}
	}
	for i, uid := range copied.Source {
		check(box, uid, texts[uid])
		check(look, uid, texts[uid])
		check(copies, copied.Dest[i], texts[uid])
	}
	var sum int64
	for _, m := range mustState(t, look).All() {
		sum += m.Size
		if m.UIDL() != "0000002100001267" || m.InternalDate().Unix() != 1700000000 || m.SaveDate().Unix() != 1700000000 {
			t.Errorf("UID %d: %q %v %v", m.UID, m.UIDL(), m.InternalDate(), m.SaveDate())
		}
	}
	if got := mustState(t, look).Bytes(); got != sum {
		t.Errorf("%d bytes, the messages have %d", got, sum)
	}
	for _, m := range mustState(t, copies).All() {
		if m.UIDL() != "" {
			t.Errorf("copy %d has the unique-id %q of the message", m.UID, m.UIDL())
		}
	}
	verify(t, mem, "/")

	// What was used stays used; a UIDVALIDITY that has been used does not change.
	if err := box.SkipUIDs(ctx, 100); err != nil {
		t.Fatal(err)
	}
	if st := mustState(t, box); st.UIDNext() != 100 || st.Len() != 7 {
		t.Errorf("UIDNEXT %d, %d messages", st.UIDNext(), st.Len())
	}
	if _, err := box.Adopt(ctx, msgs[:1]); err == nil {
		t.Error("a UID was adopted twice")
	}
	if _, err := s.AdoptAccount(ctx, "vol01", "account-1", InboxOptions{UIDValidity: 12}); !errors.Is(err, ErrUIDValidity) {
		t.Errorf("another UIDVALIDITY: %v", err)
	}
	if _, err := s.AdoptAccount(ctx, "vol01", "account-1", InboxOptions{UIDValidity: 4711}); err != nil {
		t.Errorf("the same again: %v", err)
	}
	fresh := testInbox(t, s, "account-2")
	if _, err := s.AdoptAccount(ctx, "vol01", "account-2", InboxOptions{UIDValidity: 12}); err != nil || mustState(t, fresh).UIDValidity() != 12 {
		t.Errorf("an empty INBOX: %v", err)
	}
	missing := msgs[0]
	missing.Path, missing.UID = "/old/nothing", 200
	if _, err := box.Adopt(ctx, []AdoptMessage{missing}); !errors.Is(err, ErrNotLinked) {
		t.Errorf("a file that is not there: %v", err)
	}
}

// A file that changed after it was adopted is noticed.
func TestAdoptedFileChanges(t *testing.T) {
	ctx := context.Background()
	mem := vfs.NewMem(time.Now)
	s := testStore(t, mem, "/", "adopt")
	box := testInbox(t, s, "account-1")
	for i, text := range []string{"a\nb\nc\n", strings.Repeat("a\nb", inMemory)} {
		m := foreign(t, mem, "/f"+string(rune('0'+i)), text)
		m.UID = uint32(i + 1)
		if _, err := box.Adopt(ctx, []AdoptMessage{m}); err != nil {
			t.Fatal(err)
		}
		msg, _ := mustState(t, box).ByUID(m.UID)
		if err := mem.Unlink(box.FilePath(msg)); err != nil {
			t.Fatal(err)
		}
		if err := writeFile(mem, box.FilePath(msg), []byte(strings.Replace(text, "\n", "\r", 1))); err != nil {
			t.Fatal(err)
		}
		if _, err := box.OpenMessage(ctx, m.UID); !errors.Is(err, ErrCorrupt) {
			t.Errorf("file %d: %v", i, err)
		}
	}
}

func TestCRLFReader(t *testing.T) {
	for _, text := range []string{"", "\n", "a\r", "a\r\nb\nc\n\n\r\n", "\r\r\n\n"} {
		want := appendCRLF(nil, []byte(text), 0)
		for _, r := range []io.Reader{strings.NewReader(text), iotest.OneByteReader(strings.NewReader(text))} {
			if got, err := io.ReadAll(CRLFReader(r)); err != nil || !bytes.Equal(got, want) {
				t.Errorf("%q: %q, %v", text, got, err)
			}
		}
	}
	if _, err := io.ReadAll(CRLFReader(iotest.ErrReader(io.ErrUnexpectedEOF))); err != io.ErrUnexpectedEOF {
		t.Error(err)
	}
}
