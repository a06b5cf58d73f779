package ldapsession

import (
	"bytes"
	"context"
	"encoding/binary"
	"slices"
	"time"

	"shoal/daemons/internal/dirstore"
	"shoal/daemons/internal/ldapwire"
)

// Sorted searches (RFC 2891), whole, in pages (RFC 2696) and as a window of a list (virtual list view).
// Every request finds all entries anew and sorts their positions (dirstore.Order): nothing is kept
// between requests, so a list is always that of the moment, on any connection and any shadow. What one
// search holds is bounded by Limits.Sorted, and how many sort at once by maxSorts.

// maxSorts is how many sorted searches of all connections are under way at once; others wait.
const maxSorts = 4

// maxCookie bounds the position in a cookie of a page.
const maxCookie = 4096

// place is an entry in the order of a sorted search.
type place struct {
	position []byte
	id       uint64
}

func comparePlaces(a, b place) int {
	if c := bytes.Compare(a.position, b.position); c != 0 {
		return c
	}
	switch {
	case a.id < b.id:
		return -1
	case a.id > b.id:
		return 1
	}
	return 0
}

// sorting is a sorted search under way.
type sorting struct {
	*searching
	order  *dirstore.Order
	after  *place             // of a paged search: the last entry of the page before
	view   *ldapwire.ListView // nil: no window
	target []byte             // position that the window is around, if it is asked for by a value
	max    int
	places []place
}

// sortControls checks the controls of a sorted search. It returns nil and has answered if there is
// nothing to do.
func (x *session) sortControls(w *work, s *searching) *sorting {
	c := &w.ctl
	refuse := func(code ldapwire.Code, text string, controls []byte) *sorting {
		x.s.metrics.count(w.msg.Op, code)
		w.out = ldapwire.AppendResponseControls(w.out, w.msg.ID, ldapwire.OpSearchResultDone, &ldapwire.Result{Code: code, Message: text}, controls)
		return nil
	}
	if c.viewed && !c.sorted {
		return refuse(ldapwire.SortControlMissing, "a list view needs the sort control", ldapwire.AppendListView(nil, 0, 0, ldapwire.SortControlMissing))
	}
	if c.viewed && c.paged {
		return refuse(ldapwire.UnwillingToPerform, "pages of a list view", nil)
	}
	order, which, err := x.s.opt.Store.Order(c.sort)
	if err != nil {
		r := result(err)
		done := ldapwire.AppendSortResult(nil, r.Code, which)
		if c.mustSort || c.viewed { // RFC 2891 §2: no entries
			return refuse(ldapwire.UnavailableCriticalExtension, r.Message, done)
		}
		s.controls = done // the result comes without an order, and says so
		return nil
	}
	g := &sorting{searching: s, order: order, max: x.s.limits.Load().Sorted}
	s.controls = ldapwire.AppendSortResult(nil, ldapwire.Success, nil)
	if c.viewed {
		v := c.view
		v.Value = bytes.Clone(v.Value)
		g.view = &v
		if v.ByValue {
			if g.target, err = order.Target(v.Value); err != nil {
				r := result(err)
				return refuse(r.Code, r.Message, ldapwire.AppendListView(nil, 0, 0, r.Code))
			}
		} else if v.Offset == 0 {
			return refuse(ldapwire.OffsetRangeError, "the offset counts from 1", ldapwire.AppendListView(s.controls, 0, 0, ldapwire.OffsetRangeError))
		}
	}
	return g
}

// searchSorted carries a sorted search on beside the reading goroutine.
func (x *session) searchSorted(w *work, g *sorting) error {
	op, err := x.begin(w, false, false)
	if err != nil {
		return err
	}
	plan := w.plan
	g.plan = &plan
	w.plan, w.filter = dirstore.Search{}, nil // the search keeps them
	go func() {
		defer x.finish(g.id, op)
		select {
		case x.s.sorts <- struct{}{}:
			defer func() { <-x.s.sorts }()
		case <-op.ctx.Done():
			return
		}
		if err := x.collect(g, op); err == nil {
			err = x.sendSorted(g, op)
			x.sortFailed(g, op, err)
		} else {
			x.sortFailed(g, op, err)
		}
	}()
	return nil
}

func (x *session) sortFailed(g *sorting, op *operation, err error) {
	if err == nil || op.abandoned.Load() {
		return
	}
	r := result(err)
	if r.Code == ldapwire.Unavailable {
		x.log.Error("sorted ldap search failed", "error", err)
	}
	x.s.metrics.count(ldapwire.OpSearchRequest, r.Code)
	controls := ldapwire.AppendSortResult(nil, r.Code, nil)
	if g.view != nil {
		controls = ldapwire.AppendListView(controls, 0, 0, r.Code)
	}
	op.answered.Store(true)
	_ = x.out.send(ldapwire.AppendResponseControls(nil, g.id, ldapwire.OpSearchResultDone, r, controls)) // who has gone needs no answer
}

