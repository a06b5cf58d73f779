package mailstore

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"shoal/daemons/internal/vfs"
)

// staller stops a server at random file operations until the others have gone far ahead, as a process
// does that is suspended or swapped out. It never stops all of them.
type staller struct {
	mu      sync.Mutex
	moves   int // commits by anybody
	stalled int // servers that are stopped now
	limit   int // how many may be
	waiting map[chan struct{}]int
}

func (s *staller) moved() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.moves++
	for c, at := range s.waiting {
		if s.moves >= at {
			close(c)
			delete(s.waiting, c)
			s.stalled--
		}
	}
}

func (s *staller) hook(r *rand.Rand, every int) func(vfs.Call) vfs.Action {
	return func(c vfs.Call) vfs.Action {
		var a vfs.Action
		s.mu.Lock()
		defer s.mu.Unlock()
		if c.Op == vfs.OpSymlink && r.IntN(20) == 0 {
			a.Err, a.Lost = errLost, true
		}
		if s.stalled < s.limit && (r.IntN(every) == 0 || c.Op == vfs.OpSymlink && r.IntN(4) == 0) {
			w := make(chan struct{})
			s.waiting[w] = s.moves + 5 + r.IntN(60)
			s.stalled++
			a.Wait = w
		}
		return a
	}
}

// linger keeps emptied segments in being for a while, as a slow deletion does: that is when a stale writer can
// put a record under a name that has been freed.
func linger(r *rand.Rand, then func(vfs.Call) vfs.Action) func(vfs.Call) vfs.Action {
	return func(c vfs.Call) vfs.Action {
		if c.Op == vfs.OpRmdir && r.IntN(10) > 0 {
			return vfs.Action{Err: syscall.ENOTEMPTY}
		}
		return then(c)
	}
}

func (s *staller) releaseAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.limit = 0
	for c := range s.waiting {
		close(c)
		delete(s.waiting, c)
	}
}

type ack struct {
	uid     uint32
	content string
}

