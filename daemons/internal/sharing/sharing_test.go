package sharing

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"shoal/daemons/internal/clock"
	"shoal/daemons/internal/dirclient"
	"shoal/daemons/internal/mailstore"
	"shoal/daemons/internal/vfs"
)

// directory knows alice, bob, carol and dave of example.test, and eve of other.test; bob and carol are in team. dave lies on vol02.
type directory struct {
	gone, suspended map[string]bool
	team            []string
	down            bool
}

func person(name string) *dirclient.Account {
	a := &dirclient.Account{Address: name + "@example.test", Domain: "example.test", ID: "account-" + name, Volume: "vol01", Status: dirclient.StatusActive}
	switch name {
	case "eve":
		a.Address, a.Domain = "eve@other.test", "other.test"
	case "dave":
		a.Volume = "vol02"
	}
	return a
}

func (d *directory) Account(ctx context.Context, address string) (*dirclient.Account, error) {
	name, _, _ := strings.Cut(address, "@")
	a, err := d.AccountByID(ctx, "account-"+name)
	if err == nil && a.Address != address {
		return nil, fmt.Errorf("%s: %w", address, dirclient.ErrNoSuchAccount)
	}
	return a, err
}

func (d *directory) AccountByID(_ context.Context, id string) (*dirclient.Account, error) {
	name, _ := strings.CutPrefix(id, "account-")
	switch {
	case d.down:
		return nil, dirclient.ErrUnavailable
	case d.gone[name] || !slices.Contains([]string{"alice", "bob", "carol", "dave", "eve"}, name):
		return nil, fmt.Errorf("%s: %w", id, dirclient.ErrNoSuchAccount)
	}
	a := person(name)
	if d.suspended[name] {
		a.Status = dirclient.StatusSuspended
	}
	return a, nil
}

func (d *directory) Groups(_ context.Context, a *dirclient.Account) ([]string, error) {
	if d.down {
		return nil, dirclient.ErrUnavailable
	}
	name, _ := strings.CutPrefix(a.ID, "account-")
	if slices.Contains(d.team, name) {
		return []string{"team"}, nil
	}
	return nil, nil
}

func (d *directory) HasGroup(_ context.Context, domain, name string) (bool, error) {
	return domain == "example.test" && strings.EqualFold(name, "team"), nil
}

type rig struct {
	t     *testing.T
	store *mailstore.Store
	dir   *directory
	clock *clock.Fake
	s     *Service
}

