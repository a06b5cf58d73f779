package queue

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"

	"shoal/daemons/internal/clock"
	"shoal/daemons/internal/vfs"
)

const queueID = "6f0c1f0e-90b4-4a0e-8c7e-0d0a5d2f8a11"

var start = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

type rig struct {
	t    *testing.T
	clk  *clock.Fake
	fs   vfs.FS
	open []*Queue
}

func newRig(t *testing.T) *rig {
	clk := clock.NewFake(start)
	r := &rig{t: t, clk: clk, fs: vfs.NewMem(clk.Now)}
	if err := r.fs.Mkdir("/q"); err != nil {
		t.Fatal(err)
	}
	if err := r.fs.SyncDir("/"); err != nil {
		t.Fatal(err)
	}
	if err := Init(r.fs, "/q", queueID); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, q := range r.open {
			r.kill(q)
		}
	})
	return r
}

// run starts a switch and waits until its first look at the others is over.
func (r *rig) run(server string) *Queue {
	r.t.Helper()
	return r.runOn(server, r.fs)
}

func (r *rig) runOn(server string, fs vfs.FS) *Queue {
	r.t.Helper()
	q, err := Open(Options{Server: server, Path: "/q", ID: queueID, FS: fs, Clock: r.clk, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		r.t.Fatal(err)
	}
	r.open = append(r.open, q)
	r.clk.WaitTimers(r.alive())
	return q
}

func (r *rig) alive() int {
	n := 0
	for _, q := range r.open {
		if !q.closed {
			n++
		}
	}
	return n
}

// kill ends a run as kill -9 does: nothing is written.
func (r *rig) kill(q *Queue) {
	q.stop()
	q.done.Wait()
	q.mu.Lock()
	q.closed = true
	q.mu.Unlock()
}

func envelope(to ...string) Envelope {
	e := Envelope{From: "sender@example.test", Accepted: start.Unix(), Expires: start.Add(time.Hour).Unix()}
	for _, a := range to {
		e.Recipients = append(e.Recipients, Recipient{Address: a})
	}
	return e
}

func (r *rig) enqueue(q *Queue, text string, envs ...Envelope) []string {
	r.t.Helper()
	ids, err := q.Enqueue(context.Background(), strings.NewReader(text), r.clk.Now(), envs...)
	if err != nil {
		r.t.Fatal(err)
	}
	return ids
}

// next returns an entry that is due now; the context is done already, so that it never waits.
func (r *rig) next(q *Queue) *Lease {
	r.t.Helper()
	l, err := q.Next(done())
	if errors.Is(err, context.Canceled) {
		return nil
	}
	if err != nil {
		r.t.Fatal(err)
	}
	return l
}

func done() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}

func (r *rig) text(l *Lease) string {
	r.t.Helper()
	c, err := l.Content()
	if err != nil {
		r.t.Fatal(err)
	}
	defer c.Close()
	b, err := io.ReadAll(c.Reader())
	if err != nil {
		r.t.Fatal(err)
	}
	return string(b)
}

func all(l *Lease, s State) []Outcome {
	var out []Outcome
	for _, i := range l.Pending {
		out = append(out, Outcome{Index: i, State: s})
	}
	return out
}

func (r *rig) finish(l *Lease, outcomes []Outcome, due time.Time) {
	r.t.Helper()
	if err := l.Finish(outcomes, due, false); err != nil {
		r.t.Fatal(err)
	}
}

