package imapsession

import (
	"context"
	"strings"

	"shoal/daemons/internal/imapwire"
	"shoal/daemons/internal/sharing"
)

// Filters (RFC 5466) are search keys that are stored as annotations of the server, and named by the search key FILTER.
const (
	privateFilters = "/private/filters/values/"
	sharedFilters  = "/shared/filters/values/"
)

// filterPasses is how deep filters may name filters; the standard asks for 3.
const filterPasses = 5

// expandFilters puts what is stored into the place of the filters that a search names.
func (s *session) expandFilters(ctx context.Context, args *imapwire.Search) error {
	x := filterExpansion{s: s, ctx: ctx, args: args, left: s.srv.limits().trusted.SearchKeys}
	return x.expand(&args.Key, 0)
}

type filterExpansion struct {
	s     *session
	ctx   context.Context
	args  *imapwire.Search
	notes *serverNotes // nil until a filter is named
	left  int          // search keys that may still come
}

func (x *filterExpansion) expand(key *imapwire.SearchKey, depth int) error {
	for i := range key.Kids {
		if err := x.expand(&key.Kids[i], depth); err != nil {
			return err
		}
	}
	if key.Op != imapwire.SearchFilter {
		return nil
	}
	undefined := no("UNDEFINED-FILTER "+key.Str, "There is no such filter, or it is not correct")
	if depth == filterPasses {
		return undefined
	}
	if x.notes == nil {
		own, err := x.s.acc.Listing(x.ctx)
		if err != nil {
			return err
		}
		x.notes = x.s.serverNotes(own)
	}
	name := strings.ToLower(key.Str)
	note, ok := x.notes.Get(privateFilters + name)
	if !ok {
		if note, ok = x.notes.Get(sharedFilters + name); !ok {
			return undefined
		}
	}
	stored, keys, err := imapwire.ParseCriteria(note.Value, x.s.srv.limits().trusted)
	if err != nil {
		return undefined
	}
	if x.left -= keys; x.left < 0 {
		return no("LIMIT", "The filters have too many search keys")
	}
	x.args.ModSeq = x.args.ModSeq || stored.ModSeq
	*key = stored.Key
	return x.expand(key, depth+1)
}

// checkFilter refuses to store what are no search keys.
func (s *session) checkFilter(a *sharing.Annotation) error {
	if a.Unset || !strings.HasPrefix(a.Entry, privateFilters) && !strings.HasPrefix(a.Entry, sharedFilters) {
		return nil
	}
	if _, _, err := imapwire.ParseCriteria(a.Value, s.srv.limits().trusted); err != nil {
		return no("CANNOT", "A filter is made of search keys: "+err.Error())
	}
	return nil
}