func newRig(t *testing.T) *rig {
	t.Helper()
	mem := vfs.NewMem(time.Now)
	store, err := mailstore.New(mailstore.Options{Server: "box1", FS: mem, Clock: clock.System(), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	for _, v := range []string{"vol01", "vol02"} {
		id := "0d6f3c6e-6d2c-4c0c-9b0e-2f4f6b1f9a" + v[3:]
		if err := errors.Join(mem.Mkdir("/"+v), mailstore.InitVolume(mem, "/"+v, id), store.AddVolume(v, "/"+v, id)); err != nil {
			t.Fatal(err)
		}
	}
	r := &rig{t: t, store: store, dir: &directory{gone: map[string]bool{}, suspended: map[string]bool{}, team: []string{"bob", "carol"}}, clock: clock.NewFake(time.Unix(1800000000, 0))}
	r.s = New(Options{Store: store, Directory: r.dir, Clock: r.clock, Log: slog.New(slog.DiscardHandler)})
	return r
}

func (r *rig) ok(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) account(name string) *mailstore.Account {
	r.t.Helper()
	p := person(name)
	a, err := r.store.Account(r.t.Context(), p.Volume, p.ID)
	r.ok(err)
	return a
}

// grant changes the list of the INBOX of owner.
func (r *rig) grant(owner, whom, rights string) {
	r.t.Helper()
	acc := r.account(owner)
	l, err := acc.Listing(r.t.Context())
	r.ok(err)
	box, _ := l.Mailbox("INBOX")
	how := Replace
	if rights != "" && (rights[0] == '+' || rights[0] == '-') {
		how, rights = Change(rights[0]), rights[1:]
	}
	set, err := ParseRights(rights)
	r.ok(err)
	id, negative, err := r.s.Identify(r.t.Context(), whom, person(owner).Domain, true)
	r.ok(err)
	r.ok(r.s.Set(r.t.Context(), person(owner), acc, box.ID, Entry{id, negative, set}, how, 10))
}

// sees lists who shares with a user: addresses with the rights to INBOX.
func (r *rig) sees(name string) string {
	r.t.Helper()
	w, err := r.s.Who(r.t.Context(), person(name))
	r.ok(err)
	list, err := r.s.With(r.t.Context(), w, r.account(name))
	r.ok(err)
	var out []string
	for _, sh := range list {
		box, _ := sh.Listing.Mailbox("INBOX")
		local, _, _ := strings.Cut(sh.Owner.Address, "@")
		out = append(out, local+"="+RightsOf(sh.Listing, box.ID, sh.Owner, w).String())
	}
	return strings.Join(out, " ")
}

func (r *rig) want(name, want string) {
	r.t.Helper()
	if got := r.sees(name); got != want {
		r.t.Errorf("%s sees %q, want %q", name, got, want)
	}
}

// notes are the keys of all notes about shared mailboxes in an account.
func (r *rig) notes(volume, id string) int {
	a, err := r.store.ExistingAccount(r.t.Context(), volume, id)
	if errors.Is(err, mailstore.ErrNoAccount) {
		return 0
	}
	r.ok(err)
	l, err := a.Listing(r.t.Context())
	r.ok(err)
	return len(l.Attrs("", notePrefix))
}

func TestRights(t *testing.T) {
	for in, want := range map[string]string{"": "", "lr": "lr", "rl": "lr", "c": "kxc", "d": "ted", "k": "kc", "x": "xc", "e": "ed", "lrswipkxteacd": "lrswipkxteacd"} {
		r, err := ParseRights(in)
		if err != nil || r.String() != want {
			t.Errorf("%q: %q %v", in, r, err)
		}
		if again := storedRights(r.stored()); again != r {
			t.Errorf("%q is kept as %q", in, r.stored())
		}
	}
	for _, in := range []string{"L", "q", "0", "l r", "ä", "n", "\x00"} {
		if _, err := ParseRights(in); !errors.As(err, new(*RightError)) {
			t.Errorf("%q: %v", in, err)
		}
	}
}

// Users are found by what they were granted as themselves, as members of a group, and as anyone of the domain, on any volume; a denial outweighs
// what is granted by any name.
func TestSharing(t *testing.T) {
	r := newRig(t)
	r.want("bob", "")
	r.grant("alice", "bob@example.test", "lrs")
	r.grant("dave", "$team", "lr")
	r.want("bob", "alice=lrs dave=lr")
	r.want("carol", "dave=lr")
	r.want("alice", "")
	r.grant("dave", "anyone", "p")
	r.want("carol", "dave=lrp")
	r.want("alice", "dave=p")
	r.grant("dave", "-carol", "rp")
	r.want("carol", "dave=l")
	r.grant("dave", "-carol", "+l")
	r.want("carol", "")
	r.want("eve", "")
	r.grant("alice", "eve@other.test", "lr")
	r.want("eve", "alice=lr")
	r.dir.team = nil
	r.want("bob", "alice=lrs dave=p")
	r.grant("alice", "bob", "-lrs")
	r.want("bob", "dave=p")
	r.grant("alice", "bob", "l")
	r.dir.suspended["alice"] = true
	r.want("bob", "dave=p")
	r.dir.suspended["alice"] = false
	r.want("bob", "alice=l dave=p")
	// who has the address now is nobody whom rights were given
	r.dir.gone["alice"] = true
	r.want("bob", "dave=p")
}

// A note without rights behind it shows nothing, goes when it is a day old, and not sooner; one that others need stays.
func TestNotesHeal(t *testing.T) {
	r := newRig(t)
	ctx := t.Context()
	index := DomainIndex("example.test")
	r.grant("alice", "bob", "lr")
	r.grant("alice", "anyone", "l")
	r.grant("alice", "bob", "")
	r.grant("alice", "anyone", "")
	r.want("bob", "")
	if r.notes("vol01", "account-bob") != 1 || r.notes("vol01", index) != 1 {
		t.Error("a young note is gone")
	}
	r.clock.Advance(noteLife + time.Minute)
	r.want("bob", "")
	if r.notes("vol01", "account-bob") != 0 || r.notes("vol01", index) != 0 {
		t.Error("an old note is there")
	}
	// a server that stopped between note and grant has left a note too many
	r.ok(r.s.leaveNote(ctx, person("alice"), UserIdentifier("account-bob"), true))
	r.want("bob", "")
	r.grant("alice", "bob", "lr")
	r.clock.Advance(noteLife + time.Minute)
	r.want("bob", "alice=lr")
	if r.notes("vol01", "account-bob") != 1 {
		t.Error("a note with rights behind it is gone")
	}
	// bob is denied what anyone has: the note is for the others
	r.grant("alice", "bob", "")
	r.grant("alice", "anyone", "lr")
	r.grant("alice", "-bob", "lr")
	r.clock.Advance(noteLife + time.Minute)
	r.want("bob", "")
	r.want("carol", "alice=lr")
	// an account that is no more
	r.dir.gone["alice"] = true
	r.clock.Advance(noteLife + time.Minute)
	r.want("carol", "")
	if n := r.notes("vol01", index); n != 0 {
		t.Errorf("%d notes about an account that is gone", n)
	}
	r.dir.gone["alice"] = false
	// a note that was removed while rights were being granted comes back
	note := note{owner: "account-alice", id: Anyone, in: mustIndex(r, index), key: notePrefix + "anyone:account-alice"}
	w, err := r.s.Who(ctx, person("carol"))
	r.ok(err)
	r.s.dropNote(ctx, note, w)
	r.want("carol", "alice=lr")
	// nothing is removed while the directory does not say what is there
	r.dir.down = true
	if sh := r.s.look(ctx, "account-alice", w); sh != nil {
		t.Errorf("%+v", sh)
	}
}

func mustIndex(r *rig, id string) *mailstore.Account {
	a, err := r.store.Account(r.t.Context(), "vol01", id)
	r.ok(err)
	return a
}

// The notes of an account that has come to another volume are made there.
func TestRenew(t *testing.T) {
	r := newRig(t)
	ctx := t.Context()
	r.grant("alice", "anyone", "lr")
	r.grant("alice", "bob", "lr")
	r.grant("alice", "$team", "lr")
	r.grant("alice", "-$team", "w")
	moved := person("alice")
	moved.Volume = "vol02"
	index := DomainIndex("example.test")
	if n := r.notes("vol02", index); n != 0 {
		t.Error(n)
	}
	r.dir.gone["bob"] = true
	r.ok(r.s.Renew(ctx, moved, r.account("alice")))
	r.ok(r.s.Renew(ctx, moved, r.account("alice")))
	if n := r.notes("vol02", index); n != 2 {
		t.Error(n)
	}
}

// A domain's account of notes is made when it is needed, not by looking.
func TestNoIndexWithoutNeed(t *testing.T) {
	r := newRig(t)
	r.grant("alice", "bob", "lr")
	r.want("bob", "alice=lr")
	for _, v := range []string{"vol01", "vol02"} {
		if _, err := r.store.ExistingAccount(t.Context(), v, DomainIndex("example.test")); !errors.Is(err, mailstore.ErrNoAccount) {
			t.Errorf("%s: %v", v, err)
		}
	}
}

func TestIdentify(t *testing.T) {
	r := newRig(t)
	ctx := t.Context()
	for text, want := range map[string]string{
		"alice": "user:account-alice", "alice@example.test": "user:account-alice", "-bob": "-user:account-bob", "anyone": "anyone", "-ANYONE": "-anyone",
		"$Team": "group:team", "group:team": "group:team", "eve@other.test": "user:account-eve", "user:account-alice": "user:account-alice",
	} {
		id, negative, err := r.s.Identify(ctx, text, "example.test", true)
		got := string(id)
		if negative {
			got = "-" + got
		}
		if err != nil || got != want {
			t.Errorf("%q: %q %v", text, got, err)
		}
	}
	for text, want := range map[string]error{
		"": ErrIdentifier, "-": ErrIdentifier, "$": ErrIdentifier, "group:": ErrIdentifier, "user:../../x": ErrIdentifier, "a\x00b": ErrIdentifier, "\u06dd": ErrIdentifier,
		"nobody": ErrUnknown, "alice@other.test": ErrUnknown, "$nothing": ErrUnknown, "user:account-none": ErrUnknown,
	} {
		if _, _, err := r.s.Identify(ctx, text, "example.test", true); !errors.Is(err, want) {
			t.Errorf("%q: %v", text, err)
		}
	}
	if id := r.s.Show(ctx, "user:account-alice"); id != "alice@example.test" {
		t.Error(id)
	}
	r.dir.gone["alice"] = true
	if id := r.s.Show(ctx, "user:account-alice"); id != "user:account-alice" {
		t.Error(id)
	}
	if id, _, err := r.s.Identify(ctx, "user:account-alice", "example.test", false); err != nil || id != "user:account-alice" {
		t.Error(id, err) // so that the entry can be removed
	}
	r.dir.down = true
	if _, _, err := r.s.Identify(ctx, "bob", "example.test", true); !errors.Is(err, dirclient.ErrUnavailable) || errors.Is(err, ErrUnknown) {
		t.Error(err)
	}
}

// Rights of a later version stay; the list has a bound; who denies needs no note.
func TestSet(t *testing.T) {
	r := newRig(t)
	ctx := t.Context()
	acc := r.account("alice")
	l, err := acc.Listing(ctx)
	r.ok(err)
	box, _ := l.Mailbox("INBOX")
	r.ok(acc.SetAttrs(ctx, mailstore.Attr{Mailbox: box.ID, Key: "acl:user:account-bob", Value: "lnr"}))
	r.grant("alice", "bob", "s")
	value := func(key string) string {
		l, err := acc.Listing(ctx)
		r.ok(err)
		return l.Attr(box.ID, key)
	}
	if got := value("acl:user:account-bob"); got != "ns" {
		t.Error(got)
	}
	r.want("bob", "alice=s") // and mean nothing here
	r.grant("alice", "-anyone", "a")
	if n := r.notes("vol01", DomainIndex("example.test")); n != 0 {
		t.Error(n)
	}
	for i := range 9 {
		err = r.s.Set(ctx, person("alice"), acc, box.ID, Entry{Identifier(fmt.Sprintf("group:g%d", i)), false, Read}, Replace, 10)
		if i < 8 {
			r.ok(err)
		}
	}
	if !errors.Is(err, ErrTooMany) {
		t.Error(err)
	}
	r.grant("alice", "bob", "lr") // is there already
	r.ok(Forget(ctx, acc, box.ID, "group:g1", false))
	r.ok(r.s.Set(ctx, person("alice"), acc, box.ID, Entry{"group:g9", false, Read}, Replace, 10))
	if err := r.s.Set(ctx, person("alice"), acc, "box1.x.1", Entry{Anyone, false, Read}, Replace, 10); !errors.Is(err, mailstore.ErrNoMailbox) {
		t.Error(err)
	}
	now, err := acc.Listing(ctx)
	r.ok(err)
	if list := List(now, box.ID); len(list) != 10 || list[0].Identifier != Anyone || !list[0].Negative {
		t.Error(list)
	}
	if AnyoneMay(now, box.ID, Post) || !Denied(now, box.ID, Administer) || Denied(now, box.ID, Post) {
		t.Error("rights of anyone")
	}
}

func TestEntryNames(t *testing.T) {
	for name, ok := range map[string]bool{"/shared/comment": true, "/Private/Comment": true, "/private": false, "/shared/vendor/x": false, "/shared/vendor/x/y": true,
		"shared/comment": false, "/other/x": false, "/shared/": false, "/shared//x": false, "/shared/x*": false, "/shared/%": false, "/shared/ä": false, "": false,
		"/private/" + strings.Repeat("x", 1000): false} {
		got, err := EntryName(name, true)
		if ok != (err == nil) || ok && got != strings.ToLower(name) {
			t.Errorf("%.40q: %q %v", name, got, err)
		}
	}
	if _, err := EntryName("/private", false); err != nil {
		t.Error(err)
	}
}

// Annotations of all kinds are bounded in number and size, and a change of several is made whole or not at all.
func TestNoteBounds(t *testing.T) {
	r := newRig(t)
	ctx := t.Context()
	alice, bob := r.account("alice"), r.account("bob")
	lim := NoteLimits{PerMailbox: 3, Total: 1000}
	notes := func() *Notes {
		own, err := bob.Listing(ctx)
		r.ok(err)
		theirs, err := alice.Listing(ctx)
		r.ok(err)
		box, _ := theirs.Mailbox("INBOX")
		return NotesOf(theirs, box.ID, own, true)
	}
	set := func(a ...Annotation) error { return notes().SetNotes(ctx, bob, alice, lim, a) }
	r.ok(set(Annotation{Entry: "/shared/a", Value: "1"}, Annotation{Entry: "/private/a", Value: "\xff\x00"}, Annotation{Entry: "/shared/b", Value: "2"}))
	if a, ok := notes().Get("/private/a"); !ok || a.Value != "\xff\x00" {
		t.Errorf("%q %v", a.Value, ok)
	}
	if err := set(Annotation{Entry: "/private/b", Value: "new"}, Annotation{Entry: "/shared/c", Value: "3"}, Annotation{Entry: "/shared/d", Value: "4"}); !errors.Is(err, ErrTooMany) {
		t.Error(err)
	}
	if _, ok := notes().Get("/private/b"); ok {
		t.Error("half of a change was made")
	}
	if err := set(Annotation{Entry: "/private/b", Value: strings.Repeat("x", 1000)}); !errors.Is(err, ErrTooMany) {
		t.Error(err)
	}
	r.ok(set(Annotation{Entry: "/shared/a", Unset: true}, Annotation{Entry: "/shared/c", Value: "3"}, Annotation{Entry: "/shared/d", Value: "4"}))
	if got := len(notes().All()); got != 4 {
		t.Error(notes().All())
	}
	l, err := bob.Listing(ctx)
	r.ok(err)
	if n := len(l.Attrs("", notesPrefix)); n != 1 {
		t.Errorf("bob keeps %d annotations", n)
	}
}

func FuzzIdentifiersAndRights(f *testing.F) {
	for _, s := range []string{"lrswipkxteacd", "-bob@example.test", "$team", "group:x", "user:account-1", "anyone", "/private/vendor/x/y", "\u00ad", "=3D"} {
		f.Add(s)
	}
	d := &directory{}
	s := New(Options{Directory: d})
	f.Fuzz(func(t *testing.T, text string) {
		if r, err := ParseRights(text); err == nil && storedRights(r.stored()) != r {
			t.Errorf("%q", text)
		}
		if id, _, err := s.Identify(context.Background(), text, "example.test", false); err == nil {
			if again, _, err := s.Identify(context.Background(), string(id), "example.test", false); err != nil || again != id {
				t.Errorf("%q is %q, which is %q: %v", text, id, again, err)
			}
		}
		if name, err := EntryName(text, true); err == nil {
			if again, err := EntryName(name, true); err != nil || again != name {
				t.Errorf("%q: %q %q %v", text, name, again, err)
			}
		}
		a := Annotation{Value: text}
		if noteValue(storedNote(&a)) != text {
			t.Errorf("%q is kept as %q", text, storedNote(&a))
		}
	})
}
