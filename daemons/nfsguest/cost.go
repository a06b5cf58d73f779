package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"shoal/daemons/internal/mailstore"
	mime "shoal/daemons/internal/message"
	"shoal/daemons/nfsguest/proto"
)

// counted does something and tells what it cost in calls to the file server, time, and this process' time on the processor.
func counted(r *proto.OpReply, do func() error) error {
	before, err := calls()
	if err != nil {
		return err
	}
	var u, v unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		return err
	}
	began := time.Now()
	if err := do(); err != nil {
		return err
	}
	r.Took = time.Since(began)
	if err := unix.Getrusage(unix.RUSAGE_SELF, &v); err != nil {
		return err
	}
	spent := func(u unix.Rusage) time.Duration { return time.Duration(u.Utime.Nano() + u.Stime.Nano()) }
	r.CPU = spent(v) - spent(u)
	after, err := calls()
	if err != nil {
		return err
	}
	r.Calls = less(after, before)
	return nil
}

// Opened opens a mailbox by its name: in the store that is there, or with Cold in a new one, from the account on.
func (g *Guest) Opened(a proto.OpArgs, r *proto.OpReply) error {
	ctx := context.Background()
	s := g.store
	if a.Kind == "cold" {
		o := g.open
		o.Server, o.Interest, o.Maintain = g.open.Server+"o", false, false
		fresh, err := g.newStore(o)
		if err != nil {
			return err
		}
		defer fresh.Close()
		s = fresh
	}
	return counted(r, func() error {
		m, err := mailbox(ctx, s, a.Account, a.Box)
		if err != nil {
			return err
		}
		st, err := m.State(ctx)
		if err != nil {
			return err
		}
		r.Len, r.UIDNext, r.ModSeq = st.Len(), st.UIDNext(), st.ModSeq()
		return nil
	})
}

// Envelopes gets the envelopes of all messages of a mailbox, as an IMAP session does: from summaries, and from the messages where
// there are none, which makes them.
func (g *Guest) Envelopes(a proto.OpArgs, r *proto.OpReply) error {
	ctx := context.Background()
	m, err := mailbox(ctx, g.store, a.Account, a.Box)
	if err != nil {
		return err
	}
	st, err := m.State(ctx)
	if err != nil {
		return err
	}
	return counted(r, func() error {
		d := m.Derived(st.Len())
		defer d.Close()
		var view mime.View
		for _, x := range st.All() {
			if packed, ok := d.Get(ctx, &x); ok && view.Open(packed, x.Size) == nil && view.Has(mime.SectionEnvelope) {
				r.Len++
				continue
			}
			f, err := m.OpenFile(ctx, x)
			if err != nil {
				return err
			}
			root, err := mime.ParseHeader(f, x.Size, mime.Limits{})
			if err != nil {
				return err
			}
			sum, err := mime.Summarize(f, x.Size, root, false)
			if err != nil {
				return err
			}
			d.Put(&x, sum.Pack(nil))
			if err := f.Close(); err != nil {
				return err
			}
		}
		return nil
	})
}

// CloseStore closes the store: what it was about to write is written.
func (g *Guest) CloseStore(proto.None, *proto.None) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	err := g.store.Close()
	g.store = nil
	return err
}

// Burst commits as often as it can for some time.
func (g *Guest) Burst(a proto.BurstArgs, r *proto.BurstReply) error {
	commit, end, err := g.committer(a)
	if err != nil {
		return err
	}
	before, err := calls()
	if err != nil {
		return err
	}
	began := time.Now()
	var mu sync.Mutex
	var wg sync.WaitGroup
	var errs []error
	for w := range a.Writers {
		wg.Add(1)
		go func() {
			defer wg.Done()
			n := 0
			var err error
			for err == nil && time.Since(began) < a.For {
				if err = commit(w, n); err == nil {
					n++
				}
			}
			mu.Lock()
			defer mu.Unlock()
			r.Done += n
			errs = append(errs, err)
		}()
	}
	wg.Wait()
	r.Took = time.Since(began)
	after, err := calls()
	if err != nil {
		return err
	}
	r.Calls = less(after, before)
	return errors.Join(append(errs, end())...)
}

func (g *Guest) committer(a proto.BurstArgs) (commit func(writer, n int) error, end func() error, err error) {
	ctx := context.Background()
	if a.Kind == "store" {
		m, err := mailbox(ctx, g.store, a.Account, a.Box)
		if err != nil {
			return nil, nil, err
		}
		if _, err := m.State(ctx); err != nil {
			return nil, nil, err
		}
		return func(w, n int) error {
			uid := a.FirstUID + uint32(w)
			op := mailstore.FlagsAdd
			if n%2 == 1 {
				op = mailstore.FlagsRemove
			}
			_, err := m.ChangeFlags(ctx, mailstore.FlagChange{UIDs: mailstore.UIDSet{{Start: uid, Stop: uid}}, Op: op, Flags: mailstore.FlagSeen})
			return err
		}, func() error { return nil }, nil
	}
	// The plain way to share a file: an exclusive lock, a record at its end, stable before the lock is given back. It is made
	// as cheap as can be: the file stays open. Of kind "lock" nobody looks at what others have appended; of kind "lock and read"
	// it is read first, without which nobody knows what UID a message gets.
	var files []*os.File
	buf, known := make([][64 << 10]byte, a.Writers), make([]int64, a.Writers)
	for range a.Writers {
		f, err := os.OpenFile(path.Join(proto.Export, a.Box), os.O_RDWR|os.O_APPEND|os.O_CREATE, 0o644)
		if err != nil {
			return nil, nil, err
		}
		files = append(files, f)
	}
	lock := func(f *os.File, kind int16) error {
		for {
			l := unix.Flock_t{Type: kind, Whence: 0}
			err := unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLKW, &l)
			if !errors.Is(err, syscall.EINTR) {
				return err
			}
		}
	}
	commit = func(w, n int) error {
		f := files[w]
		if err := lock(f, unix.F_WRLCK); err != nil {
			return fmt.Errorf("lock: %w", err)
		}
		for a.Kind == "lock and read" {
			n, err := f.ReadAt(buf[w][:], known[w])
			known[w] += int64(n)
			if err != nil || n == 0 {
				break
			}
		}
		_, err := fmt.Fprintf(f, "%s.%d.%d F +S %d\n", g.open.Server, w, n, a.FirstUID)
		if err == nil {
			err = f.Sync()
		}
		return errors.Join(err, lock(f, unix.F_UNLCK))
	}
	return commit, func() (err error) {
		for _, f := range files {
			err = errors.Join(err, f.Close())
		}
		return err
	}, nil
}
