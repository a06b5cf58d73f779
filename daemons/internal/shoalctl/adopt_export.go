package shoalctl

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/user"
	"strconv"
	"strings"
	"time"

	"shoal/daemons/internal/maildir"
	"shoal/daemons/internal/mailstore"
)

// exportVolume writes an account's mail as a tree for Dovecot, from the volume: the same files under second names, the same UIDs.
func (t *tool) exportVolume(ctx context.Context, address, target string, f *exportFlags) (err error) {
	chown, err := ownerOf(f.owner)
	if err != nil {
		return err
	}
	store, id, err := t.openVolume(ctx, address, f.volume, f.accountID)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	a, err := store.Account(ctx, adoptVolume, id)
	if err != nil {
		return err
	}
	began := time.Now()
	boxes, err := a.Mailboxes(ctx)
	if err != nil {
		return err
	}
	states := make([]*mailstore.State, len(boxes))
	open := make([]*mailstore.Mailbox, len(boxes))
	var total int64
	for i, b := range boxes {
		if open[i], err = a.Open(ctx, b.Name); err != nil {
			return err
		}
		if states[i], err = open[i].State(ctx); err != nil {
			return err
		}
		total += states[i].Bytes()
	}
	v := &exportView{Account: address, Target: target, Mailboxes: []exportMailbox{}}
	bar := t.newProgress("export", total)
	w, err := maildir.Create(target, chown)
	if err == nil {
		for i, b := range boxes {
			if err = ctx.Err(); err == nil {
				err = exportFolder(v, w, b, open[i], states[i], bar)
			}
			if err != nil {
				break
			}
		}
		var subs []string
		if err == nil {
			subs, err = a.Subscriptions(ctx)
		}
		for _, s := range subs {
			w.Subscribe(s)
		}
		if err == nil {
			err = w.Close()
		}
		if err != nil {
			err = errors.Join(err, w.Abort())
		}
	}
	bar.finish()
	if err != nil {
		return err
	}
	if w.Copied > 0 {
		v.Notes = append(v.Notes, fmt.Sprintf("%d messages were copied: %s is on another file system, or they have too many names", w.Copied, target))
	}
	v.Seconds = time.Since(began).Seconds()
	return t.show(v, func() { t.printExport(v) })
}

func exportFolder(v *exportView, w *maildir.Writer, b mailstore.MailboxInfo, box *mailstore.Mailbox, st *mailstore.State, bar *progress) error {
	lost, err := w.Folder(b.Name, st.UIDValidity(), st.UIDNext(), func(yield func(maildir.Outgoing) bool) {
		for _, m := range st.All() {
			uidl := m.UIDL()
			if uidl == "" && b.Name == mailstore.Inbox {
				uidl = fmt.Sprintf("%d.%d", st.UIDValidity(), m.UID) // what POP3 clients of this service know it by
			}
			var letters []byte
			for _, l := range flagLetters {
				if m.Flags&l.flag != 0 {
					letters = append(letters, l.letter)
				}
			}
			if !yield(maildir.Outgoing{Path: box.FilePath(m), UID: m.UID, Letters: string(letters), Keywords: m.Keywords, Date: m.InternalDate(),
				File: m.FileSize(), Size: m.Size, UIDL: uidl}) {
				return
			}
			v.Messages++
			v.Bytes += m.Size
			bar.set(v.Bytes, v.Messages)
		}
	})
	if err != nil {
		return fmt.Errorf("mailbox %s: %w", b.Name, err)
	}
	if len(lost) > 0 {
		v.Notes = append(v.Notes, fmt.Sprintf("mailbox %q has more keywords than the 26 of a Maildir folder; left out: %s", b.Name, strings.Join(lost, " ")))
	}
	v.Mailboxes = append(v.Mailboxes, exportMailbox{Name: b.Name, Path: v.Target, Messages: int64(st.Len())})
	return nil
}

// ownerOf reads USER[:GROUP]; nil for an empty text: owners stay as they are.
func ownerOf(text string) (func(path string) error, error) {
	if text == "" {
		return nil, nil
	}
	name, group, _ := strings.Cut(text, ":")
	number := func(s string, look func(string) (string, error)) (int, error) {
		if n, err := strconv.Atoi(s); err == nil && n >= 0 {
			return n, nil
		}
		id, err := look(s)
		if err != nil {
			return 0, usageError{fmt.Errorf("--owner %q: %w", text, err)}
		}
		return strconv.Atoi(id)
	}
	gid := -1
	uid, err := number(name, func(s string) (string, error) {
		u, err := user.Lookup(s)
		if err != nil {
			return "", err
		}
		gid, _ = strconv.Atoi(u.Gid)
		return u.Uid, nil
	})
	if err == nil && group != "" {
		gid, err = number(group, func(s string) (string, error) {
			g, err := user.LookupGroup(s)
			if err != nil {
				return "", err
			}
			return g.Gid, nil
		})
	}
	if err != nil {
		return nil, err
	}
	return func(path string) error { return os.Lchown(path, uid, gid) }, nil
}
