package mailstore

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"shoal/daemons/internal/vfs"
)

const otherVolume = "66666666-7777-8888-9999-000000000000"

// twoVolumes opens a store on two volumes.
func twoVolumes(t testing.TB, fs vfs.FS, one, two, server string, change ...func(*Options)) *Store {
	t.Helper()
	s := testStore(t, fs, one, server, change...)
	if err := InitVolume(fs, two, otherVolume); err != nil {
		t.Fatal(err)
	}
	if err := s.AddVolume("vol02", two, otherVolume); err != nil {
		t.Fatal(err)
	}
	return s
}

// move does a whole move, as shoalctl does.
func move(ctx context.Context, s *Store, account, from, to string) (*Move, error) {
	m, err := s.NewMove(account, from, to)
	if err != nil {
		return nil, err
	}
	phase, err := m.Phase()
	if err == nil && phase < MoveFenced {
		err = m.Copy(ctx)
	}
	if err == nil && phase < MovePublished {
		if err = m.Fence(ctx); err == nil {
			err = m.Finish(ctx)
		}
	}
	if err == nil {
		err = m.Retire(ctx)
	}
	return m, err
}

func verifyBoth(t testing.TB, s *Store) {
	t.Helper()
	for _, v := range []string{"vol01", "vol02"} {
		r, err := s.Verify(context.Background(), v, VerifyOptions{Content: true})
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range r.Problems {
			t.Error(p)
		}
	}
}

// What clients know stays true: ids, UIDs, UIDVALIDITY, mod-sequences, what vanished, what can be undeleted; there and back
// again, with logs that are compacted and long records.
func TestMoveKeepsEverything(t *testing.T) {
	ctx := context.Background()
	one, two := t.TempDir(), t.TempDir()
	box := twoVolumes(t, vfs.OS(), one, two, "box1")
	tool := twoVolumes(t, vfs.OS(), one, two, "shoalctl")
	a, err := box.Account(ctx, "vol01", "account-1")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"Sent", "Old/Größe"} {
		if _, err := a.Create(ctx, name, CreateOptions{SpecialUse: nil}); err != nil {
			t.Fatal(err)
		}
	}
	if err := a.Subscribe(ctx, "Sent", true); err != nil {
		t.Fatal(err)
	}
	in := testInbox(t, box, "account-1")
	for i := range 300 {
		appendOne(t, in, fmt.Sprintf("message %d\r\n", i), FlagSeen, "k"+fmt.Sprint(i%5))
	}
	if _, err := in.Expunge(ctx, UIDSet{{5, 9}, {100, 120}}, false); err != nil {
		t.Fatal(err)
	}
	if err := in.j.checkpoint(ctx, true); err != nil {
		t.Fatal(err)
	}
	sent, err := a.Open(ctx, "Sent")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := in.CopyTo(ctx, UIDSet{{1, MaxUID}}, sent); err != nil { // one long record
		t.Fatal(err)
	}
	picture := func(volume string) string {
		t.Helper()
		a, err := box.Account(ctx, volume, "account-1")
		if err != nil {
			t.Fatal(err)
		}
		list, err := a.Mailboxes(ctx)
		if err != nil {
			t.Fatal(err)
		}
		var b strings.Builder
		for _, i := range list {
			m, err := a.OpenID(ctx, i.ID)
			if err != nil {
				t.Fatal(err)
			}
			st, err := m.State(ctx)
			if err != nil {
				t.Fatal(err)
			}
			fmt.Fprintf(&b, "%+v\n%s", i, canonical(st))
			for _, msg := range st.All() {
				b.WriteString(content(t, m, msg.UID))
			}
			for i := range st.dead {
				if _, err := box.fs.Lstat(m.j.messagePath(recDir(&st.dead[i].rec, st.dead[i].ext), st.deadID(&st.dead[i]))); err != nil {
					t.Error(err)
				}
			}
		}
		return b.String()
	}
	before := picture("vol01")
	for _, way := range [][2]string{{"vol01", "vol02"}, {"vol02", "vol01"}, {"vol01", "vol02"}} {
		m, err := move(ctx, tool, "account-1", way[0], way[1])
		if err != nil {
			t.Fatal(err)
		}
		if len(m.Damage) > 0 {
			t.Error(m.Damage)
		}
		old, err := box.Account(ctx, way[0], "account-1")
		if err == nil { // known from before
			_, err = old.Mailboxes(ctx)
		}
		if !errors.Is(err, ErrMoved) || !errors.Is(err, ErrNoAccount) {
			t.Errorf("the old place: %v", err)
		}
		if got := picture(way[1]); got != before {
			t.Fatalf("%v: %s", way, firstDifference(got, before))
		}
		if phase, err := m.Phase(); phase != MovePublished || err != nil {
			t.Errorf("phase %v, %v", phase, err)
		}
	}
	if _, err := in.Append(ctx, nil); err == nil {
		t.Error("an append of nothing")
	}
	verifyBoth(t, tool)
}

