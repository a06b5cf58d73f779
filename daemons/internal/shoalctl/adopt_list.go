package shoalctl

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"shoal/daemons/internal/maildir"
	"shoal/daemons/internal/mailstore"
)

// list brings subscriptions and special uses to where they are in the tree.
func (r *adoption) list(ctx context.Context, folders []maildir.Folder) error {
	subs, err := r.tree.Subscriptions()
	if err != nil {
		return err
	}
	want := map[string]bool{mailstore.Inbox: true}
	for _, s := range subs {
		want[r.name(s)] = true
	}
	have, err := r.account.Subscriptions(ctx)
	if err != nil {
		return err
	}
	for _, s := range have {
		if !want[s] {
			err = errors.Join(err, r.account.Subscribe(ctx, s, false))
		}
		delete(want, s)
	}
	for s := range want {
		if e := r.account.Subscribe(ctx, s, true); e != nil {
			r.v.Notes = append(r.v.Notes, fmt.Sprintf("subscription %q: %v", s, e))
		}
	}
	if err != nil {
		return err
	}
	boxes, err := r.account.Mailboxes(ctx)
	if err != nil {
		return err
	}
	for _, f := range folders {
		for _, b := range boxes {
			uses := slices.Sorted(slices.Values(r.uses[f.Name]))
			if b.Name != r.name(f.Name) || slices.Equal(uses, slices.Sorted(slices.Values(b.SpecialUse))) {
				continue
			}
			if err := r.account.SetSpecialUse(ctx, b.Name, uses); err != nil {
				return err
			}
		}
	}
	return nil
}

// deleted removes mailboxes whose folders are gone: they had mail that was adopted.
func (r *adoption) deleted(ctx context.Context, folders []maildir.Folder) error {
	boxes, err := r.account.Mailboxes(ctx)
	if err != nil {
		return err
	}
	for _, b := range boxes {
		if slices.ContainsFunc(folders, func(f maildir.Folder) bool { return r.name(f.Name) == b.Name }) {
			continue
		}
		box, err := r.account.Open(ctx, b.Name)
		if err != nil {
			return err
		}
		st, err := box.State(ctx)
		if err != nil {
			return err
		}
		if st.UIDNext() == 1 || slices.ContainsFunc(slices.Collect(all(st)), func(m mailstore.Message) bool { return m.Server() != adoptServer }) {
			continue
		}
		if err := r.account.Delete(ctx, b.Name); err != nil {
			return err
		}
		r.v.Deleted = append(r.v.Deleted, b.Name)
	}
	return nil
}

func all(st *mailstore.State) func(func(mailstore.Message) bool) {
	return func(yield func(mailstore.Message) bool) {
		for _, m := range st.All() {
			if !yield(m) {
				return
			}
		}
	}
}