// names lists all names below a directory.
func names(t *testing.T, fs vfs.FS, dir string) []string {
	t.Helper()
	var out []string
	list, err := fs.ReadDir(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range list {
		out = append(out, dir+"/"+n)
		info, err := fs.Lstat(dir + "/" + n)
		if err != nil {
			t.Fatal(err)
		}
		if info.Kind == vfs.KindDir {
			out = append(out, names(t, fs, dir+"/"+n)...)
		}
	}
	return out
}

func TestDeliver(t *testing.T) {
	r := newRig(t)
	q := r.run("sw1")
	ids := r.enqueue(q, "hello\r\n", envelope("a@x.test"), envelope("b@y.test", "c@y.test"))
	if len(ids) != 2 || ids[0] == ids[1] {
		t.Fatalf("ids %q", ids)
	}
	for range 2 {
		l := r.next(q)
		if l == nil {
			t.Fatal("nothing is due")
		}
		if got := r.text(l); got != "hello\r\n" {
			t.Fatalf("content %q", got)
		}
		r.finish(l, all(l, Delivered), time.Time{})
	}
	if l := r.next(q); l != nil {
		t.Fatalf("%s is due again", l.ID)
	}
	if list, _ := r.fs.ReadDir(q.dir(q.Origin())+"/b", nil); len(list) != 0 {
		t.Fatalf("batches are left: %q", list)
	}
	if q.Len() != 0 {
		t.Fatalf("%d entries are left", q.Len())
	}
}

func TestDeferredWaits(t *testing.T) {
	r := newRig(t)
	q := r.run("sw1")
	r.enqueue(q, "x", envelope("a@x.test", "b@x.test"))
	l := r.next(q)
	r.finish(l, []Outcome{{Index: 0, State: Delivered}, {Index: 1, State: Deferred, Code: "4.2.1", Text: "later"}}, r.clk.Now().Add(5*time.Minute))
	if l := r.next(q); l != nil {
		t.Fatal("due before its time")
	}
	infos, err := q.List(0, 10)
	if err != nil || len(infos) != 1 || infos[0].Reason != "later" || len(infos[0].Recipients) != 1 || infos[0].Recipients[0].Address != "b@x.test" {
		t.Fatalf("list: %+v, %v", infos, err)
	}
	r.clk.Advance(5 * time.Minute)
	l = r.next(q)
	if l == nil || l.Attempts != 1 || len(l.Pending) != 1 || l.Pending[0] != 1 {
		t.Fatalf("lease after the wait: %+v", l)
	}
	r.finish(l, all(l, Failed), time.Time{})
	if q.Len() != 0 {
		t.Fatal("still there")
	}
}

func TestNextWakesUp(t *testing.T) {
	r := newRig(t)
	q := r.run("sw1")
	got := make(chan *Lease)
	go func() {
		l, err := q.Next(context.Background())
		if err != nil {
			t.Error(err)
		}
		got <- l
	}()
	r.clk.WaitTimers(2)
	r.enqueue(q, "x", envelope("a@x.test"))
	if l := <-got; l == nil || l.Envelope.Recipients[0].Address != "a@x.test" {
		t.Fatalf("lease %+v", l)
	}
}

// Many senders at once share syncs.
func TestGroupCommit(t *testing.T) {
	r := newRig(t)
	f := vfs.NewFault(r.fs)
	q := r.runOn("sw1", f)
	release := make(chan struct{})
	syncing := make(chan struct{})
	var once sync.Once
	f.Reset()
	f.Hook(func(c vfs.Call) vfs.Action {
		a := vfs.Action{}
		if c.Op == vfs.OpSync {
			once.Do(func() {
				a.Wait = release
				close(syncing)
			})
		}
		return a
	})
	const n = 50
	var wg sync.WaitGroup
	for i := range n {
		wg.Add(1)
		go func() {
			defer wg.Done()
			r.enqueue(q, fmt.Sprint("message ", i), envelope("a@x.test"))
		}()
		if i == 0 {
			<-syncing
		}
	}
	for len(q.writes) < n-1 { // one is being synced, the others wait
		runtime.Gosched()
	}
	close(release)
	wg.Wait()
	if got := f.Counts()[vfs.OpSync]; got != 2 {
		t.Errorf("%d syncs for %d messages", got, n)
	}
	if q.Len() != n {
		t.Errorf("%d entries", q.Len())
	}
}

func TestLargeMessage(t *testing.T) {
	r := newRig(t)
	q := r.run("sw1")
	big := strings.Repeat("0123456789abcde\n", inMemory/8)
	r.enqueue(q, big, envelope("a@x.test"))
	l := r.next(q)
	if got := r.text(l); got != big {
		t.Fatalf("%d bytes came back for %d", len(got), len(big))
	}
}

// A switch dies; after the bound, and not before, the others take what it left, each entry once.
func TestAdoption(t *testing.T) {
	r := newRig(t)
	dead := r.run("sw1")
	for i := range 40 {
		r.enqueue(dead, fmt.Sprint("m", i), envelope("a@x.test"), envelope("b@y.test"))
	}
	l := r.next(dead)
	r.finish(l, all(l, Delivered), time.Time{})
	l = r.next(dead)
	r.finish(l, all(l, Deferred), r.clk.Now().Add(time.Hour))
	waiting := l.ID
	r.kill(dead)

	two, three := r.run("sw2"), r.run("sw3")
	if two.Len()+three.Len() != 0 {
		t.Fatal("entries of a switch that was alive a moment ago were taken")
	}
	for range 7 {
		r.clk.Advance(10 * time.Second)
		r.clk.WaitTimers(2)
	}
	if got := two.Len() + three.Len(); got != 79 {
		t.Fatalf("%d entries adopted, 79 were left", got)
	}
	seen := map[string]bool{}
	for _, q := range []*Queue{two, three} {
		for l := r.next(q); l != nil; l = r.next(q) {
			if seen[l.ID] {
				t.Fatalf("%s was handed out twice", l.ID)
			}
			seen[l.ID] = true
			r.finish(l, all(l, Delivered), time.Time{})
		}
	}
	if seen[waiting] {
		t.Fatal("an entry lost its time")
	}
	r.clk.Advance(time.Hour)
	r.clk.WaitTimers(2)
	for _, q := range []*Queue{two, three} {
		for l := r.next(q); l != nil; l = r.next(q) {
			if l.ID != waiting || l.Attempts != 1 {
				t.Fatalf("%s with %d attempts; wanted %s with 1", l.ID, l.Attempts, waiting)
			}
			seen[l.ID] = true
			r.finish(l, all(l, Delivered), time.Time{})
		}
	}
	if len(seen) != 79 {
		t.Fatalf("%d entries were handed out", len(seen))
	}
	for range 2 {
		r.clk.Advance(10 * time.Second)
		r.clk.WaitTimers(2)
	}
	if _, err := r.fs.Lstat(dead.dir(dead.Origin())); !errors.Is(err, syscall.ENOENT) {
		t.Fatalf("the directory of the dead run is left: %q", names(t, r.fs, dead.dir(dead.Origin())))
	}
}

// Started again, a switch goes on at once with what it had, and the recipients that were done stay done.
func TestRestart(t *testing.T) {
	r := newRig(t)
	q := r.run("sw1")
	r.enqueue(q, "x", envelope("a@x.test", "b@x.test"))
	l := r.next(q)
	r.finish(l, []Outcome{{Index: 1, State: Delivered}}, r.clk.Now())
	r.kill(q)
	again := r.run("sw1")
	l = r.next(again)
	if l == nil || len(l.Pending) != 1 || l.Pending[0] != 0 {
		t.Fatalf("lease %+v", l)
	}
}

// Closed in good order, a switch leaves its entries to the others at once.
func TestClosedIsAdoptedAtOnce(t *testing.T) {
	r := newRig(t)
	q := r.run("sw1")
	r.enqueue(q, "x", envelope("a@x.test"))
	if err := q.Close(); err != nil {
		t.Fatal(err)
	}
	two := r.run("sw2")
	if r.next(two) == nil {
		t.Fatal("nothing was adopted")
	}
}

// A switch frozen in the middle of an attempt: the other takes over, and the double attempt is counted.
func TestFrozen(t *testing.T) {
	r := newRig(t)
	frozen := r.run("sw1")
	r.enqueue(frozen, "one", envelope("a@x.test"))
	r.enqueue(frozen, "two", envelope("b@x.test"))
	l := r.next(frozen)
	frozen.stop() // no sign of life from here on
	frozen.done.Wait()
	two, err := Open(Options{Server: "sw2", Path: "/q", ID: queueID, FS: r.fs, Clock: r.clk, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	r.open = append(r.open, two)
	r.clk.WaitTimers(1)
	for range 7 {
		r.clk.Advance(10 * time.Second)
		r.clk.WaitTimers(1)
	}
	if two.Len() != 2 {
		t.Fatalf("%d entries adopted", two.Len())
	}
	r.finish(l, all(l, Relayed), time.Time{}) // it thaws
	var m dto.Metric
	if err := frozen.metrics.double.Write(&m); err != nil || m.Counter.GetValue() != 1 {
		t.Fatalf("%v double attempts counted, %v", m.Counter.GetValue(), err)
	}
	if l := r.next(frozen); l != nil {
		t.Fatalf("%s was attempted though it had been taken over", l.ID)
	}
}

// Taken for dead and cleared up, a switch goes on as a new run.
func TestRebirth(t *testing.T) {
	r := newRig(t)
	q := r.run("sw1")
	was := q.Origin()
	for _, n := range []string{"/alive", "/b", "/c", ""} {
		err := r.fs.Unlink(q.dir(was) + n)
		if err != nil {
			err = r.fs.Rmdir(q.dir(was) + n)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if _, err := q.Enqueue(context.Background(), strings.NewReader("x"), r.clk.Now(), envelope("a@x.test")); err == nil {
		t.Fatal("accepted into a directory that is gone")
	}
	r.clk.Advance(10 * time.Second)
	r.clk.WaitTimers(1)
	r.clk.Advance(time.Second)
	r.clk.WaitTimers(1)
	q.mu.Lock()
	now := q.Origin()
	q.mu.Unlock()
	if now == was {
		t.Fatal("it still is the same run")
	}
	r.enqueue(q, "x", envelope("a@x.test"))
}

// For every i: the i-th file operation fails, or the machine loses power at it. What was acknowledged is found again.
func TestFaults(t *testing.T) {
	for _, kind := range []string{"fails", "is lost", "power cut"} {
		for i := 0; ; i++ {
			if !faultAt(t, kind, i) {
				break
			}
		}
	}
}

// faultAt runs a script of enqueues and attempts with a fault at operation i; false when the script has fewer.
func faultAt(t *testing.T, kind string, i int) bool {
	t.Helper()
	r := newRig(t)
	mem := r.fs.(*vfs.Mem)
	f := vfs.NewFault(mem)
	q := r.runOn("sw1", f)
	f.Reset()
	hit := false
	f.Hook(func(c vfs.Call) vfs.Action {
		if c.I != i {
			return vfs.Action{}
		}
		hit = true
		switch kind {
		case "fails":
			return vfs.Action{Err: syscall.EIO, Partial: c.Op == vfs.OpWrite}
		case "is lost":
			return vfs.Action{Err: syscall.EIO, Lost: true}
		default:
			return vfs.Action{Crash: true, Err: syscall.EIO}
		}
	})
	accepted := map[string]bool{}
	for n := range 4 {
		to := fmt.Sprintf("u%d@x.test", n)
		if _, err := q.Enqueue(context.Background(), strings.NewReader(to), r.clk.Now(), envelope(to)); err == nil {
			accepted[to] = true
		}
		if n == 2 {
			if l := r.next(q); l != nil {
				_ = l.Finish(all(l, Deferred), r.clk.Now(), false)
			}
			if l := r.next(q); l != nil {
				delete(accepted, l.Envelope.Recipients[0].Address)
				_ = l.Finish(all(l, Delivered), time.Time{}, false)
			}
		}
	}
	r.kill(q)
	r.fs = mem
	if kind == "power cut" {
		r.fs = mem.Crash(nil)
	}
	again := r.run("sw1")
	for {
		l := r.next(again)
		if l == nil {
			break
		}
		to := l.Envelope.Recipients[0].Address
		if got := r.text(l); got != to {
			t.Fatalf("operation %d %s: content %q of %s", i, kind, got, to)
		}
		delete(accepted, to)
		r.finish(l, all(l, Delivered), time.Time{})
	}
	if len(accepted) > 0 {
		t.Fatalf("operation %d %s: accepted and lost: %v", i, kind, accepted)
	}
	return hit
}

func TestMarker(t *testing.T) {
	r := newRig(t)
	o := Options{Server: "sw1", Path: "/q", ID: "other", FS: r.fs, Clock: r.clk, Log: slog.New(slog.DiscardHandler)}
	if _, err := Open(o); !errors.Is(err, ErrWrongQueue) {
		t.Errorf("wrong id: %v", err)
	}
	if err := Init(r.fs, "/q", "other"); !errors.Is(err, ErrWrongQueue) {
		t.Errorf("another queue's folder: %v", err)
	}
	if err := r.fs.Mkdir("/empty"); err != nil {
		t.Fatal(err)
	}
	o.Path = "/empty"
	if _, err := Open(o); !errors.Is(err, ErrNotQueue) {
		t.Errorf("no marker: %v", err)
	}
	if _, err := parseMarker("shoal-queue 2.0\nid x\n"); !errors.Is(err, ErrNewerFormat) {
		t.Errorf("newer major version: %v", err)
	}
	if id, err := parseMarker("shoal-queue 1.7\nid x\nsomething new\n"); err != nil || id != "x" {
		t.Errorf("newer minor version: %q, %v", id, err)
	}
}

func TestDeleteAndRetry(t *testing.T) {
	r := newRig(t)
	q := r.run("sw1")
	ids := r.enqueue(q, "x", envelope("a@x.test"), envelope("b@x.test"))
	l := r.next(q)
	if err := q.Delete(l.ID); !errors.Is(err, ErrActive) {
		t.Fatalf("deleting during an attempt: %v", err)
	}
	r.finish(l, all(l, Deferred), r.clk.Now().Add(time.Hour))
	if err := q.Delete(ids[1]); err != nil && ids[1] != l.ID {
		t.Fatal(err)
	}
	if err := q.Retry(l.ID); err != nil {
		t.Fatal(err)
	}
	again := r.next(q)
	if again == nil || again.ID != l.ID || again.Attempts != 1 {
		t.Fatalf("after retry: %+v", again)
	}
	if err := q.Delete("nonsense"); !errors.Is(err, ErrNoEntry) {
		t.Fatalf("%v", err)
	}
}