// The old place refuses what comes late, from a server that has everything in memory still.
func TestMoveFencesStaleServers(t *testing.T) {
	ctx := context.Background()
	one, two := t.TempDir(), t.TempDir()
	box := twoVolumes(t, vfs.OS(), one, two, "box1")
	tool := twoVolumes(t, vfs.OS(), one, two, "shoalctl")
	in := testInbox(t, box, "account-1")
	appendOne(t, in, "x", 0)
	if _, err := move(ctx, tool, "account-1", "vol01", "vol02"); err != nil {
		t.Fatal(err)
	}
	st := stage(t, box, "late")
	defer st.Close()
	if _, err := in.Append(ctx, []AppendMessage{{Message: st}}); !errors.Is(err, ErrMoved) || !errors.Is(err, ErrMailboxClosed) {
		t.Errorf("append: %v", err)
	}
	if _, err := in.Account().Create(ctx, "Late", CreateOptions{}); !errors.Is(err, ErrMoved) {
		t.Errorf("create: %v", err)
	}
	if r := box.Deliver(ctx, st, []Target{{Account: in.Account()}}); !errors.Is(r[0].Err, ErrMoved) {
		t.Errorf("deliver: %v", r[0].Err)
	}
	if m, err := tool.NewMove("account-1", "vol01", "vol02"); err != nil {
		t.Error(err)
	} else if err := m.Abort(); err == nil {
		t.Error("a move was given up after its fence")
	}
}

// The tool dies at every operation in turn, and another one goes on; in the end nothing is missing.
func TestMoveDiesAnywhere(t *testing.T) {
	ctx := context.Background()
	total := 0
	for step := 0; ; step++ {
		mem := vfs.NewMem(time.Now)
		one, two := "/one", "/two"
		for _, d := range []string{one, two} {
			if err := mem.Mkdir(d); err != nil {
				t.Fatal(err)
			}
		}
		box := twoVolumes(t, mem, one, two, "box1")
		in := testInbox(t, box, "account-1")
		for i := range 3 {
			appendOne(t, in, fmt.Sprintf("message %d\r\n", i), 0)
		}
		want := describe(mustState(t, in))
		fault := vfs.NewFault(mem)
		tool := twoVolumes(t, fault, one, two, "shoalctl")
		fault.Reset()
		fault.Hook(func(c vfs.Call) vfs.Action { return vfs.Action{Crash: c.I == step, Lost: step%2 == 0} })
		_, err := move(ctx, tool, "account-1", "vol01", "vol02")
		ended := !fault.Crashed()
		if ended && err != nil {
			t.Fatal(err)
		}
		next := twoVolumes(t, mem, one, two, "shoalctl")
		if _, err := move(ctx, next, "account-1", "vol01", "vol02"); err != nil {
			t.Fatalf("after a death at operation %d: %v", step, err)
		}
		a, err := box.Account(ctx, "vol02", "account-1")
		if err != nil {
			t.Fatalf("after a death at operation %d: %v", step, err)
		}
		m, err := a.Open(ctx, Inbox)
		if err != nil {
			t.Fatal(err)
		}
		if got := describe(mustState(t, m)); got != want {
			t.Fatalf("after a death at operation %d:\n%s", step, got)
		}
		verifyBoth(t, next)
		if ended {
			break
		}
		total++
	}
	if total < 50 {
		t.Errorf("only %d operations", total)
	}
}