// adversary runs servers against one mailbox: tiny segments, no retention, clients with stale caches,
// lost replies, and servers that stop at any moment for long. It returns what was acknowledged and not found.
// fenced is the number of commits that the fence refused.
func adversary(t *testing.T, noFence bool, perWriter int) (lost, acked, fenced int) {
	ctx := context.Background()
	mem := vfs.NewMem(time.Now)
	mem.SetNetwork(true)
	stall := &staller{limit: 3, waiting: map[chan struct{}]int{}}
	tiny := func(o *Options) {
		o.Retention = 1
		o.CallTimeout = time.Hour
	}
	boxes := make([]*Mailbox, 6)
	faults := make([]*vfs.Fault, len(boxes))
	for i := range boxes {
		faults[i] = vfs.NewFault(vfs.NewStale(mem))
		s := testStore(t, faults[i], "/", fmt.Sprintf("box%d", i), tiny)
		s.knobs = knobs{segmentLen: 4, completeEvery: 6, deltaEvery: 3, noFence: noFence}
		boxes[i] = testInbox(t, s, "account-1")
	}
	var mu sync.Mutex
	var acks []ack
	var wg sync.WaitGroup
	stop := make(chan struct{})
	var compactors sync.WaitGroup
	for i, m := range boxes {
		r := rand.New(rand.NewPCG(uint64(i), 7))
		if i < 2 { // tidies up all the time
			faults[i].Hook(linger(r, stall.hook(r, 25)))
			compactors.Add(1)
			go func() {
				defer compactors.Done()
				for {
					select {
					case <-stop:
						return
					default:
					}
					for _, err := range []error{m.j.checkpoint(ctx, r.IntN(3) == 0), m.j.compact(ctx)} {
						if err != nil && !errors.Is(err, ErrUnavailable) && !noFence {
							t.Error("compactor:", err)
						}
					}
				}
			}()
			continue
		}
		faults[i].Hook(stall.hook(r, 12))
		wg.Add(1)
		go func() {
			defer wg.Done()
			var inner sync.WaitGroup
			for g := range 2 {
				inner.Add(1)
				go func() {
					defer inner.Done()
					for n := range perWriter {
						text := fmt.Sprintf("from %d.%d number %d", i, g, n)
						st := stage(t, m.j.store, text)
						res, err := m.Append(ctx, []AppendMessage{{Message: st}})
						st.Close()
						stall.moved()
						if err != nil {
							// Not acknowledged: it may be there or not.
							continue
						}
						mu.Lock()
						acks = append(acks, ack{res.Messages[0].UID, text})
						mu.Unlock()
					}
				}()
			}
			inner.Wait()
			faults[i].Hook(nil)
			// The last ones must not wait for commits that will never come.
			stall.mu.Lock()
			stall.limit--
			stall.mu.Unlock()
			for range 100 {
				stall.moved()
			}
		}()
	}
	wg.Wait()
	stall.releaseAll()
	close(stop)
	compactors.Wait()

	fresh := testInbox(t, func() *Store {
		s := testStore(t, mem, "/", "reader", tiny)
		s.knobs = boxes[0].j.store.knobs
		return s
	}(), "account-1")
	st, err := fresh.State(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := st.check(); err != nil {
		t.Error(err)
	}
	uids := map[uint32]bool{}
	for _, a := range acks {
		if uids[a.uid] {
			lost++ // two messages were acknowledged under one UID
			continue
		}
		uids[a.uid] = true
		f, err := fresh.OpenMessage(ctx, a.uid)
		if err != nil || string(f.Bytes()) != a.content {
			lost++
		}
	}
	seen := map[string]bool{}
	for _, m := range st.All() {
		f, err := fresh.OpenMessage(ctx, m.UID)
		if err != nil {
			t.Errorf("UID %d: %v", m.UID, err)
			continue
		}
		if text := string(f.Bytes()); seen[text] {
			t.Errorf("twice: %s", text)
		} else {
			seen[text] = true
		}
	}
	if !noFence {
		s := testStore(t, mem, "/", "verifier", tiny)
		s.knobs = boxes[0].j.store.knobs
		rep, err := s.Verify(ctx, "vol01", VerifyOptions{Content: true})
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range rep.Problems {
			t.Error(p)
		}
	}
	for _, m := range boxes {
		fenced += count(t, m.j.store.metrics.fenced)
	}
	return lost, len(acks), fenced
}

func count(t *testing.T, c prometheus.Counter) int {
	var m dto.Metric
	if err := c.Write(&m); err != nil {
		t.Fatal(err)
	}
	return int(m.Counter.GetValue())
}

func TestAdversary(t *testing.T) {
	fenced, acked := 0, 0
	for round := 0; round < 3 || fenced < 20; round++ {
		if round == 30 {
			t.Fatalf("only %d commits went into compacted segments: nothing was put to the test", fenced)
		}
		l, a, f := adversary(t, false, 80)
		if l > 0 || a < 500 {
			t.Errorf("%d of %d acknowledged messages are lost", l, a)
		}
		acked += a
		fenced += f
	}
	t.Logf("%d messages acknowledged, %d commits caught by the fence", acked, fenced)
}

// TestAdversaryWithoutFence shows that the test above can fail.
func TestAdversaryWithoutFence(t *testing.T) {
	for range 5 {
		lost, acked, _ := adversary(t, true, 60)
		t.Logf("without the fence %d of %d acknowledged messages are lost", lost, acked)
		if lost > 0 {
			return
		}
	}
	t.Error("without the fence nothing was lost: the test proves nothing")
}

// TestRace: many servers, several writers each, one mailbox, all kinds of changes.
func TestRace(t *testing.T) {
	ctx := context.Background()
	root := t.TempDir()
	var wg sync.WaitGroup
	var mu sync.Mutex
	acks := map[uint32]string{}
	gone := map[uint32]bool{}
	for i := range 4 {
		s := testStore(t, vfs.OS(), root, fmt.Sprintf("box%d", i))
		m := testInbox(t, s, "account-1")
		for g := range 3 {
			wg.Add(1)
			go func() {
				defer wg.Done()
				for n := range 25 {
					text := fmt.Sprintf("%d.%d.%d", i, g, n)
					st := stage(t, s, text)
					r, err := m.Append(ctx, []AppendMessage{{Message: st}, {Message: st, Flags: FlagSeen}})
					st.Close()
					if err != nil {
						t.Error(err)
						return
					}
					mu.Lock()
					for _, x := range r.Messages {
						if acks[x.UID] != "" {
							t.Errorf("UID %d given out twice", x.UID)
						}
						acks[x.UID] = text
					}
					mu.Unlock()
					if _, err := m.ChangeFlags(ctx, FlagChange{UIDs: UIDSet{{1, MaxUID}}, Op: FlagsAdd, Keywords: []string{fmt.Sprintf("k%d", n%5)}}); err != nil {
						t.Error(err)
					}
					if n%5 == 4 {
						x, err := m.Expunge(ctx, NewUIDSet(r.Messages[1].UID), false)
						if err != nil || x.UIDs.Len() != 1 {
							t.Error(x, err)
						}
						mu.Lock()
						gone[r.Messages[1].UID] = true
						mu.Unlock()
					}
				}
			}()
		}
	}
	wg.Wait()
	m := testInbox(t, testStore(t, vfs.OS(), root, "reader"), "account-1")
	st, err := m.State(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if st.Len() != len(acks)-len(gone) {
		t.Errorf("%d messages, acknowledged %d, expunged %d", st.Len(), len(acks), len(gone))
	}
	for uid, text := range acks {
		if _, ok := st.ByUID(uid); ok == gone[uid] {
			t.Errorf("UID %d: there %v, expunged %v", uid, ok, gone[uid])
		} else if ok && content(t, m, uid) != text {
			t.Errorf("UID %d: wrong content", uid)
		}
	}
	if v, ok := st.VanishedSince(0); !ok || v.Len() != len(gone) {
		t.Errorf("vanished %v complete %v, want %d", v, ok, len(gone))
	}
	if k := strings.Join(st.Keywords(), " "); k != "k0 k1 k2 k3 k4" {
		t.Error(k)
	}
	verify(t, vfs.OS(), root)
}
