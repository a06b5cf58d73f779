package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"shoal/daemons/internal/mailstore"
	"shoal/daemons/nfsguest/proto"
)

// Do does one operation of a history. What the store answers is the outcome; an error of the call itself means that nothing was
// asked of the store.
func (g *Guest) Do(a proto.Do, r *proto.Done) error {
	ctx := context.Background()
	g.mu.Lock()
	store := g.store
	g.mu.Unlock()
	if store == nil {
		return errors.New("no store is open")
	}
	err := g.do(ctx, store, a, r)
	if err == nil {
		return nil
	}
	r.Err = err.Error()
	r.Closed = errors.Is(err, mailstore.ErrMailboxClosed)
	r.Missing = errors.Is(err, mailstore.ErrNoMailbox)
	r.Exists = errors.Is(err, mailstore.ErrMailboxExists)
	r.NoSpace = errors.Is(err, mailstore.ErrNoSpace)
	r.ReadOnly = errors.Is(err, mailstore.ErrReadOnly)
	r.Unavailable = errors.Is(err, mailstore.ErrUnavailable)
	r.Corrupt = errors.Is(err, mailstore.ErrCorrupt)
	return nil
}

func (g *Guest) do(ctx context.Context, s *mailstore.Store, a proto.Do, r *proto.Done) error {
	acct, err := s.Account(ctx, volume, a.Account)
	if err != nil {
		return err
	}
	switch a.Kind {
	case "create":
		info, err := acct.Create(ctx, a.Box, mailstore.CreateOptions{})
		r.ID, r.UIDValidity = info.ID, info.UIDValidity
		return err
	case "rename":
		return acct.Rename(ctx, a.Box, a.To)
	case "delete":
		return acct.Delete(ctx, a.Box)
	case "list":
		all, err := acct.Mailboxes(ctx)
		for _, m := range all {
			r.Boxes = append(r.Boxes, proto.Box{Name: m.Name, ID: m.ID, UIDValidity: m.UIDValidity})
		}
		return err
	case "maintain":
		return errors.Join(acct.Maintain(ctx), s.Purge(ctx, volume))
	}
	if a.Fresh {
		o := g.open
		o.Server, o.Interest, o.Maintain = g.open.Server+"f", false, false
		fresh, err := g.newStore(o)
		if err != nil {
			return err
		}
		defer fresh.Close()
		if acct, err = fresh.Account(ctx, volume, a.Account); err != nil {
			return err
		}
		m, err := acct.OpenID(ctx, a.Box)
		if err != nil {
			return err
		}
		return read(ctx, m, r)
	}
	m, err := g.box(ctx, acct, a.Box)
	if err != nil {
		return err
	}
	uids := mailstore.NewUIDSet(a.UIDs...)
	switch a.Kind {
	case "read":
		return read(ctx, m, r)
	case "content":
		st, err := m.State(ctx)
		if err != nil {
			return err
		}
		x, ok := st.ByUID(a.UIDs[0])
		if !ok {
			return nil
		}
		if r.Token, err = token(ctx, m, x); err != nil {
			// It may have been expunged, and its file removed, since: then the mailbox must say so by now.
			if now, e := m.State(ctx); e == nil {
				if _, there := now.ByUID(x.UID); there {
					r.Token = fmt.Sprintf("unreadable: %v", err)
				}
			}
		}
		return nil
	case "hold":
		if g.held, err = m.OpenMessage(ctx, a.UIDs[0]); err == nil {
			_, err = g.held.ReadAt(make([]byte, 4096), 0)
		}
		if err == nil {
			g.plain, err = openLongest(proto.Export + "/a")
		}
		return err
	case "rest":
		defer g.held.Close()
		defer g.plain.Close()
		if _, err := io.Copy(io.Discard, g.plain); err != nil {
			r.Token = err.Error()
		}
		b := make([]byte, g.held.Size())
		if _, err := g.held.ReadAt(b, 0); err != nil && err != io.EOF {
			return err
		}
		whole, err := io.ReadAll(message(a.Token, a.Size))
		if err == nil && !bytes.Equal(b, whole) {
			err = errors.New("not what was written")
		}
		return err
	case "append":
		st, err := s.Stage(ctx, volume, message(a.Token, a.Size), 0)
		if err != nil {
			return err
		}
		defer st.Close()
		x, err := m.Append(ctx, []mailstore.AppendMessage{{Message: st, Flags: mailstore.Flags(a.Mask & 31), Keywords: proto.Keywords(a.Mask)}})
		if err == nil {
			r.UIDs, r.ModSeq = []uint32{x.Messages[0].UID}, x.ModSeq
		}
		return err
	case "flags":
		x, err := m.ChangeFlags(ctx, mailstore.FlagChange{
			UIDs: uids, Op: map[string]mailstore.FlagOp{"+": mailstore.FlagsAdd, "-": mailstore.FlagsRemove, "=": mailstore.FlagsReplace}[a.Sign],
			Flags: mailstore.Flags(a.Mask & 31), Keywords: proto.Keywords(a.Mask), UnchangedSince: a.Since, Conditional: a.Guarded,
		})
		r.UIDs, r.Failed, r.ModSeq = slices.Collect(x.Changed.All()), slices.Collect(x.Failed.All()), x.ModSeq
		return err
	case "expunge":
		x, err := m.Expunge(ctx, uids, false)
		r.UIDs, r.ModSeq = slices.Collect(x.UIDs.All()), x.ModSeq
		return err
	case "copy", "move":
		to, err := g.box(ctx, acct, a.To)
		if err != nil {
			return err
		}
		do := m.CopyTo
		if a.Kind == "move" {
			do = m.MoveTo
		}
		x, err := do(ctx, uids, to)
		r.UIDs, r.Dest, r.ModSeq = x.Source, x.Dest, x.ModSeq
		return err
	}
	return fmt.Errorf("unknown operation %q", a.Kind)
}

// openLongest opens the longest file beneath dir.
func openLongest(dir string) (*os.File, error) {
	var path string
	var size int64
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		i, err := d.Info()
		if err == nil && i.Size() > size {
			path, size = p, i.Size()
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return os.Open(path)
}

// box returns the handle on a mailbox that this server has had since it first heard of it.
func (g *Guest) box(ctx context.Context, a *mailstore.Account, id string) (*mailstore.Mailbox, error) {
	g.mu.Lock()
	m := g.boxes[a.ID()+" "+id]
	g.mu.Unlock()
	if m != nil {
		return m, nil
	}
	m, err := a.OpenID(ctx, id)
	if err == nil {
		g.mu.Lock()
		g.boxes[a.ID()+" "+id] = m
		g.mu.Unlock()
	}
	return m, err
}

func read(ctx context.Context, m *mailstore.Mailbox, r *proto.Done) error {
	st, err := m.State(ctx)
	if err != nil {
		return err
	}
	r.UIDValidity, r.UIDNext, r.ModSeq = st.UIDValidity(), st.UIDNext(), st.ModSeq()
	for _, x := range st.All() {
		r.Messages = append(r.Messages, proto.Message{UID: x.UID, ModSeq: x.ModSeq, Flags: proto.Mask(uint8(x.Flags), x.Keywords)})
	}
	return nil
}
