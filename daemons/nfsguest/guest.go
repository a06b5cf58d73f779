package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"shoal/daemons/internal/clock"
	"shoal/daemons/internal/mailstore"
	"shoal/daemons/internal/vfs"
	"shoal/daemons/nfsguest/proto"
)

const volume = "vol01"

// Guest is what the rig can ask for.
type Guest struct {
	log *slog.Logger
	arg map[string]string // of the kernel

	mu      sync.Mutex
	open    proto.OpenArgs
	store   *mailstore.Store
	watcher *mailstore.Watcher
	boxes   map[string]*mailstore.Mailbox // handles, by id: they stay as long as the store
}

// Mount mounts the export again, as at boot.
func (g *Guest) Mount(proto.None, *proto.None) error { return mountNFS(g.arg) }

// InitVolume makes the volume.
func (g *Guest) InitVolume(proto.None, *proto.None) error {
	return mailstore.InitVolume(vfs.OS(), proto.Export, proto.VolumeID)
}

// Open opens a store on the mounted volume, after closing the one before.
func (g *Guest) Open(a proto.OpenArgs, _ *proto.None) error {
	if a.Init {
		if err := mailstore.InitVolume(vfs.OS(), proto.Export, proto.VolumeID); err != nil {
			return err
		}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.store != nil {
		if err := g.store.Close(); err != nil {
			return err
		}
	}
	s, err := g.newStore(a)
	g.store, g.open, g.boxes = s, a, map[string]*mailstore.Mailbox{}
	return err
}

func (g *Guest) newStore(a proto.OpenArgs) (*mailstore.Store, error) {
	o := mailstore.Options{Server: a.Server, FS: vfs.OS(), Clock: clock.System(), Log: g.log, Retention: a.Retention, Maintain: a.Maintain, CallTimeout: a.CallTimeout}
	if a.Interest {
		o.HintAddress = a.Server + ":1"
	}
	s, err := mailstore.New(o)
	if err != nil {
		return nil, err
	}
	if a.Tiny || a.NoFence {
		setKnobs(s, a.NoFence)
	}
	return s, s.AddVolume(volume, proto.Export, proto.VolumeID)
}

// mailbox opens a mailbox, and makes it when missing.
func mailbox(ctx context.Context, s *mailstore.Store, account, name string) (*mailstore.Mailbox, error) {
	a, err := s.Account(ctx, volume, account)
	if err != nil {
		return nil, err
	}
	m, err := a.Open(ctx, name)
	if err == nil {
		return m, nil
	}
	if _, err := a.Create(ctx, name, mailstore.CreateOptions{}); err != nil {
		if m, e := a.Open(ctx, name); e == nil { // another client was faster
			return m, nil
		}
		return nil, err
	}
	return a.Open(ctx, name)
}

// message makes a message of about size bytes that says token in its first line.
func message(token string, size int) io.Reader {
	var b bytes.Buffer
	b.WriteString("X-Token: " + token + "\r\n\r\n")
	for b.Len() < size {
		b.WriteString(token)
		b.WriteString("\r\n")
	}
	if size > 0 && size > len(token)+20 {
		b.Truncate(size)
	}
	return &b
}

func token(ctx context.Context, m *mailstore.Mailbox, x mailstore.Message) (string, error) {
	f, err := m.OpenFile(ctx, x)
	if err != nil {
		return "", err
	}
	defer f.Close()
	line, err := bufio.NewReader(io.NewSectionReader(f, 0, f.Size())).ReadString('\n')
	if err != nil {
		return "", err
	}
	return strings.TrimPrefix(strings.TrimRight(line, "\r\n"), "X-Token: "), nil
}

// Verify lets the store check the volume, contents included.
func (g *Guest) Verify(_ proto.None, r *proto.VerifyReply) error {
	v, err := g.store.Verify(context.Background(), volume, mailstore.VerifyOptions{Content: true})
	if err != nil {
		return err
	}
	*r = proto.VerifyReply{Mailboxes: v.Mailboxes, Messages: v.Messages, Records: v.Records, Snapshots: v.Snapshots, Unreferenced: v.Unreferenced, Torn: v.Torn}
	for _, p := range v.Problems {
		r.Problems = append(r.Problems, p.String())
	}
	return nil
}

// Op does one operation and tells what it cost in calls to the file server.
func (g *Guest) Op(a proto.OpArgs, r *proto.OpReply) error {
	ctx := context.Background()
	m, err := mailbox(ctx, g.store, a.Account, a.Box)
	if err != nil {
		return err
	}
	var to *mailstore.Mailbox
	if a.To != "" {
		if to, err = mailbox(ctx, g.store, a.Account, a.To); err != nil {
			return err
		}
		if _, err := to.State(ctx); err != nil {
			return err
		}
	}
	var staged *mailstore.Staged
	if a.Kind == "deliver" || a.Kind == "fill" {
		if staged, err = g.store.Stage(ctx, volume, message(a.Token, a.Size), 0); err != nil {
			return err
		}
		defer staged.Close()
	}
	uids := mailstore.UIDSet{{Start: a.From, Stop: a.From + a.Count - 1}}
	if a.Kind == "drop" { // everything the kernel remembers: a machine that has just been started
		unix.Sync()
		return os.WriteFile("/proc/sys/vm/drop_caches", []byte("3"), 0o644)
	}
	if a.Kind == "links" { // whether the kernel asks about each file before it is linked
		return os.WriteFile("/proc/sys/fs/protected_hardlinks", []byte(a.Token), 0o644)
	}
	if a.Kind == "summarize" {
		return g.summarize(ctx, m, a)
	}
	before, err := calls()
	if err != nil {
		return err
	}
	began := time.Now()
	switch a.Kind {
	case "summaries":
		_, err = summaries(ctx, m, false)
	case "deliver":
		err = g.store.Deliver(ctx, staged, []mailstore.Target{{Account: m.Account(), Mailbox: a.Box}})[0].Err
	case "fill":
		_, err = m.Append(ctx, bulk(staged, int(a.Count)))
	case "flag":
		_, err = m.ChangeFlags(ctx, mailstore.FlagChange{UIDs: uids, Op: mailstore.FlagsAdd, Keywords: []string{a.Keyword}})
	case "poll":
		_, err = m.State(ctx)
	case "read":
		var f *mailstore.MessageFile
		if f, err = m.OpenMessage(ctx, a.From); err == nil {
			err = f.Close()
		}
	case "copy":
		_, err = m.CopyTo(ctx, uids, to)
	case "expunge":
		_, err = m.Expunge(ctx, uids, false)
	case "watch":
		g.watcher, err = m.Watch(ctx)
	case "unwatch":
		g.watcher.Close()
	case "maintain":
		err = m.Account().Maintain(ctx)
	default:
		err = fmt.Errorf("unknown operation %q", a.Kind)
	}
	if err != nil {
		return err
	}
	r.Took = time.Since(began)
	after, err := calls()
	if err != nil {
		return err
	}
	r.Calls = less(after, before)
	if s := m.Cached(); s != nil {
		r.Len, r.UIDNext, r.ModSeq = s.Len(), s.UIDNext(), s.ModSeq()
	}
	return nil
}

// Cold opens a mailbox in a new store and counts the calls from "the mailbox is known" to "its state is there".
func (g *Guest) Cold(a proto.OpArgs, r *proto.OpReply) error {
	ctx := context.Background()
	o := g.open
	o.Server, o.Interest, o.Maintain = g.open.Server+"c", false, false
	s, err := g.newStore(o)
	if err != nil {
		return err
	}
	defer s.Close()
	m, err := mailbox(ctx, s, a.Account, a.Box)
	if err != nil {
		return err
	}
	before, err := calls()
	if err != nil {
		return err
	}
	began := time.Now()
	st, err := m.State(ctx)
	if err != nil {
		return err
	}
	r.Took = time.Since(began)
	after, err := calls()
	if err != nil {
		return err
	}
	r.Calls, r.Len, r.UIDNext, r.ModSeq = less(after, before), st.Len(), st.UIDNext(), st.ModSeq()
	return nil
}

// summaryBytes is what the summary of a usual message takes.
const summaryBytes = 900

// summaries asks for the summaries of all messages, and counts those that are not there; with put these are made.
func summaries(ctx context.Context, m *mailstore.Mailbox, put bool) (missing int, err error) {
	st := m.Cached()
	if st == nil {
		if st, err = m.State(ctx); err != nil {
			return 0, err
		}
	}
	d := m.Derived(st.Len())
	defer d.Close()
	for _, x := range st.All() {
		want := strings.Repeat(x.ID()+" ", summaryBytes/len(x.ID()))
		got, ok := d.Get(ctx, &x)
		switch {
		case !ok:
			missing++
			if put {
				d.Put(&x, []byte(want))
			}
		case got != want:
			return 0, fmt.Errorf("UID %d: the summary of another message", x.UID)
		}
	}
	return missing, nil
}

// summarize makes the summaries of all messages and waits until another store finds them on the volume.
func (g *Guest) summarize(ctx context.Context, m *mailstore.Mailbox, a proto.OpArgs) error {
	if _, err := summaries(ctx, m, true); err != nil {
		return err
	}
	o := g.open
	o.Server, o.Interest, o.Maintain = g.open.Server+"s", false, false
	for began := time.Now(); ; {
		s, err := g.newStore(o)
		if err != nil {
			return err
		}
		cold, err := mailbox(ctx, s, a.Account, a.Box)
		missing := 0
		if err == nil {
			missing, err = summaries(ctx, cold, false)
		}
		s.Close()
		if err != nil || missing == 0 {
			return err
		}
		if time.Since(began) > time.Minute {
			return fmt.Errorf("%d summaries were not written", missing)
		}
	}
}

func bulk(m *mailstore.Staged, n int) []mailstore.AppendMessage {
	out := make([]mailstore.AppendMessage, n)
	for i := range out {
		out[i].Message = m
	}
	return out
}

// calls reads the kernel's count of calls to the file server, by kind. In /proc/self/mountstats a device's part begins
// with "device"; its lines after "per-op statistics" are "<KIND>: <calls> ...".
func calls() (map[string]int, error) {
	b, err := os.ReadFile("/proc/self/mountstats")
	if err != nil {
		return nil, err
	}
	out := map[string]int{}
	ours, ops := false, false
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		switch {
		case len(f) > 4 && f[0] == "device":
			ours, ops = f[4] == proto.Export, false
		case ours && len(f) > 0 && f[0] == "per-op":
			ops = true
		case ours && ops && len(f) > 1:
			var n int
			if _, err := fmt.Sscan(f[1], &n); err == nil {
				out[strings.TrimSuffix(f[0], ":")] = n
			}
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("/proc/self/mountstats has nothing about %s", proto.Export)
	}
	return out, nil
}

func less(after, before map[string]int) map[string]int {
	maps.DeleteFunc(after, func(k string, n int) bool { return n == before[k] || k == "SEQUENCE" || k == "RENEW" })
	for k := range after {
		after[k] -= before[k]
	}
	return after
}
