package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"shoal/daemons/internal/mailstore"
	"shoal/daemons/nfsguest/proto"
)

// load is several writers on the same mailboxes. Each sends to the rig what it is about to do, and what the answer was: the
// rig knows of every operation that was begun, also when this kernel is killed.
type load struct {
	g    *Guest
	args proto.RunArgs

	mu     sync.Mutex
	reads  int
	nextID int
	left   int
}

// send sends an event to the rig.
func (g *Guest) send(e proto.Event) {
	g.sinkMu.Lock()
	defer g.sinkMu.Unlock()
	if err := g.sink.Encode(e); err != nil {
		g.log.Error("send event", "err", err)
	}
}

// Start begins a load.
func (g *Guest) Start(a proto.RunArgs, _ *proto.None) error {
	l := &load{g: g, args: a, left: a.Writers}
	ctx := context.Background()
	for i := range a.Writers {
		w := &writer{load: l, n: i, name: fmt.Sprintf("%s.%d.%d", g.open.Server, a.Run, i), rng: rand.New(rand.NewPCG(a.Seed, uint64(i)+100*uint64(a.Index)))}
		for _, name := range a.Boxes {
			m, err := mailbox(ctx, g.store, a.Account, name)
			if err != nil {
				return err
			}
			w.boxes = append(w.boxes, &seen{name: name, m: m, gone: map[uint32]bool{}, token: map[uint32]string{}})
		}
		go w.run(ctx, time.Now().Add(a.For))
	}
	return nil
}

func (l *load) violation(format string, args ...any) {
	l.g.send(proto.Event{Kind: proto.Wrong, Err: fmt.Sprintf(format, args...)})
}

// begin logs an operation before it is tried; the returned function logs the answer.
func (l *load) begin(e proto.Event) func(error, func(*proto.Event)) {
	l.mu.Lock()
	l.nextID++
	e.ID = l.nextID
	l.mu.Unlock()
	l.g.send(e)
	return func(err error, result func(*proto.Event)) {
		e.Done = true
		if err != nil {
			e.Err = err.Error()
			if errors.Is(err, mailstore.ErrCorrupt) || errors.Is(err, mailstore.ErrMailboxClosed) || errors.Is(err, mailstore.ErrNoMailbox) {
				l.violation("%s: %s in %s: %v", e.Writer, e.Kind, e.Box, err)
			}
		} else {
			result(&e)
		}
		l.g.send(e)
	}
}

type writer struct {
	*load
	n     int
	name  string
	rng   *rand.Rand
	boxes []*seen
	count int
}

// seen is what one writer knows of one mailbox, and must not see contradicted.
type seen struct {
	name    string
	m       *mailstore.Mailbox
	uidNext uint32
	modSeq  uint64
	gone    map[uint32]bool   // it removed these itself
	token   map[uint32]string // it has read these
}

func (w *writer) run(ctx context.Context, end time.Time) {
	defer func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.left--; w.left == 0 {
			w.g.send(proto.Event{Kind: proto.End, ID: w.reads})
		}
	}()
	var maintained time.Time
	for time.Now().Before(end) {
		b := w.boxes[w.rng.IntN(len(w.boxes))]
		if w.n == 0 && time.Since(maintained) > time.Second {
			maintained = time.Now()
			if err := b.m.Account().Maintain(ctx); errors.Is(err, mailstore.ErrCorrupt) {
				w.violation("%s: maintain: %v", w.name, err)
			}
		}
		s, err := b.m.State(ctx)
		if err != nil {
			if errors.Is(err, mailstore.ErrCorrupt) || errors.Is(err, mailstore.ErrMailboxClosed) {
				w.violation("%s: state of %s: %v", w.name, b.name, err)
			}
			continue
		}
		w.look(b, s)
		switch n := w.rng.IntN(100); {
		case n < 40:
			w.append(ctx, b)
		case n < 55:
			w.flag(ctx, b, s)
		case n < 63:
			w.copy(ctx, b, s, false)
		case n < 72:
			w.copy(ctx, b, s, true)
		case n < 90:
			w.expunge(ctx, b, s)
		default:
			w.read(ctx, b, s)
		}
	}
}

// look holds a state against what is known already.
func (w *writer) look(b *seen, s *mailstore.State) {
	w.mu.Lock()
	w.reads++
	w.mu.Unlock()
	if s.UIDNext() < b.uidNext || s.ModSeq() < b.modSeq {
		w.violation("%s: %s went back: UIDNEXT %d after %d, MODSEQ %d after %d", w.name, b.name, s.UIDNext(), b.uidNext, s.ModSeq(), b.modSeq)
	}
	b.uidNext, b.modSeq = s.UIDNext(), s.ModSeq()
	last := uint32(0)
	for _, m := range s.All() {
		if m.UID <= last || m.UID >= s.UIDNext() {
			w.violation("%s: %s: UID %d after %d, UIDNEXT %d", w.name, b.name, m.UID, last, s.UIDNext())
		}
		if m.ModSeq > s.ModSeq() {
			w.violation("%s: %s: UID %d has MODSEQ %d of %d", w.name, b.name, m.UID, m.ModSeq, s.ModSeq())
		}
		if b.gone[m.UID] {
			w.violation("%s: %s: UID %d is back", w.name, b.name, m.UID)
		}
		last = m.UID
	}
}

