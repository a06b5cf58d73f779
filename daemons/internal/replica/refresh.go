package replica

import (
	"cmp"
	"fmt"
	"iter"
	"maps"
	"slices"
	"sync"
	"time"

	"shoal/daemons/internal/dirstore"
	"shoal/daemons/internal/ldapwire"
)

// maxGone bounds the deletions of a delete phase, which are kept until its end, and maxUnknown what is
// waited for in a present phase.
const (
	maxGone    = 1 << 20
	maxUnknown = 1 << 16
)

// refresh is the refresh stage of a session (RFC 4533 §3.3.1, §3.4.1).
type refresh struct {
	s       *session
	started time.Duration
	begun   bool

	mu       sync.Mutex
	seen     marks // entries that the provider named
	received int

	unknown   map[[16]byte]struct{} // said to be present, and not here: may still come
	presented bool                  // a present phase ended
	deleted   map[[16]byte]struct{}
	load      *loading // of a total refresh that makes a new database
}

func newRefresh(s *session) *refresh {
	return &refresh{s: s, started: s.r.opt.Clock.Boot(), seen: marks{}, unknown: map[[16]byte]struct{}{}, deleted: map[[16]byte]struct{}{}}
}

// begin tells the store, once, that changes come out of their order.
func (f *refresh) begin() error {
	if f.begun {
		return nil
	}
	f.begun = true
	return f.s.submit(&dirstore.Context{Refresh: dirstore.RefreshBegins}, "", 64)
}

// loading begins a new database when this refresh makes one; nil if it does not.
func (f *refresh) loading() (*loading, error) {
	if f.load != nil || !f.s.whole || f.begun {
		return f.load, nil
	}
	f.s.r.mu.Lock()
	inPlace := f.s.r.inPlace
	f.s.r.mu.Unlock()
	if inPlace {
		return nil, nil
	}
	l, err := newLoading(f.s)
	if err != nil {
		return nil, f.s.notLoaded(err)
	}
	f.load = l
	return l, nil
}

func (f *refresh) mention(id uint64) {
	f.mu.Lock()
	f.seen.set(id)
	f.mu.Unlock()
	f.count()
}

// count counts an entry that was got.
func (f *refresh) count() {
	f.mu.Lock()
	f.received++
	n := f.received
	f.mu.Unlock()
	f.s.r.set(func(s *Status) { s.Received = n })
}

// present marks entries of which the provider sent the UUID only.
func (f *refresh) present(ids [][16]byte) error {
	if f.load != nil {
		return f.s.notLoaded(fmt.Errorf("%w: the provider names some instead of sending them", dirstore.ErrLoadTooIrregular))
	}
	r, err := f.s.r.opt.Store.Read()
	if err != nil {
		return err
	}
	defer r.Close()
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, id := range ids {
		if n := r.ByUUID(id); n != 0 {
			f.seen.set(n)
		} else {
			f.unknown[id] = struct{}{}
		}
	}
	if len(f.unknown) > maxUnknown {
		return &inconsistent{"too many entries are missing here"}
	}
	return nil
}

// missing looks again for what was said to be present: it may have been sent as an entry, too.
func (f *refresh) missing() (n int, err error) {
	again := slices.Collect(maps.Keys(f.unknown))
	clear(f.unknown)
	err = f.present(again)
	return len(f.unknown), err
}

func (f *refresh) gone(ids ...[16]byte) error {
	if len(f.deleted)+len(ids) > maxGone {
		return &inconsistent{"more deletions than can be kept"}
	}
	for _, id := range ids {
		f.deleted[id] = struct{}{}
	}
	return nil
}

// came takes back a deletion: the entry is there again.
func (f *refresh) came(id [16]byte) { delete(f.deleted, id) }

// info takes a sync info message of the refresh stage.
func (f *refresh) info(i *ldapwire.SyncInfo) error {
	switch i.Kind {
	case ldapwire.SyncIDSet:
		if !i.RefreshDeletes {
			return f.present(i.UUIDs)
		}
		return f.gone(i.UUIDs...)
	case ldapwire.SyncRefreshPresent:
		f.presented = true
	case ldapwire.SyncRefreshDelete:
	default:
		return nil
	}
	if !i.RefreshDone {
		return nil
	}
	return f.done(i.Cookie)
}

// done ends the refresh stage: what the provider does not have goes, then the cookie is stored.
func (f *refresh) done(cookie []byte) error {
	s := f.s
	c, err := ldapwire.ParseSyncCookie(cookie)
	if err != nil {
		return err
	}
	if f.load != nil {
		if len(c.CSNs) > 0 {
			s.csns = c.CSNs
		}
		if err := f.load.finish(f); err != nil {
			return err
		}
		s.following("whole", s.r.opt.Clock.Boot()-f.started)
		return nil
	}
	if err := s.settled(); err != nil {
		return err
	}
	if n, err := f.missing(); err != nil {
		return err
	} else if n > 0 {
		return &inconsistent{fmt.Sprintf("%d entries are missing here", n)}
	}
	if len(c.CSNs) > 0 {
		s.csns = c.CSNs
	}
	kind := "delete"
	// Without a cookie everything was sent, whatever the provider calls it (OpenLDAP with a session log
	// calls it a delete phase).
	if f.presented || s.whole {
		kind = "present"
		if err := f.removeUnseen(); err != nil {
			return err
		}
	}
	if s.whole {
		kind = "whole"
	}
	if err := f.removeDeleted(); err != nil {
		return err
	}
	if err := f.end(); err != nil {
		return err
	}
	s.following(kind, s.r.opt.Clock.Boot()-f.started)
	return nil
}