// collect finds all entries and puts them in order.
func (x *session) collect(g *sorting, op *operation) error {
	for more := true; more; {
		if op.ctx.Err() != nil {
			return context.Canceled
		}
		if g.deadline > 0 && time.Duration(x.s.now.Load()) > g.deadline {
			return &ldapwire.Error{Code: ldapwire.TimeLimitExceeded}
		}
		r, err := x.s.opt.Store.Read()
		if err != nil {
			return err
		}
		more, err = g.some(r)
		r.Close()
		if err != nil {
			return err
		}
	}
	slices.SortFunc(g.places, comparePlaces)
	return nil
}

// some collects a chunk; more is false at the end.
func (g *sorting) some(r *dirstore.Reader) (more bool, err error) {
	start := g.plan.Examined
	for g.plan.Examined-start < chunkEntries {
		f, ok, more, err := r.Next(g.plan, chunkEntries)
		switch {
		case err != nil || !ok && !more:
			return false, err
		case !ok:
			return true, nil
		}
		if len(g.places) == g.max {
			return false, ldapwire.Errorf(ldapwire.AdminLimitExceeded, "more than %d entries to sort", g.max)
		}
		g.places = append(g.places, place{g.order.Position(nil, r, &f), f.ID})
	}
	return true, nil
}

// sendSorted sends what of the list was asked for.
func (x *session) sendSorted(g *sorting, op *operation) error {
	list, how := g.places, ended
	switch {
	case g.view != nil:
		var controls []byte
		list, controls = g.window()
		g.controls = append(g.controls, controls...)
	case g.after != nil:
		i, _ := slices.BinarySearchFunc(list, *g.after, comparePlaces)
		for i < len(list) && comparePlaces(list[i], *g.after) <= 0 {
			i++
		}
		list = list[i:]
	}
	if len(list) > g.limit {
		list, how = list[:g.limit], limited
	}
	out := append(make([]byte, 0, chunkOctets+4<<10), g.head...)
	for len(list) > 0 {
		if op.ctx.Err() != nil {
			return context.Canceled
		}
		r, err := x.s.opt.Store.Read()
		if err != nil {
			return err
		}
		for len(list) > 0 && len(out) < chunkOctets {
			p := list[0]
			list = list[1:]
			f, ok, err := r.Get(p.id)
			if err == nil && ok && r.See(&f, g.plan.Seeing()) { // one that went meanwhile is left out
				out, err = r.AppendEntry(out, g.id, &f, g.sel, g.searching.view, nil)
				g.sent++
			}
			if err != nil {
				r.Close()
				return err
			}
			g.last, g.lastPlace = p.id, p.position
		}
		r.Close()
		if len(list) > 0 {
			if err := x.out.send(out); err != nil {
				return context.Canceled
			}
			out = out[:0]
		}
	}
	if op.abandoned.Load() {
		return nil
	}
	out = x.searchDone(out, g.searching, how)
	op.answered.Store(true)
	_ = x.out.send(out) // who has gone needs no answer
	return nil
}

// window cuts the part of the list that a view shows (draft-ietf-ldapext-ldapv3-vlv-09 §6.2).
func (g *sorting) window() ([]place, []byte) {
	v, n := g.view, len(g.places)
	at := 0 // of the target, counted from 0; n is behind the last
	switch {
	case v.ByValue:
		at, _ = slices.BinarySearchFunc(g.places, g.target, func(p place, t []byte) int { return bytes.Compare(p.position, t) })
	case v.Count == 0 || int(v.Count) == n:
		at = int(v.Offset) - 1
	case v.Offset >= v.Count:
		at = n - 1
	case v.Offset > 1: // in the same proportion
		at = int(int64(v.Offset) * int64(n) / int64(v.Count))
		at = max(at-1, 0)
	}
	at = max(0, min(at, n))
	from := max(0, at-int(v.Before))
	to := n
	if rest := n - at; int64(v.After)+1 < int64(rest) {
		to = at + int(v.After) + 1
	}
	return g.places[from:to], ldapwire.AppendListView(nil, int32(min(at+1, 1<<31-1)), int32(n), ldapwire.Success)
}

// cookie names the last entry of a page of a sorted search by its position, so that the next page goes
// on behind it whatever was added or removed.
func (s *searching) cookie() []byte {
	c := binary.BigEndian.AppendUint64(nil, s.last)
	c = binary.BigEndian.AppendUint64(c, s.key)
	return append(c, s.lastPlace...)
}
