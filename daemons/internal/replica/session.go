package replica

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"

	"shoal/daemons/internal/dirstore"
	"shoal/daemons/internal/ldapwire"
)

const (
	syncID     = 3  // message id of the persist search
	leaseID    = 4  // of the renewal of a lease under way
	firstProbe = 10 // message ids of probes ascend from here
	rid        = "001"

	// window and windowOctets bound what was got and is not on the disk yet.
	window       = 512
	windowOctets = 16 << 20
	// deadAfter is how many probes may stay without an answer.
	deadAfter = 3
)

// session follows a provider on one connection. One goroutine reads (run), one waits for the writes in
// their order (settle), one probes.
type session struct {
	r     *Replica
	c     *conn
	whole bool // no cookie is sent

	content string // what is had of this provider, see Provider.content

	csns      []string // as of the newest cookie
	refreshed bool
	refresh   *refresh // nil once done

	stamps chan string // the provider's answers to renewals

	writes chan applied
	room   *semaphore.Weighted
	ctx    context.Context
	cancel context.CancelCauseFunc

	probed int32 // id of the probe under way; 0 for none
	heard  []string
	mu     sync.Mutex // of probed
}

// applied is a write on its way to the disk.
type applied struct {
	w       *dirstore.Write
	size    int64
	name    string
	barrier chan struct{} // if not nil, nothing but a place in the order
}

func newSession(r *Replica, c *conn, cookie string, whole bool) *session {
	s := &session{r: r, c: c, whole: whole, stamps: make(chan string, 1), writes: make(chan applied, window), room: semaphore.NewWeighted(windowOctets)}
	s.ctx, s.cancel = context.WithCancelCause(context.Background())
	if !whole {
		have, err := ldapwire.ParseSyncCookie([]byte(cookie))
		s.csns = have.CSNs
		s.whole = err != nil || len(have.CSNs) == 0
	}
	s.refresh = newRefresh(s)
	return s
}

// run returns why it ended.
func (s *session) run() error {
	var all sync.WaitGroup
	all.Go(s.settle)
	all.Go(s.probe)
	if s.r.opt.Lease != nil {
		all.Go(s.renew)
	}
	err := s.receive()
	s.cancel(err)
	s.c.close()
	close(s.writes)
	all.Wait()
	if s.refresh != nil && s.refresh.load != nil {
		s.refresh.load.abort()
	}
	if cause := context.Cause(s.ctx); cause != nil {
		return cause // of whoever failed first
	}
	return err
}

func (s *session) receive() error {
	request := ldapwire.SyncRequest{Persist: true}
	cookie := ldapwire.SyncCookie{RID: rid}
	if !s.whole {
		cookie.CSNs = s.csns
	}
	request.Cookie = cookie.Append(nil)
	controls := ldapwire.AppendControl(nil, ldapwire.OIDSyncRequest, true, request.Append(nil))
	controls = ldapwire.AppendControl(controls, ldapwire.OIDManageDsaIT, true, nil)
	if err := s.c.write(ldapwire.AppendSearchRequest(nil, syncID, s.r.opt.Store.Suffix(), ldapwire.WholeSubtree, []string{"*", "+"}, controls)); err != nil {
		return err
	}
	s.r.set(func(st *Status) { st.State, st.Error, st.Received = Refreshing, "", 0 })
	s.r.opt.Log.Info("directory refresh begins", "event", "replica-refresh", "provider", s.r.Status().Provider, "whole", s.whole, "cookie", strings.Join(s.csns, ";"))
	for {
		m, err := s.c.read(s.r.opt.Probe * deadAfter)
		if err != nil {
			return err
		}
		switch m.ID {
		case syncID:
			err = s.message(m)
		case leaseID:
			err = s.leaseAnswer(m)
		case 0:
			var res ldapwire.Result
			if err = res.Parse(m.Body); err == nil {
				err = fmt.Errorf("the provider ends the connection: %s: %s", res.Code, res.Message)
			}
		default:
			err = s.probeAnswer(m)
		}
		if err != nil {
			return err
		}
		if s.ctx.Err() != nil {
			return context.Cause(s.ctx)
		}
	}
}

// message is one of the persist search.
func (s *session) message(m *ldapwire.Message) error {
	s.r.heard(nil)
	switch m.Op {
	case ldapwire.OpSearchResultEntry:
		return s.entry(m)
	case ldapwire.OpIntermediateResponse:
		name, value, err := ldapwire.ParseIntermediate(m.Body)
		if err != nil || string(name) != ldapwire.OIDSyncInfo {
			return err
		}
		var i ldapwire.SyncInfo
		if err := i.Parse(value); err != nil {
			return fmt.Errorf("sync info: %w", err)
		}
		return s.info(&i)
	case ldapwire.OpSearchResultReference:
		return nil
	case ldapwire.OpSearchResultDone:
		var res ldapwire.Result
		if err := res.Parse(m.Body); err != nil {
			return err
		}
		if err := res.Err(); err != nil {
			return fmt.Errorf("synchronization: %w", err)
		}
		return errors.New("the provider ended the synchronization")
	}
	return fmt.Errorf("unexpected operation 0x%02x", byte(m.Op))
}