// Two servers deliver and change flags while the account moves back and forth, with the tool dying at random. Every
// delivery that was acknowledged is there in the end, under the UID that was told.
func TestMoveUnderLoad(t *testing.T) {
	ctx := context.Background()
	one, two := t.TempDir(), t.TempDir()
	small := func(s *Store) *Store {
		s.knobs.segmentLen, s.knobs.completeEvery, s.knobs.deltaEvery = 8, 16, 4
		return s
	}
	var place atomic.Pointer[string] // the directory
	v := "vol01"
	place.Store(&v)
	type told struct {
		uid  uint32
		text string
	}
	var mu sync.Mutex
	var ledger []told
	stop := make(chan struct{})
	var wg sync.WaitGroup
	appendOne(t, testInbox(t, testStore(t, vfs.OS(), one, "box0"), "account-1"), "first", 0)
	for _, name := range []string{"box1", "box2"} {
		box := small(twoVolumes(t, vfs.OS(), one, two, name, func(o *Options) { o.Maintain = true }))
		for w := range 2 {
			wg.Go(func() {
				for i := 0; ; i++ {
					select {
					case <-stop:
						return
					default:
					}
					volume := *place.Load()
					a, err := box.Account(ctx, volume, "account-1")
					if errors.Is(err, ErrNoAccount) {
						continue
					}
					if err != nil {
						t.Error(err)
						return
					}
					text := fmt.Sprintf("%s %d %d", name, w, i)
					st, err := box.Stage(ctx, volume, strings.NewReader(text), 0)
					if err != nil {
						t.Error(err)
						return
					}
					r := box.Deliver(ctx, st, []Target{{Account: a}})[0]
					st.Close()
					switch {
					case r.Err == nil:
						mu.Lock()
						ledger = append(ledger, told{r.UID, text})
						mu.Unlock()
						m := a.mailbox(r.MailboxID)
						if _, err := m.ChangeFlags(ctx, FlagChange{UIDs: NewUIDSet(r.UID), Op: FlagsAdd, Flags: FlagSeen}); err != nil && !errors.Is(err, ErrMoved) {
							t.Error(err)
						}
					case !errors.Is(r.Err, ErrMoved) && !errors.Is(r.Err, ErrNoAccount):
						t.Error(r.Err)
					}
				}
			})
		}
	}
	deaths := 0
	for n := range 6 {
		from, to := "vol01", "vol02"
		if n%2 == 1 {
			from, to = to, from
		}
		for try := 0; ; try++ {
			fault := vfs.NewFault(vfs.OS())
			tool := small(twoVolumes(t, fault, one, two, "shoalctl"))
			fault.Reset()
			if at := rand.IntN(600); try < 3 {
				fault.Hook(func(c vfs.Call) vfs.Action { return vfs.Action{Crash: c.I == at, Lost: at%2 == 0} })
			}
			_, err := move(ctx, tool, "account-1", from, to)
			if err == nil {
				break
			}
			if !fault.Crashed() {
				t.Fatal(err)
			}
			deaths++
		}
		place.Store(&to)
	}
	close(stop)
	wg.Wait()
	s := small(twoVolumes(t, vfs.OS(), one, two, "box3"))
	m := func() *Mailbox {
		a, err := s.Account(ctx, "vol01", "account-1")
		if err != nil {
			t.Fatal(err)
		}
		m, err := a.Open(ctx, Inbox)
		if err != nil {
			t.Fatal(err)
		}
		return m
	}()
	st := mustState(t, m)
	seen := map[uint32]bool{}
	for _, x := range ledger {
		if seen[x.uid] {
			t.Errorf("UID %d was told twice", x.uid)
		}
		seen[x.uid] = true
		if got := content(t, m, x.uid); got != x.text {
			t.Errorf("UID %d: %q, acknowledged was %q", x.uid, got, x.text)
		}
	}
	if st.Len() < len(ledger) || len(ledger) < 50 {
		t.Errorf("%d messages, %d acknowledged", st.Len(), len(ledger))
	}
	verifyBoth(t, s)
	t.Logf("%d acknowledged deliveries, 6 moves, %d deaths of the tool", len(ledger), deaths)
}

// Two runs of one move come to their end at the same time: the second one, which is about to clear the place of what an earlier
// move left there, does not clear away the account.
func TestMoveFinishedTwiceAtOnce(t *testing.T) {
	ctx := context.Background()
	one, two := t.TempDir(), t.TempDir()
	fault := vfs.NewFault(vfs.OS())
	first, second := twoVolumes(t, vfs.OS(), one, two, "tool1"), twoVolumes(t, fault, one, two, "tool2")
	appendOne(t, testInbox(t, first, "account-1"), "there and back", 0)
	if _, err := move(ctx, first, "account-1", "vol01", "vol02"); err != nil { // leaves a closed place on vol01
		t.Fatal(err)
	}
	prepare := func(s *Store) *Move {
		m, err := s.NewMove("account-1", "vol02", "vol01")
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(m.Copy(ctx), m.Fence(ctx)); err != nil {
			t.Fatal(err)
		}
		return m
	}
	a, b := prepare(first), prepare(second)
	came := false
	fault.Hook(func(c vfs.Call) vfs.Action {
		if c.Op == vfs.OpRename && strings.Contains(c.To, "/trash/account-1.") && !came {
			came = true
			if err := a.Finish(ctx); err != nil {
				t.Error(err)
			}
		}
		return vfs.Action{}
	})
	if err := b.Finish(ctx); !errors.Is(err, ErrMailboxExists) {
		t.Errorf("the second run: %v", err)
	}
	if !came {
		t.Fatal("nothing was in its way: nothing was put to the test")
	}
	if phase, err := b.Phase(); phase != MovePublished || err != nil {
		t.Errorf("phase %v, %v", phase, err)
	}
	if got := content(t, testInbox(t, first, "account-1"), 1); got != "there and back" {
		t.Errorf("the message is %q", got)
	}
	verifyBoth(t, first)
}
