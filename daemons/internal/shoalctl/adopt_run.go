package shoalctl

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"shoal/daemons/internal/maildir"
	"shoal/daemons/internal/mailstore"
)

// adoptBatch is how many messages are adopted in one commit.
const adoptBatch = 1000

// adoptBase is added to the mod-sequences of what is adopted: more than any other server has counted to, so that clients that
// ask for what has changed (RFC 7162) are told of everything once.
const adoptBase = 1 << 40

// adoption is one run for one account.
type adoption struct {
	t       *tool
	f       *adoptFlags
	v       *adoptView
	tree    *maildir.Tree
	uidl    string
	uses    map[string][]string
	store   *mailstore.Store
	account *mailstore.Account
	bar     *progress
	read    int64 // bytes
}

func (t *tool) runAdopt(ctx context.Context, address, root string, f *adoptFlags) (err error) {
	began := time.Now()
	r := &adoption{t: t, f: f, v: &adoptView{Account: address, Maildir: root, Final: f.final, Dry: f.dry, Folders: []adoptFolder{}}}
	defer func() {
		if errors.Is(err, fs.ErrPermission) {
			err = errors.Join(err, needRoot(root))
		}
	}()
	if err := r.open(root); err != nil {
		return err
	}
	store, id, err := t.openVolume(ctx, address, f.volume, f.accountID)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	r.store = store
	folders := r.tree.Folders()
	boxes := make([]*maildir.Mailbox, len(folders))
	var total int64
	for i := range folders {
		if boxes[i], err = r.look(&folders[i]); err != nil {
			return err
		}
		for _, m := range boxes[i].Messages {
			total += m.Size
		}
	}
	r.bar = t.newProgress("adopt", total)
	stop := r.bar.finish
	defer func() { stop() }()
	if f.dry {
		err = r.rehearse(ctx, folders, boxes)
	} else {
		err = r.adopt(ctx, id, folders, boxes)
	}
	stop()
	stop = func() {}
	if err != nil {
		return fmt.Errorf("after %d messages: %w (the same command goes on from here)", r.v.Added, err)
	}
	r.v.Seconds = time.Since(began).Seconds()
	return t.show(r.v, func() { t.printAdopt(r.v) })
}

