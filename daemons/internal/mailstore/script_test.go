package mailstore

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"shoal/daemons/internal/clock"
	"shoal/daemons/internal/vfs"
)

func scriptAccount(t testing.TB, fs vfs.FS, server string) *Account {
	t.Helper()
	a, err := testStore(t, fs, "/", server).Account(context.Background(), "vol01", "account-1")
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// scripts describes the scripts of an account with their texts.
func scripts(t testing.TB, a *Account) string {
	t.Helper()
	list, err := a.Scripts(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, i := range list {
		text, _, err := a.Script(t.Context(), i.Name)
		if err != nil {
			t.Fatalf("%s: %v", i.Name, err)
		}
		s := fmt.Sprintf("%s=%s", i.Name, text)
		if int64(len(text)) != i.Size {
			t.Errorf("%s: size %d of %d", i.Name, i.Size, len(text))
		}
		if i.Active {
			s += "*"
		}
		out = append(out, s)
	}
	return strings.Join(out, " ")
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// What one server stores, replaces, activates, renames and deletes the other one sees.
func TestScripts(t *testing.T) {
	ctx := t.Context()
	mem := vfs.NewMem(time.Now)
	one, two := scriptAccount(t, mem, "box1"), scriptAccount(t, mem, "box2")
	want := func(w string) {
		t.Helper()
		if a, b := scripts(t, one), scripts(t, two); a != w || b != w {
			t.Fatalf("box1: %s\nbox2: %s\nwant: %s", a, b, w)
		}
	}
	want("")
	check(t, one.PutScript(ctx, "main", []byte("keep;")))
	check(t, two.PutScript(ctx, "Ünterwegs 2", []byte("stop;")))
	want("main=keep; Ünterwegs 2=stop;")
	if _, ok, err := one.ActiveScript(ctx, 0); ok || err != nil {
		t.Errorf("%v %v", ok, err)
	}
	check(t, two.ActivateScript(ctx, "main"))
	check(t, one.PutScript(ctx, "main", []byte("discard;")))
	want("main=discard;* Ünterwegs 2=stop;")
	i, ok, err := two.ActiveScript(ctx, 0)
	if !ok || err != nil || i.Name != "main" || i.Size != 8 {
		t.Errorf("%+v %v %v", i, ok, err)
	}
	if err := one.DeleteScript(ctx, "main"); !errors.Is(err, ErrScriptActive) {
		t.Error(err)
	}
	if err := one.RenameScript(ctx, "main", "Ünterwegs 2"); !errors.Is(err, ErrScriptExists) {
		t.Error(err)
	}
	check(t, one.RenameScript(ctx, "main", "away"))
	want("away=discard;* Ünterwegs 2=stop;")
	check(t, two.DeleteScript(ctx, "Ünterwegs 2"))
	check(t, two.ActivateScript(ctx, ""))
	want("away=discard;")
	for _, err := range []error{one.DeleteScript(ctx, "x"), one.ActivateScript(ctx, "x"), one.RenameScript(ctx, "x", "y")} {
		if !errors.Is(err, ErrNoScript) {
			t.Error(err)
		}
	}
	for _, name := range []string{"", "a/b", "a\nb", "\xff", strings.Repeat("x", MaxScriptName+1)} {
		if err := one.PutScript(ctx, name, nil); err == nil {
			t.Errorf("%q is a name", name)
		}
	}
	// Scripts live on in snapshots, and nothing but the one text is left of all that.
	check(t, one.j.checkpoint(ctx, true))
	files, err := mem.ReadDir(one.dir+"/"+dirScripts, nil)
	check(t, err)
	if len(files) != 1 {
		t.Errorf("%v", files)
	}
	if got := scripts(t, scriptAccount(t, mem, "box3")); got != "away=discard;" {
		t.Error(got)
	}
	if n := two.j.current.Load(); n == 0 {
		t.Error("the time of the last look is not kept")
	}
}

// A script that is not what was stored is not run.
func TestScriptIsChecked(t *testing.T) {
	ctx := t.Context()
	mem := vfs.NewMem(time.Now)
	a := scriptAccount(t, mem, "box1")
	check(t, a.PutScript(ctx, "main", []byte("keep;")))
	_, i, err := a.Script(ctx, "main")
	check(t, err)
	path := a.dir + "/" + dirScripts + "/" + i.File
	check(t, writeFile(mem, path, []byte("kepp;")))
	if _, _, err := a.Script(ctx, "main"); !errors.Is(err, ErrCorrupt) {
		t.Error(err)
	}
	check(t, mem.Unlink(path))
	if _, _, err := a.Script(ctx, "main"); !errors.Is(err, ErrCorrupt) {
		t.Error(err)
	}
}

// Whatever file operation fails while a script is replaced: afterwards it is the old one or the new one, and the new one
// if it was said to be stored.
func TestScriptFaults(t *testing.T) {
	for _, action := range []vfs.Action{{Err: syscall.EIO}, {Err: syscall.ENOSPC}, {Err: errors.New("lost"), Lost: true}, {Crash: true}} {
		for i := 0; ; i++ {
			mem := vfs.NewMem(time.Now)
			fault := vfs.NewFault(mem)
			a := scriptAccount(t, fault, "box1")
			check(t, a.PutScript(t.Context(), "main", []byte("old")))
			hit := false
			fault.Reset()
			fault.Hook(func(c vfs.Call) vfs.Action {
				if c.I == i {
					hit = true
					return action
				}
				return vfs.Action{}
			})
			err := a.PutScript(t.Context(), "main", []byte("new"))
			fault.Hook(nil)
			after := mem
			if fault.Crashed() {
				after = mem.Crash(nil)
			}
			got := scripts(t, scriptAccount(t, after, "box2"))
			if got != "main=new" && (err == nil || got != "main=old") {
				t.Errorf("%+v at %d: %v, then %s", action, i, err, got)
			}
			if !hit {
				break
			}
		}
	}
}

// Of all servers one is the first to mark a key; when its time is over there is a next first.
func TestSeen(t *testing.T) {
	ctx := t.Context()
	clk := clock.NewFake(time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC))
	mem := vfs.NewMem(clk.Now)
	account := func(server string) *Account {
		s := testStore(t, mem, "/", server, func(o *Options) { o.Clock = clk })
		a, err := s.Account(ctx, "vol01", "account-1")
		check(t, err)
		return a
	}
	boxes := []*Account{account("box1"), account("box2"), account("box3")}
	const key, other = "0123456789abcdef", "0123456789abcde0"
	for range 3 {
		firsts := make(chan bool)
		for _, a := range boxes {
			go func() {
				first, err := a.MarkSeen(ctx, key, time.Hour)
				if err != nil {
					t.Error(err)
				}
				firsts <- first
			}()
		}
		n := 0
		for range boxes {
			if <-firsts {
				n++
			}
		}
		if n != 1 {
			t.Errorf("%d were the first", n)
		}
		for _, a := range boxes {
			if seen, err := a.Seen(ctx, key); !seen || err != nil {
				t.Errorf("%v %v", seen, err)
			}
			if seen, err := a.Seen(ctx, other); seen || err != nil {
				t.Errorf("%v %v", seen, err)
			}
		}
		clk.Advance(time.Hour)
		if seen, err := boxes[0].Seen(ctx, key); seen || err != nil {
			t.Errorf("after its time: %v %v", seen, err)
		}
	}
	if _, err := boxes[0].MarkSeen(ctx, "../../etc", time.Hour); err == nil {
		t.Error("a path is a key")
	}
	clk.Advance(seenKept + time.Second)
	check(t, boxes[0].dropSeen(ctx))
	names, err := mem.ReadDir(boxes[0].dir+"/seen/01", nil)
	if err != nil || len(names) != 0 {
		t.Errorf("%v %v", names, err)
	}
}

// The background work removes texts that belong to no script, but no new ones.
func TestScriptsAreCollected(t *testing.T) {
	ctx := t.Context()
	shift := time.Duration(0)
	mem := vfs.NewMem(func() time.Time { return time.Now().Add(shift) })
	a := scriptAccount(t, mem, "box1")
	check(t, a.PutScript(ctx, "main", []byte("keep;")))
	id := msgID{nonce: a.s.nextNonce(), size: 1}
	check(t, writeFile(mem, a.dir+"/"+dirScripts+"/"+id.String(), []byte("x")))
	for _, c := range []struct {
		after time.Duration
		want  int
	}{{time.Hour, 2}, {25 * time.Hour, 1}} {
		shift = c.after
		st, err := a.fresh(ctx)
		check(t, err)
		check(t, a.collectScripts(ctx, st, time.Now().Add(shift)))
		names, err := mem.ReadDir(a.dir+"/"+dirScripts, nil)
		check(t, err)
		if len(names) != c.want {
			t.Errorf("after %v: %v", c.after, names)
		}
	}
	if got := scripts(t, a); got != "main=keep;" {
		t.Error(got)
	}
}