func (s *session) entry(m *ldapwire.Message) error {
	i := slices.IndexFunc(m.Controls, func(c ldapwire.Control) bool { return string(c.Type) == ldapwire.OIDSyncState })
	if i < 0 {
		return errors.New("an entry without a sync state control: the provider does not speak RFC 4533")
	}
	state, uuid, cookie, err := ldapwire.ParseSyncState(m.Controls[i].Value)
	if err != nil {
		return fmt.Errorf("sync state: %w", err)
	}
	var after *dirstore.Context
	if s.refresh == nil { // else the cookie of its end stands for all of the refresh
		if after, err = s.after(cookie); err != nil {
			return err
		}
	}
	switch state {
	case ldapwire.SyncDelete:
		if s.refresh != nil {
			return s.refresh.gone(uuid)
		}
		return s.remove(uuid, after)
	case ldapwire.SyncPresent:
		if s.refresh != nil {
			return s.refresh.present([][16]byte{uuid})
		}
		return nil
	}
	var e ldapwire.Entry
	if err := ldapwire.ParseEntry(&e, m.Body, wireLimits); err != nil {
		return fmt.Errorf("entry: %w", err)
	}
	op := &dirstore.Replicate{UUID: uuid, DN: e.DN, Attributes: e.Attributes, After: after}
	if s.refresh != nil {
		s.refresh.came(uuid)
		if load, err := s.refresh.loading(); err != nil {
			return err
		} else if load != nil {
			return load.add(op, len(m.Body))
		}
		if err := s.refresh.begin(); err != nil {
			return err
		}
	}
	return s.submit(op, string(e.DN), len(m.Body))
}

func (s *session) info(i *ldapwire.SyncInfo) error {
	if s.refresh != nil {
		return s.refresh.info(i)
	}
	after, err := s.after(i.Cookie)
	if err != nil {
		return err
	}
	switch i.Kind {
	case ldapwire.SyncNewCookie:
		if after != nil {
			return s.submit(after, "", 64)
		}
	case ldapwire.SyncIDSet:
		if !i.RefreshDeletes {
			return nil
		}
		gone := i.UUIDs
		if len(gone) > 1 {
			// Those that leave a content together come in no order.
			if err := s.settled(); err != nil {
				return err
			}
			if gone, err = deepestFirst(s.r.opt.Store, slices.Values(gone)); err != nil {
				return err
			}
		}
		for _, id := range gone {
			if err := s.remove(id, nil); err != nil {
				return err
			}
		}
		if after != nil {
			return s.submit(after, "", 64)
		}
	}
	return nil
}

func (s *session) remove(id [16]byte, after *dirstore.Context) error {
	return s.submit(&dirstore.Remove{UUID: id, CSN: s.newest(), After: after}, "", 64)
}

// after makes of a cookie what is stored with the change that it came with. A cookie in the persist
// stage may name the CSN of one server only: those of the others stay.
func (s *session) after(cookie []byte) (*dirstore.Context, error) {
	if cookie == nil {
		return nil, nil
	}
	c, err := ldapwire.ParseSyncCookie(cookie)
	if err != nil || len(c.CSNs) == 0 {
		return nil, err
	}
	list := slices.Clone(s.csns)
	for _, csn := range c.CSNs {
		if !dirstore.IsCSN(csn) {
			return nil, fmt.Errorf("sync cookie: CSN %q", csn)
		}
		i := slices.IndexFunc(list, func(o string) bool { return dirstore.CSNServer(o) == dirstore.CSNServer(csn) })
		if i < 0 {
			list = append(list, csn)
		} else {
			list[i] = max(list[i], csn)
		}
	}
	s.csns = list
	return &dirstore.Context{CSNs: list, Cookie: storedCookie(list, s.content)}, nil
}

func (s *session) newest() string {
	if len(s.csns) == 0 {
		return ""
	}
	return slices.Max(s.csns)
}

// submit gives a change to the store, and waits while too many are under way.
func (s *session) submit(op dirstore.Operation, name string, size int) error {
	n := min(int64(size), windowOctets)
	if err := s.room.Acquire(s.ctx, n); err != nil {
		return context.Cause(s.ctx)
	}
	w := &dirstore.Write{By: s.r.opt.BindDN, Op: op}
	s.r.opt.Store.Submit(w)
	select {
	case s.writes <- applied{w: w, size: n, name: name}:
		return nil
	case <-s.ctx.Done():
		return context.Cause(s.ctx)
	}
}