// context is the end of a refresh: the cookie, and contextCSN as the provider has it.
func (f *refresh) context() *dirstore.Context {
	c := f.s.csns
	return &dirstore.Context{CSNs: c, Cookie: storedCookie(c, f.s.content), Refresh: dirstore.RefreshEnds}
}

// end stores it.
func (f *refresh) end() error {
	s := f.s
	end := f.context()
	if len(s.csns) == 0 {
		return &inconsistent{"the provider gave no CSN in its cookie"}
	}
	r, err := s.r.opt.Store.Read()
	if err != nil {
		return err
	}
	ordered := r.LogOrdered()
	r.Close()
	if !f.begun && ordered {
		end.Refresh = dirstore.NoStep
	}
	if err := s.submit(end, "", 64); err != nil {
		return err
	}
	return s.settled()
}

// removeUnseen removes what the provider did not name in a present phase, unless it did not even name
// the suffix entry: then its list is not to be trusted.
func (f *refresh) removeUnseen() error {
	s := f.s
	r, err := s.r.opt.Store.Read()
	if err != nil {
		return err
	}
	suffix, err := s.r.opt.Store.CheckDN([]byte(s.r.opt.Store.Suffix()))
	if err != nil {
		r.Close()
		return err
	}
	top, err := r.Resolve(suffix)
	r.Close()
	if err != nil {
		return fmt.Errorf("the provider sent no suffix entry: %w", err)
	}
	f.mu.Lock()
	none, trusted := len(f.seen) == 0, f.seen.has(top)
	f.mu.Unlock()
	switch {
	case trusted:
	case none && !s.whole:
		s.r.opt.Log.Info("the provider named no entry in its refresh: taken for no change", "event", "replica-guard")
		return nil
	default:
		return &inconsistent{"the provider's list of entries lacks the suffix entry: nothing is removed"}
	}
	gone, err := f.unseen(top)
	if err != nil {
		return err
	}
	slices.Reverse(gone) // superiors came first
	if len(gone) > 0 {
		s.r.opt.Log.Info("entries that the provider does not have are removed", "event", "replica-removal", "entries", len(gone))
	}
	return f.remove(gone)
}

// unseen lists the entries that were not named, superiors first.
func (f *refresh) unseen(top uint64) (gone [][16]byte, err error) {
	var w *dirstore.Walk
	for more := true; more; {
		r, err := f.s.r.opt.Store.Read()
		if err != nil {
			return nil, err
		}
		if w == nil {
			w = r.Walk(top)
		}
		for range 4096 {
			var e dirstore.Found
			if e, more, err = r.NextOf(w); err != nil || !more {
				break
			}
			f.mu.Lock()
			if !f.seen.has(e.ID) {
				gone = append(gone, r.UUID(&e))
			}
			f.mu.Unlock()
		}
		r.Close()
		if err != nil {
			return nil, err
		}
	}
	return gone, nil
}

// removeDeleted removes what a delete phase named.
func (f *refresh) removeDeleted() error {
	gone, err := f.victims(f.s.r.opt.Store)
	if err != nil {
		return err
	}
	return f.remove(gone)
}

// victims lists what a delete phase named and the store has, the deepest entries first.
func (f *refresh) victims(store *dirstore.Store) ([][16]byte, error) {
	return deepestFirst(store, maps.Keys(f.deleted))
}

// deepestFirst orders those that the store has.
func deepestFirst(store *dirstore.Store, ids iter.Seq[[16]byte]) ([][16]byte, error) {
	type victim struct {
		uuid  [16]byte
		depth int
	}
	r, err := store.Read()
	if err != nil {
		return nil, err
	}
	var list []victim
	for id := range ids {
		n := r.ByUUID(id)
		if n == 0 {
			continue
		}
		v := victim{uuid: id}
		for n != 0 {
			e, ok, err := r.Get(n)
			if err != nil || !ok {
				break // the removal will say what is wrong
			}
			v.depth++
			n = e.Parent()
		}
		list = append(list, v)
	}
	r.Close()
	slices.SortFunc(list, func(a, b victim) int { return cmp.Compare(b.depth, a.depth) })
	gone := make([][16]byte, len(list))
	for i, v := range list {
		gone[i] = v.uuid
	}
	return gone, nil
}

func (f *refresh) remove(gone [][16]byte) error {
	if len(gone) == 0 {
		return nil
	}
	if err := f.begin(); err != nil {
		return err
	}
	for _, id := range gone {
		if err := f.s.remove(id, nil); err != nil {
			return err
		}
	}
	return f.s.settled()
}

// marks is a set of entry ids, one bit each.
type marks map[uint64]*[64]uint64

func (m marks) set(id uint64) {
	b := m[id>>12]
	if b == nil {
		b = new([64]uint64)
		m[id>>12] = b
	}
	b[id>>6&63] |= 1 << (id & 63)
}

func (m marks) has(id uint64) bool {
	b := m[id>>12]
	return b != nil && b[id>>6&63]&(1<<(id&63)) != 0
}
