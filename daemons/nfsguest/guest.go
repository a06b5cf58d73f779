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
	fault   *vfs.Fault                    // beneath a mortal store
	held    *mailstore.MessageFile        // a message that is being read
	plain   *os.File                      // its file, opened as anybody would
	peer    *dovecot                      // a session
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
	var fs vfs.FS = vfs.OS()
	if a.Mortal {
		g.fault = vfs.NewFault(fs)
		fs = g.fault
	}
	o := mailstore.Options{Server: a.Server, FS: fs, Clock: clock.System(), Log: g.log, Retention: a.Retention, Maintain: a.Maintain, CallTimeout: a.CallTimeout}
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

// letterHead is what a usual letter begins with, as far as summaries keep it.
const letterHead = "Date: Mon, 5 Jan 2026 10:00:00 +0000\r\nFrom: Somebody With A Name <somebody.with-a-name@department.example.test>\r\n" +
	"To: \"Else, Somebody\" <somebody.else@example.org>, The List <the-list@lists.example.org>\r\nCc: Another One <another.one@example.net>\r\n" +
	"Subject: Re: [the-list] a subject of the length that subjects often have, or a little more\r\n" +
	"Message-ID: <20260105100000.4F2A9C1B7D3E@mail-0123456789.department.example.test>\r\n" +
	"In-Reply-To: <CAF5dKq0-8Zt1y_m2hXyz0123456789abcdefghij@mail.example.org>\r\n" +
	"References: <CAF5dKq0-8Zt1y_m2hXyz0123456789abcdefghij@mail.example.org>\r\n <E1tUabc-0001Ab-2C@host.example.net>\r\n" +
	"List-Id: The List <the-list.lists.example.org>\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n"

// message makes a message of about size bytes that says token in its first line.
func message(token string, size int) io.Reader {
	var b bytes.Buffer
	if token == proto.Letter {
		b.WriteString(letterHead)
	}
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
	before, err := calls()
	if err != nil {
		return err
	}
	began := time.Now()
	switch a.Kind {
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
	return counted(r, func() error {
		st, err := m.State(ctx)
		if err != nil {
			return err
		}
		r.Len, r.UIDNext, r.ModSeq = st.Len(), st.UIDNext(), st.ModSeq()
		return nil
	})
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
		if st, err := vfs.OS().Statfs(proto.Export); err == nil && !st.Network { // the file server itself
			return out, nil
		}
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
