package imapsession

import (
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"shoal/daemons/internal/clock"
	"shoal/daemons/internal/mailstore"
	"shoal/daemons/internal/vfs"
)

// What happens through one box is told to a client of another that has used NOTIFY: in the selected mailbox, in others, and to
// the list of mailboxes.
func TestNotifyAcrossBoxes(t *testing.T) {
	c := newCluster(t, 2)
	change := c.boxes[1].connect("alice")
	change.ok("CREATE Work")
	watch := c.boxes[0].connect("alice")
	watch.ok("SELECT INBOX")
	watch.ok("NOTIFY SET (selected (MessageNew (UID) MessageExpunge FlagChange)) (personal (MessageNew MessageExpunge FlagChange MailboxName SubscriptionChange))")
	change.ok("APPEND INBOX {6+}\r\na: b\r\n")
	watch.expect("* 1 EXISTS")
	watch.expect("* 1 RECENT")
	watch.expect("* 1 FETCH (UID 1)")
	change.ok("APPEND Work {6+}\r\na: b\r\n")
	watch.expect("* STATUS Work (MESSAGES 1 UIDNEXT 2 ")
	change.ok("SELECT Work")
	change.ok(`STORE 1 +FLAGS.SILENT (\Seen)`)
	if line := watch.expect("* STATUS Work ("); !strings.Contains(line, "UNSEEN 0") {
		t.Error(line)
	}
	change.ok("CREATE Play")
	watch.expect(`* LIST (\HasNoChildren) "/" Play`)
	change.ok("APPEND Play {6+}\r\na: b\r\n") // a mailbox that is new is watched too
	watch.expect("* STATUS Play (MESSAGES 1 ")
	change.ok("RENAME Play Games")
	watch.expect(`* LIST (\HasNoChildren) "/" Games ("OLDNAME" (Play))`)
	change.ok("SUBSCRIBE Games")
	watch.expect(`* LIST (\HasNoChildren \Subscribed) "/" Games`)
	change.ok("DELETE Games")
	watch.expect(`* LIST (\NonExistent \HasNoChildren \Subscribed) "/" Games`)
	change.ok("SELECT INBOX")
	change.ok(`STORE 1 FLAGS (\Deleted)`)
	watch.expect(`* 1 FETCH (UID 1 FLAGS (\Deleted \Recent))`)
	change.ok("EXPUNGE")
	watch.expect("* 1 EXPUNGE")
	watch.ok("NOOP")
}

// A hint that is lost is made up by the store's slow re-check, for mailboxes and for their list.
func TestNotifyWithoutHints(t *testing.T) {
	dir, fs := t.TempDir(), vfs.OS()
	if err := mailstore.InitVolume(fs, dir, volumeID); err != nil {
		t.Fatal(err)
	}
	box := func(name string) *rig {
		store, err := mailstore.New(mailstore.Options{Server: name, FS: fs, Clock: clock.System(), Log: quiet(), HintAddress: name,
			Notify: func(string, mailstore.Ref) {}, ReCheck: 20 * time.Millisecond})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { store.Close() })
		if err := store.AddVolume("vol01", dir, volumeID); err != nil {
			t.Fatal(err)
		}
		return newRigOn(t, store, nil)
	}
	watch, change := box("box1").connect("alice"), box("box2").connect("alice")
	watch.ok("NOTIFY SET (personal (MessageNew MessageExpunge MailboxName))")
	change.ok("APPEND INBOX {6+}\r\na: b\r\n")
	watch.expect("* STATUS INBOX (MESSAGES 1 ")
	change.ok("CREATE New")
	watch.expect(`* LIST (\HasNoChildren) "/" New`)
	change.ok("APPEND New {6+}\r\na: b\r\n")
	watch.expect("* STATUS New (MESSAGES 1 ")
}

// More mailboxes than the setting allows are refused, and when there come to be more, notifications end.
func TestNotifyOverflow(t *testing.T) {
	r := newRig(t, func(o *Options) { o.Limits.NotifyMailboxes = 2 })
	watch, change := r.connect("alice"), r.connect("alice")
	change.ok("CREATE One")
	watch.ok("NOTIFY SET (personal (MessageNew MessageExpunge))")
	change.ok("CREATE Two")
	watch.expect("* OK [NOTIFICATIONOVERFLOW] ")
	change.ok("APPEND One {6+}\r\na: b\r\n")
	for _, groups := range []string{"(personal (MessageNew MessageExpunge))", "(mailboxes (One Two INBOX) (MessageNew MessageExpunge))"} {
		if lines, tagged := watch.do("NOTIFY SET " + groups); len(lines) > 0 || !strings.HasPrefix(tagged, "NO [NOTIFICATIONOVERFLOW] ") {
			t.Errorf("%s: %q, %s", groups, lines, tagged)
		}
	}
	watch.ok("NOTIFY SET (mailboxes (One INBOX) (MessageNew MessageExpunge)) (personal (MailboxName))")
	change.ok("APPEND One {6+}\r\na: b\r\n")
	watch.expect("* STATUS One (MESSAGES 2 ")
}

// What NOTIFY watches is given up with the next NOTIFY and with the connection: no entry stays on the volume, neither of the
// mailboxes nor of the account.
func TestNotifyInterestEnds(t *testing.T) {
	dir, fs := t.TempDir(), vfs.OS()
	if err := mailstore.InitVolume(fs, dir, volumeID); err != nil {
		t.Fatal(err)
	}
	store, err := mailstore.New(mailstore.Options{Server: "box1", FS: fs, Clock: clock.System(), Log: slog.New(slog.NewTextHandler(io.Discard, nil)), HintAddress: "box1",
		Notify: func(string, mailstore.Ref) {}})
	if err != nil {
		t.Fatal(err)
	}
	if err := store.AddVolume("vol01", dir, volumeID); err != nil {
		t.Fatal(err)
	}
	entries := func() (names []string) {
		for _, pattern := range []string{"a/*/*/w/*", "a/*/*/b/*/w/*"} {
			found, err := filepath.Glob(filepath.Join(dir, pattern))
			if err != nil {
				t.Fatal(err)
			}
			names = append(names, found...)
		}
		return slices.DeleteFunc(names, func(n string) bool { _, err := os.Lstat(n); return err != nil })
	}
	r := newRigOn(t, store, nil)
	c := r.connect("alice")
	c.ok("CREATE One")
	c.ok("NOTIFY SET (personal (MessageNew MessageExpunge))")
	if n := len(entries()); n != 3 {
		t.Errorf("%d entries for the account and two mailboxes: %q", n, entries())
	}
	c.ok("NOTIFY SET (mailboxes One (MessageNew MessageExpunge))")
	c.ok("NOTIFY NONE")
	c.ok("NOTIFY SET (personal (MessageNew MessageExpunge))")
	c.ok("LOGOUT")
	c.closed()
	r.srv.Close()
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	if left := entries(); len(left) > 0 {
		t.Errorf("entries are left: %q", left)
	}
}
