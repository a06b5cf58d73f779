package mailstore

import (
	"context"
	"errors"
	"fmt"

	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"shoal/daemons/internal/vfs"
)

// errLost is what a caller sees when a reply got lost for good.
const errLost = syscall.EIO

// world is a volume in memory with an account that has seen some use.
type world struct {
	t     *testing.T
	mem   *vfs.Mem
	fault *vfs.Fault
	s     *Store
	box   *Mailbox
	other *Mailbox
	shift time.Duration // how far the file server's clock has moved on
}

const bigFlags = 300 // keywords in a record that does not fit into a symlink

func smallKnobs(s *Store) { s.knobs.segmentLen, s.knobs.completeEvery, s.knobs.deltaEvery = 4, 6, 3 }

// volumeKind is what the volume of a world lies on.
type volumeKind string

const (
	onPosix   volumeKind = "posix"   // a local file system of which nothing is known
	onJournal volumeKind = "journal" // a local file system with an ordered journal
)

func newWorld(t *testing.T, kind volumeKind) *world {
	w := &world{t: t}
	w.mem = vfs.NewMem(func() time.Time { return time.Now().Add(w.shift) })
	if kind == onJournal {
		w.mem.SetJournal()
	}
	w.fault = vfs.NewFault(w.mem)
	w.s = w.store(w.fault, "box1")
	w.box = testInbox(t, w.s, "account-1")
	for i := range 5 {
		appendOne(t, w.box, fmt.Sprintf("old message %d", i+1), FlagSeen, "kept")
	}
	ctx := context.Background()
	if _, err := w.box.Account().Create(ctx, "Archive", CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	var err error
	if w.other, err = w.box.Account().Open(ctx, "Archive"); err != nil {
		t.Fatal(err)
	}
	appendOne(t, w.other, "archived", 0)
	return w
}

func (w *world) store(fs vfs.FS, server string) *Store {
	s := testStore(w.t, fs, "/", server, func(o *Options) { o.Retention = 1; o.CallTimeout = time.Hour })
	smallKnobs(s)
	return s
}

// look describes all that a client could see, as another server sees it.
func (w *world) look(fs vfs.FS) string {
	ctx := context.Background()
	s := w.store(fs, "looker")
	var b strings.Builder
	for _, id := range []string{"account-1", "account-2"} {
		a, err := s.existing(mustVolume(s), id)
		if err != nil {
			w.t.Fatal(err)
		}
		list, err := a.Mailboxes(ctx)
		if errors.Is(err, ErrNoAccount) {
			continue
		}
		if err != nil {
			w.t.Fatal(err)
		}
		all, err := a.Listing(ctx)
		if err != nil {
			w.t.Fatal(err)
		}
		fmt.Fprintf(&b, "%s %v\n", id, all.Attrs("", ""))
		for _, i := range list {
			fmt.Fprintf(&b, "%v\n", all.Attrs(i.ID, ""))
			m, err := a.Open(ctx, i.Name)
			if err != nil {
				w.t.Fatal(err)
			}
			st, err := m.State(ctx)
			if err != nil {
				w.t.Fatal(err)
			}
			fmt.Fprintf(&b, "%s %s %v %v:", id, i.Name, i.Subscribed, i.SpecialUse)
			for _, msg := range st.All() {
				f, err := m.OpenMessage(ctx, msg.UID)
				if err != nil {
					w.t.Fatal(err)
				}
				fmt.Fprintf(&b, " %d=%q%d%.20q", msg.UID, f.Bytes(), msg.Flags, msg.Keywords)
			}
			b.WriteString("\n")
		}
	}
	return b.String()
}

func mustVolume(s *Store) *volume {
	v, err := s.volume("vol01")
	if err != nil {
		panic(err)
	}
	return v
}

// check verifies the volume and that it goes on working.
func (w *world) check(fs vfs.FS) {
	ctx := context.Background()
	s := w.store(fs, "verifier")
	r, err := s.Verify(ctx, "vol01", VerifyOptions{Content: true})
	if err != nil {
		w.t.Error(err)
		return
	}
	for _, p := range r.Problems {
		w.t.Error(p)
	}
	m := testInbox(w.t, s, "account-1")
	before, err := m.State(ctx)
	if err != nil {
		w.t.Error(err)
		return
	}
	if uid := appendOne(w.t, m, "goes on", 0); uid < before.UIDNext() {
		w.t.Errorf("UID %d, but UIDNEXT was %d", uid, before.UIDNext())
	}
}

// scenario is one operation of the store. between lists states that may be left behind when it fails half way,
// beside "as before" and "as after"; each is reached by an operation of its own.
type scenario struct {
	name    string
	setup   func(w *world) error
	run     func(w *world) error
	between []func(w *world) error
}

func scenarios() []scenario {
	ctx := context.Background()
	stageAnd := func(size int, f func(w *world, m *Staged) error) func(w *world) error {
		return func(w *world) error {
			m, err := w.s.Stage(ctx, "vol01", strings.NewReader(strings.Repeat("n", size)), 0)
			if err != nil {
				return err
			}
			defer m.Close()
			return f(w, m)
		}
	}
	deliver := func(w *world, m *Staged) error {
		r := w.s.Deliver(ctx, m, []Target{{Account: w.box.Account()}})
		return r[0].Err
	}
	var keywords []string
	for i := range bigFlags {
		keywords = append(keywords, fmt.Sprintf("key%03d", i))
	}
	flags := func(op FlagOp, k []string) func(w *world) error {
		return func(w *world) error {
			_, err := w.box.ChangeFlags(ctx, FlagChange{UIDs: UIDSet{{2, 4}}, Op: op, Flags: FlagFlagged, Keywords: k})
			return err
		}
	}
	copyTo := func(w *world) error {
		_, err := w.box.CopyTo(ctx, UIDSet{{2, 4}}, w.other)
		return err
	}
	create := func(name string) func(w *world) error {
		return func(w *world) error {
			_, err := w.box.Account().Create(ctx, name, CreateOptions{SpecialUse: []string{"Sent"}})
			return err
		}
	}
	busy := func(w *world) error { // a log with several segments, and messages gone from it
		for i := range 12 {
			if err := flags([]FlagOp{FlagsAdd, FlagsRemove}[i%2], nil)(w); err != nil {
				return err
			}
			if i%4 == 0 {
				if err := w.box.j.checkpoint(ctx, i%8 == 0); err != nil {
					return err
				}
			}
		}
		_, err := w.box.Expunge(ctx, UIDSet{{1, 1}}, false)
		if err == nil {
			err = w.box.j.checkpoint(ctx, true)
		}
		return err
	}
	orphan := func(w *world) error { // a message file that no record names, of long ago
		j := w.box.j
		id := msgID{w.s.nextNonce(), 6, checksum([]byte("orphan"))}
		err := writeFile(w.mem, j.messagePath(0, id), []byte("orphan"))
		w.shift = 8 * 24 * time.Hour
		return err
	}
	deleted := func(w *world) error {
		_, err := w.box.ChangeFlags(ctx, FlagChange{UIDs: UIDSet{{2, 3}}, Op: FlagsAdd, Flags: FlagDeleted})
		return err
	}
	subscribe := func(on bool) func(w *world) error {
		return func(w *world) error { return w.box.Account().Subscribe(ctx, "Archive", on) }
	}
	deleteIt := func(w *world) error { return w.box.Account().Delete(ctx, "Archive") }
	return []scenario{
		{name: "deliver", run: stageAnd(100, deliver)},
		{name: "deliver large", run: stageAnd(700<<10, deliver)},
		{name: "deliver to two", setup: func(w *world) error {
			_, err := w.s.Account(ctx, "vol01", "account-2")
			return err
		}, run: stageAnd(100, func(w *world, m *Staged) error {
			a, err := w.s.Account(ctx, "vol01", "account-2")
			if err != nil {
				return err
			}
			r := w.s.Deliver(ctx, m, []Target{{Account: w.box.Account()}, {Account: a}})
			return errors.Join(r[0].Err, r[1].Err)
		}), between: []func(w *world) error{
			stageAnd(100, deliver),
			stageAnd(100, func(w *world, m *Staged) error {
				a, err := w.s.Account(ctx, "vol01", "account-2")
				if err != nil {
					return err
				}
				return w.s.Deliver(ctx, m, []Target{{Account: a}})[0].Err
			}),
		}},
		{name: "append three", run: stageAnd(10, func(w *world, m *Staged) error {
			_, err := w.box.Append(ctx, []AppendMessage{{Message: m}, {Message: m, Flags: FlagDraft}, {Message: m, Keywords: []string{"x"}}})
			return err
		})},
		{name: "flags", run: flags(FlagsAdd, []string{"$Forwarded"})},
		{name: "flags in a file", run: flags(FlagsReplace, keywords)},
		{name: "expunge", run: func(w *world) error {
			_, err := w.box.Expunge(ctx, UIDSet{{2, 3}}, false)
			return err
		}},
		{name: "expunge what is deleted", setup: deleted, run: func(w *world) error {
			_, err := w.box.Expunge(ctx, nil, true)
			return err
		}},
		{name: "copy", run: copyTo},
		{name: "move", run: func(w *world) error {
			_, err := w.box.MoveTo(ctx, UIDSet{{2, 4}}, w.other)
			return err
		}, between: []func(w *world) error{copyTo}},
		{name: "create", run: create("New")},
		{name: "rename", setup: create("Archive/Sub"), run: func(w *world) error { return w.box.Account().Rename(ctx, "Archive", "Old") }},
		{name: "delete", run: deleteIt},
		{name: "subscribe", run: subscribe(true)},
		{name: "unsubscribe", setup: subscribe(true), run: subscribe(false)},
		{name: "special use", run: func(w *world) error {
			return w.box.Account().SetSpecialUse(ctx, "Archive", []string{"Archive"})
		}},
		{name: "attributes", run: func(w *world) error {
			b, err := w.box.Account().Listing(ctx)
			if err != nil {
				return err
			}
			id, _ := b.Mailbox("Archive")
			return w.box.Account().SetAttrs(ctx, Attr{id.ID, "acl:anyone", "lr"}, Attr{id.ID, "note:/shared/comment", strings.Repeat("long ", 300)}, Attr{"", "shared:x", "1"})
		}},
		{name: "create with attributes", run: func(w *world) error {
			_, err := w.box.Account().Create(ctx, "New", CreateOptions{Attrs: map[string]string{"acl:anyone": "lr", "zzz": "=|%\n"}})
			return err
		}},
		{name: "rename INBOX", run: func(w *world) error { return w.box.Account().Rename(ctx, Inbox, "Then") }, between: []func(w *world) error{
			func(w *world) error {
				_, err := w.box.Account().Create(ctx, "Then", CreateOptions{})
				return err
			},
			func(w *world) error {
				if _, err := w.box.Account().Create(ctx, "Then", CreateOptions{}); err != nil {
					return err
				}
				then, err := w.box.Account().Open(ctx, "Then")
				if err != nil {
					return err
				}
				_, err = w.box.CopyTo(ctx, UIDSet{{1, MaxUID}}, then)
				return err
			},
		}},
		{name: "watch", run: func(w *world) error {
			w.s.o.HintAddress = "127.0.0.1:1"
			x, err := w.box.Watch(ctx)
			if err == nil {
				x.Close()
			}
			return err
		}},
		{name: "new account", run: func(w *world) error {
			_, err := w.s.Account(ctx, "vol01", "account-2")
			return err
		}},
		{name: "snapshot", setup: func(w *world) error { return flags(FlagsAdd, nil)(w) }, run: func(w *world) error {
			return w.box.j.checkpoint(ctx, true)
		}},
		{name: "small snapshot", setup: func(w *world) error {
			if err := w.box.j.checkpoint(ctx, true); err != nil {
				return err
			}
			for i := range 3 {
				if err := flags([]FlagOp{FlagsAdd, FlagsRemove}[i%2], nil)(w); err != nil {
					return err
				}
			}
			return nil
		}, run: func(w *world) error { return w.box.j.checkpoint(ctx, false) }},
		{name: "reserve", setup: func(w *world) error {
			v := mustVolume(w.s)
			if err := v.refill(); err != nil {
				return err
			}
			v.giveWay()
			v.giveWay()
			return nil
		}, run: func(w *world) error { return mustVolume(w.s).refill() }},
		{name: "compact", setup: busy, run: func(w *world) error { return w.box.j.compact(ctx) }},
		{name: "collect", setup: orphan, run: func(w *world) error { return w.box.j.collect(ctx) }},
		{name: "to the trash", setup: deleteIt, run: func(w *world) error { return w.box.Account().Maintain(ctx) }},
		{name: "purge", setup: func(w *world) error {
			if err := deleteIt(w); err != nil {
				return err
			}
			return w.box.Account().Maintain(ctx)
		}, run: func(w *world) error { return w.s.Purge(ctx, "vol01") }},
	}
}

// prepare makes a world, runs the scenario's setup, and starts counting.
func (sc *scenario) prepare(t *testing.T, kind volumeKind) *world {
	w := newWorld(t, kind)
	if sc.setup != nil {
		if err := sc.setup(w); err != nil {
			t.Fatal(err)
		}
	}
	w.fault.Reset()
	return w
}

// outcomes returns what a client may see after the scenario failed, and after it succeeded. Names of messages and
// mailboxes differ between runs, what is compared does not.
func (sc *scenario) outcomes(t *testing.T) (failed []string, done string) {
	w := sc.prepare(t, onPosix)
	failed = append(failed, w.look(w.mem))
	if err := sc.run(w); err != nil {
		t.Fatal(err)
	}
	done = w.look(w.mem)
	for _, f := range sc.between {
		w := sc.prepare(t, onPosix)
		if err := f(w); err != nil {
			t.Fatal(err)
		}
		failed = append(failed, w.look(w.mem))
	}
	return append(failed, done), done
}

// TestFaults fails each file operation of each operation of the store in each way, and looks at what is left.
func TestFaults(t *testing.T) {
	changes := func(c vfs.Call) bool {
		switch c.Op {
		case vfs.OpCreate, vfs.OpSymlink, vfs.OpMkdir, vfs.OpLink, vfs.OpRename, vfs.OpWrite, vfs.OpSync, vfs.OpClose, vfs.OpUnlink:
			return true
		}
		return false
	}
	always := func(vfs.Call) bool { return true }
	kinds := []struct {
		name   string
		action vfs.Action
		on     func(vfs.Call) bool
		want   error // what the caller is told, if it is told of a failure
	}{
		{"EIO", vfs.Action{Err: syscall.EIO}, always, ErrUnavailable},
		{"lost reply", vfs.Action{Err: errLost, Lost: true}, changes, ErrUnavailable},
		{"ENOSPC", vfs.Action{Err: syscall.ENOSPC}, changes, ErrNoSpace},
		{"EDQUOT", vfs.Action{Err: syscall.EDQUOT, Partial: true}, func(c vfs.Call) bool { return c.Op == vfs.OpWrite }, ErrNoSpace},
		{"ESTALE", vfs.Action{Err: syscall.ESTALE}, always, nil},
		{"EROFS", vfs.Action{Err: syscall.EROFS}, changes, ErrReadOnly},
		{"crash", vfs.Action{Crash: true}, always, nil},
		{"crash after", vfs.Action{Crash: true, Lost: true}, always, nil},
	}
	for _, sc := range scenarios() {
		t.Run(sc.name, func(t *testing.T) {
			failed, done := sc.outcomes(t)
			runs := 0
			for _, k := range kinds {
				for i := 0; ; i++ {
					w := sc.prepare(t, onPosix)
					hit, over := false, true
					w.fault.Hook(func(c vfs.Call) vfs.Action {
						if c.I >= i {
							over = false
						}
						if c.I != i || !k.on(c) {
							return vfs.Action{}
						}
						hit = true
						return k.action
					})
					err := sc.run(w)
					w.fault.Hook(nil)
					if over {
						break
					}
					if !hit {
						continue
					}
					runs++
					got := w.look(w.mem)
					switch {
					case err == nil && got != done:
						t.Errorf("%s at %d: told that it is done, but\n%s\nwant\n%s", k.name, i, got, done)
					case err != nil && !slices.Contains(failed, got):
						t.Errorf("%s at %d: %v\n%s\nwant one of\n%s", k.name, i, err, got, strings.Join(failed, "or\n"))
					case err != nil && k.want != nil && !errors.Is(err, k.want):
						t.Errorf("%s at %d: the error is %v", k.name, i, err)
					case errors.Is(err, ErrNoSpace) && !isUnknown(err) && len(sc.between) == 0 && got != failed[0]:
						t.Errorf("%s at %d: refused, but\n%s", k.name, i, got)
					}
					w.check(w.mem)
					if t.Failed() {
						t.Fatalf("%s at operation %d", k.name, i)
					}
				}
			}
			if runs < 5 {
				t.Errorf("only %d faults", runs)
			}
		})
	}
}