// settled waits until everything submitted is on the disk.
func (s *session) settled() error {
	b := make(chan struct{})
	select {
	case s.writes <- applied{barrier: b}:
	case <-s.ctx.Done():
		return context.Cause(s.ctx)
	}
	select {
	case <-b:
	case <-s.ctx.Done():
	}
	return context.Cause(s.ctx)
}

// settle waits for the writes in their order.
func (s *session) settle() {
	for a := range s.writes {
		if a.barrier != nil {
			close(a.barrier)
			continue
		}
		err := a.w.Wait()
		s.room.Release(a.size)
		if err = s.done(a, err); err != nil {
			s.cancel(err)
			s.c.close()
		}
	}
}

// done looks at the end of a write. An error ends the session.
func (s *session) done(a applied, err error) error {
	var refused *ldapwire.Error
	switch {
	case err == nil:
	case !errors.As(err, &refused) || refused.Code == ldapwire.Unavailable:
		return fmt.Errorf("entry %q: %w", a.name, err)
	case !s.whole && (refused.Code == ldapwire.NoSuchObject || refused.Code == ldapwire.NotAllowedOnNonLeaf || refused.Code == ldapwire.UnwillingToPerform):
		return &inconsistent{fmt.Sprintf("entry %q: %v", a.name, err)}
	default:
		s.refused(a.name, err)
		return nil
	}
	switch op := a.w.Op.(type) {
	case *dirstore.Replicate:
		s.r.metrics.changes.WithLabelValues("entry").Inc()
		s.skipped(a.name, op)
		if f := s.refreshing(); f != nil {
			f.mention(op.ID)
		} else {
			s.r.metrics.delay.Observe(max(dirstore.Age(a.w.CSN(), s.r.opt.Clock.Now()), 0).Seconds())
		}
	case *dirstore.Remove:
		if op.Gone {
			s.r.metrics.changes.WithLabelValues("removal").Inc()
		}
	}
	s.r.mu.Lock()
	s.r.checkSync()
	s.r.mu.Unlock()
	return nil
}

func (s *session) refreshing() *refresh {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.refresh
}

// probe asks for the provider's contextCSN, on the same connection.
func (s *session) probe() {
	id := int32(firstProbe)
	for {
		t := s.r.opt.Clock.NewTimer(s.r.opt.Probe)
		select {
		case <-s.ctx.Done():
			t.Stop()
			return
		case <-t.C():
		}
		s.mu.Lock()
		waiting := s.probed != 0
		if !waiting {
			s.probed = id
		}
		s.mu.Unlock()
		if waiting {
			continue // the read deadline ends a connection where nothing comes any more
		}
		if err := s.c.write(ldapwire.AppendSearchRequest(nil, id, s.r.opt.Store.Suffix(), ldapwire.BaseObject, []string{"contextCSN"}, nil)); err != nil {
			s.cancel(fmt.Errorf("probe: %w", err))
			s.c.close()
			return
		}
		id = max(id+1, firstProbe)
	}
}

func (s *session) probeAnswer(m *ldapwire.Message) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if m.ID != s.probed {
		return nil
	}
	switch m.Op {
	case ldapwire.OpSearchResultEntry:
		var e ldapwire.Entry
		if err := ldapwire.ParseEntry(&e, m.Body, wireLimits); err != nil {
			return fmt.Errorf("probe: %w", err)
		}
		s.heard = nil
		for _, a := range e.Attributes {
			if strings.EqualFold(string(a.Type), "contextCSN") {
				for _, v := range a.Values {
					s.heard = append(s.heard, string(v))
				}
			}
		}
	case ldapwire.OpSearchResultDone:
		s.probed = 0
		s.r.heard(s.heard)
	}
	return nil
}

// cause is why the session ends.
func (s *session) cause() error { return context.Cause(s.ctx) }

// following is the end of a refresh.
func (s *session) following(kind string, took time.Duration) {
	s.mu.Lock()
	s.refresh = nil
	s.mu.Unlock()
	s.refreshed = true
	s.r.metrics.refreshes.WithLabelValues(kind).Inc()
	s.r.mu.Lock()
	s.r.whole, s.r.inPlace = false, false
	s.r.status.State = Following
	s.r.theirs = s.csns
	s.r.checkSync()
	s.r.mu.Unlock()
	s.r.opt.Log.Info("directory refresh done", "event", "replica-following", "kind", kind, "seconds", took.Seconds(), "entries", s.r.opt.Store.Entries(), "cookie", strings.Join(s.csns, ";"))
}