// open reads the tree and the settings.
func (r *adoption) open(root string) (err error) {
	switch s := maildir.Server(r.f.server); s {
	case "", maildir.Dovecot, maildir.Courier, maildir.None:
	default:
		return usageError{fmt.Errorf("--server %q: it is dovecot, courier or none", s)}
	}
	if r.tree, err = maildir.Open(root, maildir.Options{Control: r.f.control, Server: maildir.Server(r.f.server)}); err != nil {
		return err
	}
	r.v.Server = r.tree.Server
	var settings *maildir.Settings
	if r.f.doveconf != "" {
		i, err := os.Stat(r.f.doveconf)
		if err == nil && i.Size() > 16<<20 {
			err = fmt.Errorf("%s: larger than any configuration", r.f.doveconf)
		}
		var text []byte
		if err == nil {
			text, err = os.ReadFile(r.f.doveconf)
		}
		if err == nil {
			if settings, err = maildir.ParseSettings(text); err != nil {
				err = fmt.Errorf("%s: %w", r.f.doveconf, err)
			}
		}
		if err != nil {
			return err
		}
	}
	if r.uidl = r.f.uidl; r.uidl == "" && settings != nil {
		r.uidl = settings.UIDLFormat
	}
	if r.uidl == "" {
		r.uidl = maildir.DefaultUIDL
	}
	if _, err := maildir.FormatUIDL(r.uidl, 1, &maildir.Message{UID: 1, Base: "x"}); err != nil {
		return usageError{err}
	}
	r.uses = maildir.SpecialUses(r.tree.Folders(), settings)
	for _, u := range r.f.uses {
		folder, use, ok := strings.Cut(u, "=")
		if !ok || folder == "" || use == "" {
			return usageError{fmt.Errorf("--special-use %q: want FOLDER=USE", u)}
		}
		use = strings.TrimPrefix(use, `\`)
		for name, have := range r.uses {
			r.uses[name] = slices.DeleteFunc(have, func(s string) bool { return strings.EqualFold(s, use) })
		}
		r.uses[folder] = append(r.uses[folder], use)
	}
	return nil
}

// look lists a folder. While the other server works a file may be renamed during a listing and be missed, so what is
// missing is looked for a second time.
func (r *adoption) look(f *maildir.Folder) (*maildir.Mailbox, error) {
	m, err := f.Read()
	if err != nil || r.f.final || len(m.Gone) == 0 {
		return m, err
	}
	again, err := f.Read()
	if err != nil {
		return nil, err
	}
	have := map[string]bool{}
	for _, msg := range again.Messages {
		have[msg.Base] = true
	}
	for _, msg := range m.Messages {
		if !have[msg.Base] {
			again.Messages = append(again.Messages, msg)
		}
	}
	sortMessages(again.Messages)
	return again, nil
}

// sortMessages puts those with UIDs first, in order.
func sortMessages(m []maildir.Message) {
	slices.SortStableFunc(m, func(a, b maildir.Message) int {
		switch {
		case a.UID == b.UID:
			return 0
		case a.UID == 0:
			return 1
		case b.UID == 0 || a.UID < b.UID:
			return -1
		}
		return 1
	})
}

// name is what a folder is called here.
func (r *adoption) name(folder string) string {
	if folder == mailstore.Inbox || r.f.prefix == "" {
		return folder
	}
	return strings.Trim(r.f.prefix, "/") + "/" + folder
}

// rehearse reads everything and changes nothing.
func (r *adoption) rehearse(ctx context.Context, folders []maildir.Folder, boxes []*maildir.Mailbox) error {
	for i, b := range boxes {
		v := adoptFolder{Name: r.name(folders[i].Name), Messages: len(b.Messages), UIDValidity: b.UIDValidity}
		for batch := range slices.Chunk(b.Messages, adoptBatch) {
			found, err := measureAll(ctx, r.store, batch)
			if err != nil {
				return fmt.Errorf("folder %s: %w", folders[i].Name, err)
			}
			r.count(found, &v)
			release(found)
		}
		r.v.Folders = append(r.v.Folders, v)
	}
	return nil
}

func (r *adoption) count(found []mailstore.AdoptMessage, v *adoptFolder) {
	for i := range found {
		r.v.Added++
		v.Added++
		r.v.Bytes += found[i].Content.Size
		if found[i].Copied != nil {
			r.v.Unpacked++
		}
	}
	r.bar.set(r.read+r.v.Bytes, r.v.Added)
}

func (r *adoption) adopt(ctx context.Context, id string, folders []maildir.Folder, boxes []*maildir.Mailbox) (err error) {
	r.account, err = r.store.AdoptAccount(ctx, adoptVolume, id, mailstore.InboxOptions{UIDValidity: boxes[0].UIDValidity, ModSeqBase: adoptBase})
	if err != nil {
		return err
	}
	if err := mayAdopt(ctx, r.account, r.v.Account); err != nil {
		return err
	}
	for i := range folders {
		f := &folders[i]
		if err := r.folder(ctx, f, boxes[i]); err != nil {
			return fmt.Errorf("folder %s: %w", f.Name, err)
		}
	}
	if err := r.list(ctx, folders); err != nil {
		return err
	}
	if r.f.final {
		if err := r.deleted(ctx, folders); err != nil {
			return err
		}
	}
	if os.Geteuid() == 0 {
		_, err = ownTree(r.f.volume, r.account.Dir(), false)
	}
	return err
}

// mailbox opens the mailbox of a folder, or makes it. nil: it is left to the final run.
func (r *adoption) mailbox(ctx context.Context, f *maildir.Folder, m *maildir.Mailbox) (*mailstore.Mailbox, error) {
	name := r.name(f.Name)
	box, err := r.account.Open(ctx, name)
	if err == nil {
		st, err := box.State(ctx)
		if err != nil {
			return nil, err
		}
		for _, msg := range st.All() {
			if msg.Server() != adoptServer {
				return nil, fmt.Errorf("UID %d came another way than by adoption: the account is in use already", msg.UID)
			}
		}
		if m.UIDValidity == 0 || st.UIDValidity() == m.UIDValidity {
			return box, nil
		}
		if name == mailstore.Inbox {
			return nil, fmt.Errorf("UIDVALIDITY was %d and is %d: the old server has given up its UIDs; adopt into a new account", st.UIDValidity(), m.UIDValidity)
		}
		if err := r.account.Delete(ctx, name); err != nil {
			return nil, err
		}
	} else if !errors.Is(err, mailstore.ErrNoMailbox) {
		return nil, err
	}
	if m.UIDValidity == 0 && !r.f.final {
		return nil, nil
	}
	if _, err := r.account.Create(ctx, name, mailstore.CreateOptions{UIDValidity: m.UIDValidity, ModSeqBase: adoptBase, SpecialUse: r.uses[f.Name]}); err != nil {
		return nil, err
	}
	return r.account.Open(ctx, name)
}

// folder brings a mailbox to where its folder is.
func (r *adoption) folder(ctx context.Context, f *maildir.Folder, m *maildir.Mailbox) error {
	box, err := r.mailbox(ctx, f, m)
	if err != nil {
		return err
	}
	v := adoptFolder{Name: r.name(f.Name), Messages: len(m.Messages), UIDValidity: m.UIDValidity}
	if box == nil {
		r.v.Waiting += int64(len(m.Messages))
		r.v.Folders = append(r.v.Folders, v)
		return nil
	}
	st, err := box.State(ctx)
	if err != nil {
		return err
	}
	v.UIDValidity = st.UIDValidity()
	var fresh, late []maildir.Message // to be added; without a UID that can be given
	var known []pair
	listed := map[uint32]bool{}
	for _, msg := range m.Messages {
		have, ok := st.ByUID(msg.UID)
		switch {
		case msg.UID == 0:
			late = append(late, msg)
			continue
		case ok:
			known = append(known, pair{have, msg})
			r.read += msg.Size
		case msg.UID >= st.UIDNext():
			fresh = append(fresh, msg)
		default: // passed over by an earlier run that did not see it
			late = append(late, msg)
		}
		listed[msg.UID] = true
	}
	extra := map[mailstore.ContentID][]mailstore.Message{} // ours, which the list does not know
	var gone mailstore.UIDSet
	for _, msg := range st.All() {
		if !listed[msg.UID] {
			extra[msg.Content()] = append(extra[msg.Content()], msg)
			gone.Add(msg.UID)
		}
	}
	if err := r.add(ctx, box, st.UIDValidity(), f, fresh, &v); err != nil {
		return err
	}
	if err := r.late(ctx, box, f, m, late, extra, &gone, &known, &v); err != nil {
		return err
	}
	if len(gone) > 0 {
		x, err := box.Expunge(ctx, gone, false)
		if err != nil {
			return err
		}
		r.v.Expunged += int64(x.UIDs.Len())
	}
	if err := r.flags(ctx, box, known); err != nil {
		return err
	}
	if r.f.final {
		if err := box.SkipUIDs(ctx, m.UIDNext); err != nil {
			return err
		}
	}
	r.v.Folders = append(r.v.Folders, v)
	return nil
}

// pair is a message that both have.
type pair struct {
	have mailstore.Message
	msg  maildir.Message
}

// add adopts messages with their UIDs.
func (r *adoption) add(ctx context.Context, box *mailstore.Mailbox, validity uint32, f *maildir.Folder, fresh []maildir.Message, v *adoptFolder) error {
	for batch := range slices.Chunk(fresh, adoptBatch) {
		found, err := measureAll(ctx, r.store, batch)
		if err != nil {
			return err
		}
		if len(found) < len(batch) {
			if found, err = r.moved(ctx, f, batch, found); err != nil {
				return err
			}
		}
		if len(found) == 0 {
			continue
		}
		if err := r.place(ctx, box, validity, batch, found, v); err != nil {
			return err
		}
	}
	return nil
}

// moved looks for files whose names have changed since they were listed.
func (r *adoption) moved(ctx context.Context, f *maildir.Folder, batch []maildir.Message, found []mailstore.AdoptMessage) ([]mailstore.AdoptMessage, error) {
	m, err := r.look(f)
	if err != nil {
		return nil, err
	}
	have, wanted := map[uint32]bool{}, map[uint32]bool{}
	for i := range found {
		have[found[i].UID] = true
	}
	for _, msg := range batch {
		wanted[msg.UID] = !have[msg.UID]
	}
	var again []maildir.Message
	for _, msg := range m.Messages {
		if msg.UID != 0 && wanted[msg.UID] {
			again = append(again, msg)
		}
	}
	more, err := measureAll(ctx, r.store, again)
	if err != nil {
		return nil, err
	}
	found = append(found, more...)
	slices.SortFunc(found, func(a, b mailstore.AdoptMessage) int { return int(int64(a.UID) - int64(b.UID)) })
	return found, nil
}

// place commits messages, with their POP3 unique-ids in the INBOX.
func (r *adoption) place(ctx context.Context, box *mailstore.Mailbox, validity uint32, listed []maildir.Message, found []mailstore.AdoptMessage, v *adoptFolder) error {
	defer release(found)
	if v.Name == mailstore.Inbox {
		of := map[uint32]*maildir.Message{}
		for i := range listed {
			of[listed[i].UID] = &listed[i]
		}
		for i := range found {
			msg := of[found[i].UID]
			if msg == nil {
				continue
			}
			if found[i].UIDL = msg.UIDL; msg.UIDL == "" && r.tree.Server == maildir.Dovecot {
				id, err := maildir.FormatUIDL(r.uidl, validity, msg)
				if err != nil {
					return err
				}
				found[i].UIDL = id
			}
		}
	}
	_, err := box.Adopt(ctx, found)
	if err == nil {
		r.count(found, v)
	}
	return err
}

// late takes what has no UID that could be given: mail that the old server's clients have not seen yet. The final run gives it
// UIDs from the old server's next one on. What a final run took before is known by its content.
func (r *adoption) late(ctx context.Context, box *mailstore.Mailbox, f *maildir.Folder, m *maildir.Mailbox, late []maildir.Message,
	extra map[mailstore.ContentID][]mailstore.Message, gone *mailstore.UIDSet, known *[]pair, v *adoptFolder) error {
	if len(late) == 0 || !r.f.final && len(extra) == 0 {
		r.v.Waiting += int64(len(late))
		return nil
	}
	for batch := range slices.Chunk(late, adoptBatch) {
		for i := range batch {
			batch[i].UID = uint32(i + 1) // to tell them apart; they get their own below
		}
		found, err := measureAll(ctx, r.store, batch)
		if err != nil {
			return err
		}
		var rest []mailstore.AdoptMessage
		for _, a := range found {
			id := a.Content.ContentID
			if same := extra[id]; len(same) > 0 {
				extra[id] = same[1:]
				*known = append(*known, pair{same[0], batch[a.UID-1]})
				keep := same[0].UID
				var left mailstore.UIDSet
				for _, x := range *gone {
					for u := x.Start; ; u++ {
						if u != keep {
							left.Add(u)
						}
						if u == x.Stop {
							break
						}
					}
				}
				*gone = left
				release([]mailstore.AdoptMessage{a})
				continue
			}
			rest = append(rest, a)
		}
		if !r.f.final {
			r.v.Waiting += int64(len(rest))
			release(rest)
			continue
		}
		if len(rest) == 0 {
			continue
		}
		if err := box.SkipUIDs(ctx, m.UIDNext); err != nil {
			return err
		}
		st, err := box.State(ctx)
		if err != nil {
			return err
		}
		listed := make([]maildir.Message, len(rest))
		for i := range rest {
			listed[i] = batch[rest[i].UID-1]
			rest[i].UID = st.UIDNext() + uint32(i)
			listed[i].UID = rest[i].UID
		}
		if err := r.place(ctx, box, st.UIDValidity(), listed, rest, v); err != nil {
			return err
		}
	}
	return nil
}

// flags makes flags and keywords the same, those with equal ones together.
func (r *adoption) flags(ctx context.Context, box *mailstore.Mailbox, known []pair) error {
	groups := map[string]*mailstore.FlagChange{}
	for _, p := range known {
		keywords := slices.Compact(slices.Sorted(slices.Values(p.msg.Keywords)))
		flags := adoptedFlags(p.msg.Letters)
		if flags == p.have.Flags && slices.Equal(keywords, p.have.Keywords) {
			continue
		}
		key := fmt.Sprint(flags, keywords)
		if groups[key] == nil {
			groups[key] = &mailstore.FlagChange{Op: mailstore.FlagsReplace, Flags: flags, Keywords: keywords}
		}
		groups[key].UIDs = append(groups[key].UIDs, mailstore.UIDRange{Start: p.have.UID, Stop: p.have.UID})
		r.v.Changed++
	}
	for _, c := range groups {
		if _, err := box.ChangeFlags(ctx, *c); err != nil {
			return err
		}
	}
	return nil
}
