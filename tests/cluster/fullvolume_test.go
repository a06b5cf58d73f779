package cluster

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"
)

// On a file system without a free block or inode mail is refused, and what is there is read, flagged and expunged: each server
// keeps a reserve for that. When there is room again mail is taken and the reserve made whole.
func TestExpungeOnAFullVolume(t *testing.T) {
	s := own(t)
	_, carol, v := onTwoVolumes(t, s)
	const messages = 30
	for i := range messages {
		if n, err := v.use(t, carol, "fills"); err != nil || n != i+1 {
			t.Fatalf("%d messages: %v", n, err)
		}
	}
	inside := filepath.Join("/proc", fmt.Sprint(v.hold.Process.Pid), "root", v.mount)
	parts := func() int {
		found, err := filepath.Glob(filepath.Join(inside, "reserve", "box1", "*"))
		if err != nil {
			t.Fatal(err)
		}
		return len(found)
	}
	wait(t, 20*time.Second, func() bool { return parts() == 64 }, func() string { return fmt.Sprintf("the reserve has 64 files: %d", parts()) })
	ballast := filepath.Join(inside, "ballast")
	fillUp(t, ballast)
	wait(t, 20*time.Second, func() bool {
		_, err := v.use(t, carol, "too much")
		return err != nil && strings.Contains(err.Error(), "OVERQUOTA") || err != nil && strings.Contains(err.Error(), "UNAVAILABLE")
	}, func() string { return "a message for a full volume is refused" })
	fillUp(t, ballast) // what that may have left free

	c, err := v.login(t, carol)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	selected, err := c.Select("INBOX", nil).Wait()
	if err != nil {
		t.Fatal(err)
	}
	for i := range messages {
		one := imap.SeqSetNum(1)
		if err := c.Store(one, &imap.StoreFlags{Op: imap.StoreFlagsAdd, Flags: []imap.Flag{imap.FlagDeleted}}, nil).Close(); err != nil {
			t.Fatalf("STORE %d on a full volume: %v", i, err)
		}
		if err := c.Expunge().Close(); err != nil {
			t.Fatalf("EXPUNGE %d on a full volume: %v", i, err)
		}
	}
	if st, err := c.Select("INBOX", nil).Wait(); err != nil || st.NumMessages != selected.NumMessages-messages {
		t.Fatalf("%d messages are left: %v", st.NumMessages, err)
	}
	used := 64 - parts()
	t.Logf("%d flag changes and %d expunges on a full volume took %d files of the reserve", messages, messages, used)
	if used == 0 {
		t.Error("the volume was not full: nothing of the reserve was used")
	}
	if err := os.RemoveAll(ballast); err != nil {
		t.Fatal(err)
	}
	wait(t, 60*time.Second, func() bool { _, err = v.use(t, carol, "room again"); return err == nil }, func() string { return fmt.Sprintf("messages are taken again: %v", err) })
	wait(t, 20*time.Second, func() bool { return parts() == 64 }, func() string { return fmt.Sprintf("the reserve is whole again: %d", parts()) })
}

// fillUp uses up the blocks and then the inodes of the file system that dir is to lie on.
func fillUp(t *testing.T, dir string) {
	t.Helper()
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) && !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
	block := make([]byte, 1<<20)
	for size := len(block); size >= 4096; size /= 4 {
		f, err := os.CreateTemp(dir, "block")
		for err == nil {
			_, err = f.Write(block[:size])
			if err == nil && size == 4096 {
				err = f.Sync()
			}
		}
		if f != nil {
			f.Close()
		}
		if !errors.Is(err, syscall.ENOSPC) {
			t.Fatal(err)
		}
	}
	for i := 0; ; i++ {
		sub := filepath.Join(dir, fmt.Sprint(i))
		if err := os.Mkdir(sub, 0o700); err != nil {
			if errors.Is(err, syscall.ENOSPC) {
				return
			}
			if !errors.Is(err, os.ErrExist) {
				t.Fatal(err)
			}
			continue
		}
	}
}