// some picks up to n messages of a state; own: only those that no other writer moves.
func (w *writer) some(s *mailstore.State, n int, own bool) mailstore.UIDSet {
	var set mailstore.UIDSet
	if s.Len() == 0 {
		return set
	}
	all, me := uint32(w.args.Clients*w.args.Writers), uint32(w.args.Index*w.args.Writers+w.n)
	at := w.rng.IntN(s.Len())
	for i := at; i < s.Len() && set.Len() < n; i++ {
		if m := s.At(i); !own || m.UID%all == me {
			set.Add(m.UID)
		}
	}
	return set
}

func (w *writer) event(kind string, b *seen) proto.Event {
	return proto.Event{Writer: w.name, Kind: kind, Box: b.name}
}

func (w *writer) append(ctx context.Context, b *seen) {
	w.count++
	e := w.event(proto.Append, b)
	e.Token = fmt.Sprintf("%s.%d", w.name, w.count)
	size := 100 + w.rng.IntN(6000)
	if w.rng.IntN(60) == 0 {
		size = 400 << 10 // staged in a file, and linked
	}
	m, err := w.g.store.Stage(ctx, volume, message(e.Token, size), 0)
	if err != nil {
		return
	}
	defer m.Close()
	done := w.begin(e)
	r, err := b.m.Append(ctx, []mailstore.AppendMessage{{Message: m}})
	done(err, func(e *proto.Event) { e.Dest, e.ModSeq = []uint32{r.Messages[0].UID}, r.ModSeq })
}

func (w *writer) flag(ctx context.Context, b *seen, s *mailstore.State) {
	set := w.some(s, 1+w.rng.IntN(5), false)
	if set.Len() == 0 {
		return
	}
	e := w.event(proto.Flag, b)
	e.UIDs, e.Keyword, e.On = slices.Collect(set.All()), "kw-"+w.name, w.rng.IntN(3) > 0
	op := mailstore.FlagsRemove
	if e.On {
		op = mailstore.FlagsAdd
	}
	done := w.begin(e)
	r, err := b.m.ChangeFlags(ctx, mailstore.FlagChange{UIDs: set, Op: op, Keywords: []string{e.Keyword}})
	done(err, func(e *proto.Event) { e.ModSeq = r.ModSeq })
}

func (w *writer) copy(ctx context.Context, b *seen, s *mailstore.State, move bool) {
	set := w.some(s, 1+w.rng.IntN(3), move)
	to := w.boxes[w.rng.IntN(len(w.boxes))]
	if set.Len() == 0 || to == b {
		return
	}
	kind, do := proto.Copy, b.m.CopyTo
	if move {
		kind, do = proto.Move, b.m.MoveTo
	}
	e := w.event(kind, b)
	e.UIDs, e.To = slices.Collect(set.All()), to.name
	done := w.begin(e)
	r, err := do(ctx, set, to.m)
	done(err, func(e *proto.Event) { e.UIDs, e.Dest, e.ModSeq = r.Source, r.Dest, r.ModSeq })
	if err == nil && move {
		for _, u := range r.Source {
			b.gone[u] = true
		}
	}
}

func (w *writer) expunge(ctx context.Context, b *seen, s *mailstore.State) {
	set := w.some(s, 1+w.rng.IntN(3), false)
	if set.Len() == 0 {
		return
	}
	e := w.event(proto.Expunge, b)
	e.UIDs = slices.Collect(set.All())
	done := w.begin(e)
	r, err := b.m.Expunge(ctx, set, false)
	done(err, func(e *proto.Event) { e.UIDs, e.ModSeq = slices.Collect(r.UIDs.All()), r.ModSeq })
	if err == nil {
		for u := range set.All() {
			b.gone[u] = true
		}
	}
}

// read reads a message; a UID always shows the same one.
func (w *writer) read(ctx context.Context, b *seen, s *mailstore.State) {
	if s.Len() == 0 {
		return
	}
	x := s.At(w.rng.IntN(s.Len()))
	t, err := token(ctx, b.m, x)
	if err != nil {
		// It may be expunged, and its file removed: then the mailbox must say so by now.
		now, e := b.m.State(ctx)
		if e != nil {
			return
		}
		if _, there := now.ByUID(x.UID); there && errors.Is(err, mailstore.ErrCorrupt) {
			w.violation("%s: %s UID %d: %v", w.name, b.name, x.UID, err)
		}
		return
	}
	if old := b.token[x.UID]; old != "" && old != t {
		w.violation("%s: %s UID %d is %q, was %q", w.name, b.name, x.UID, t, old)
	}
	b.token[x.UID] = t
}
