package storagecheck

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"syscall"
	"time"

	"shoal/daemons/internal/vfs"
)

// longestRecord is the length of a symlink's target that the store relies on.
const longestRecord = 1000

// writeFile makes a file, as the store makes message files: without O_EXCL, synced.
func (c *check) writeFile(path string, b []byte) error {
	f, err := c.FS.Create(path)
	if err != nil {
		return fmt.Errorf("create %s: %w", path, err)
	}
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	if e := f.Close(); err == nil {
		err = e
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

func (c *check) readFile(path string, limit int) ([]byte, error) {
	f, err := c.FS.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	defer f.Close()
	b := make([]byte, limit)
	n, err := f.ReadAt(b, 0)
	if err != nil && err != io.EOF {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	return b[:n], nil
}

// checkOperations tries what the store uses, by this host alone.
func (c *check) checkOperations(context.Context) error {
	for _, t := range []struct {
		name  string
		run   func() (string, error)
		means string
	}{
		{"symlinks", c.trySymlinks, "a commit is a symlink that can be made once: two servers would take the same place in a mailbox"},
		{"hard links", c.tryLinks, "copies, and messages to several recipients, are hard links"},
		{"rename", c.tryRename, "mailboxes are put into place, and deleted ones moved away, by rename"},
		{"files", c.tryFiles, "messages are files with names of their own"},
		{"names", c.tryNames, "names of messages and records would collide"},
	} {
		wrong, err := t.run()
		var no syscall.Errno
		switch {
		case errors.As(err, &no) && (no == syscall.EPERM || no == syscall.ENOTSUP || no == syscall.ENOSYS || no == syscall.ENAMETOOLONG || no == syscall.EINVAL || no == syscall.ESTALE || no == syscall.EMLINK):
			wrong = err.Error()
		case err != nil:
			return err
		}
		if wrong != "" {
			c.fail(t.name, wrong, t.means, "use a file system with POSIX semantics: ext4 or XFS, or NFS 4.2 exported from one of these")
			continue
		}
		c.pass(t.name, map[string]string{
			"symlinks": fmt.Sprintf("made once only, targets of %d bytes kept", longestRecord), "hard links": "made, counted, and made once only",
			"rename": "replaces in one step", "files": "made without O_EXCL, synced, read back", "names": "upper and lower case differ, 120 bytes fit",
		}[t.name])
	}
	return nil
}

func (c *check) trySymlinks() (string, error) {
	path := c.unique()
	target := strings.Repeat("0123456789", longestRecord/10)
	if err := c.FS.Symlink(target, path); err != nil {
		return "", fmt.Errorf("symlink with a target of %d bytes: %w", longestRecord, err)
	}
	var buf [longestRecord + 24]byte
	n, err := c.FS.Readlink(path, buf[:])
	if err != nil {
		return "", fmt.Errorf("readlink %s: %w", path, err)
	}
	if string(buf[:n]) != target {
		return fmt.Sprintf("a target of %d bytes came back as %d bytes", longestRecord, n), nil
	}
	if err := c.FS.Symlink("other", path); !errors.Is(err, syscall.EEXIST) {
		return fmt.Sprintf("a symlink over one that is there: %v, not %v", err, syscall.EEXIST), nil
	}
	if n, err = c.FS.Readlink(path, buf[:]); err != nil || string(buf[:n]) != target {
		return "a refused symlink has changed the one that was there", nil
	}
	// several threads, one name
	for range 20 {
		path := c.unique()
		results := make(chan error, 4)
		for i := range cap(results) {
			go func() { results <- c.FS.Symlink(fmt.Sprint(i), path) }()
		}
		won := 0
		for range cap(results) {
			switch err := <-results; {
			case err == nil:
				won++
			case !errors.Is(err, syscall.EEXIST):
				return "", fmt.Errorf("symlink %s: %w", path, err)
			}
		}
		if won != 1 {
			return fmt.Sprintf("of 4 threads that made the same symlink %d were told that they had", won), nil
		}
	}
	return "", nil
}

func (c *check) tryLinks() (string, error) {
	path := c.unique()
	if err := c.writeFile(path, []byte("linked")); err != nil {
		return "", err
	}
	if err := c.FS.Link(path, path+"b"); err != nil {
		return "", fmt.Errorf("link: %w", err)
	}
	if i, err := c.FS.Lstat(path + "b"); err != nil || i.Nlink != 2 {
		return fmt.Sprintf("a file with two names has a count of %d (%v)", i.Nlink, err), nil
	}
	if err := c.FS.Link(path, path+"b"); !errors.Is(err, syscall.EEXIST) {
		return fmt.Sprintf("a link over a name that is there: %v, not %v", err, syscall.EEXIST), nil
	}
	if err := c.FS.Unlink(path); err != nil {
		return "", fmt.Errorf("unlink: %w", err)
	}
	if b, err := c.readFile(path+"b", 16); err != nil || string(b) != "linked" {
		return fmt.Sprintf("the second name does not show the file after the first is gone (%v)", err), nil
	}
	return "", nil
}

func (c *check) tryRename() (string, error) {
	a, b := c.unique(), c.unique()
	if err := errors.Join(c.writeFile(a, []byte("new")), c.writeFile(b, []byte("old"))); err != nil {
		return "", err
	}
	if err := c.FS.Rename(a, b); err != nil {
		return "", fmt.Errorf("rename: %w", err)
	}
	if got, err := c.readFile(b, 16); err != nil || string(got) != "new" {
		return fmt.Sprintf("a renamed file shows %q (%v)", got, err), nil
	}
	if _, err := c.FS.Lstat(a); !errors.Is(err, syscall.ENOENT) {
		return fmt.Sprintf("the old name of a renamed file: %v, not %v", err, syscall.ENOENT), nil
	}
	d := c.unique()
	if err := errors.Join(c.FS.Mkdir(d), c.FS.Mkdir(d+"/in"), c.FS.Rename(d, d+"moved")); err != nil {
		return "", fmt.Errorf("directories: %w", err)
	}
	if err := c.FS.Rmdir(d + "moved"); !errors.Is(err, syscall.ENOTEMPTY) && !errors.Is(err, syscall.EEXIST) {
		return fmt.Sprintf("rmdir of a directory that is not empty: %v", err), nil
	}
	return "", nil
}

func (c *check) tryFiles() (string, error) {
	path := c.unique()
	want := bytes.Repeat([]byte("mail"), 25_000)
	for range 2 { // the second time after a lost reply: not an error
		if err := c.writeFile(path, want); err != nil {
			return "", err
		}
	}
	got, err := c.readFile(path, len(want)+1)
	if err != nil {
		return "", err
	}
	if !bytes.Equal(got, want) {
		return fmt.Sprintf("%d bytes came back as %d, or others", len(want), len(got)), nil
	}
	dir := path + "d"
	if err := errors.Join(c.FS.Mkdir(dir), c.FS.SyncDir(dir), c.FS.SyncDir(c.own)); err != nil {
		return "", fmt.Errorf("sync of a directory: %w", err)
	}
	return "", nil
}

func (c *check) tryNames() (string, error) {
	dir := c.unique()
	if err := c.FS.Mkdir(dir); err != nil {
		return "", fmt.Errorf("mkdir: %w", err)
	}
	long := strings.Repeat("n", 120)
	want := []string{"a", "A", "box1.cyp1v3k.2.35s.1abcdef", "floor.7", long}
	for _, n := range want {
		if err := c.FS.Symlink("x", dir+"/"+n); errors.Is(err, syscall.EEXIST) {
			return fmt.Sprintf("the name %q is taken by another one", n), nil
		} else if err != nil {
			return "", fmt.Errorf("symlink %s: %w", n, err)
		}
	}
	got, err := c.FS.ReadDir(dir, nil)
	if err != nil {
		return "", fmt.Errorf("list %s: %w", dir, err)
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		return fmt.Sprintf("of the names %q a listing has %q", want, got), nil
	}
	return "", nil
}

// farApart is a difference of clocks that deserves a word. Nothing depends on it: ages are differences of the file server's times.
const farApart = 5 * time.Second

// checkClock compares this host's clock with the file server's.
func (c *check) checkClock(context.Context) error {
	path := c.unique()
	before := c.Clock.Now()
	if err := c.writeFile(path, []byte("now")); err != nil {
		return err
	}
	after := c.Clock.Now()
	i, err := c.FS.Lstat(path)
	if err != nil {
		return fmt.Errorf("lstat %s: %w", path, err)
	}
	d := max(before.Sub(i.ModTime), i.ModTime.Sub(after), 0)
	if d > farApart {
		c.warn("clocks", fmt.Sprintf("this host and the file server are %v apart", d.Round(time.Second)), "no mail is lost by it, but dates of messages and logs are hard to compare",
			"keep the time of both with chrony or systemd-timesyncd")
		return nil
	}
	c.pass("clocks", fmt.Sprintf("within %v of the file server's", max(d, time.Second).Round(time.Second)))
	return nil
}

// tooGood: a sync that is faster than this was not written to anything that outlives a power cut by itself.
const tooGood = 30 * time.Microsecond

// checkLatency times the calls of deliveries.
func (c *check) checkLatency(ctx context.Context) error {
	dir := c.unique()
	if err := c.FS.Mkdir(dir); err != nil {
		return fmt.Errorf("mkdir %s: %w", dir, err)
	}
	body := bytes.Repeat([]byte("0123456789abcdef"), 256)
	took := map[string][]time.Duration{}
	var order []string
	timed := func(name string, f func() error) error {
		began := c.Clock.Boot()
		err := f()
		if took[name] == nil {
			order = append(order, name)
		}
		took[name] = append(took[name], c.Clock.Boot()-began)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		return nil
	}
	for i := range timedRounds {
		if err := ctx.Err(); err != nil {
			return err
		}
		path := fmt.Sprintf("%s/m%d", dir, i)
		var f vfs.File
		steps := []struct {
			name string
			run  func() error
		}{
			{"open", func() (err error) { f, err = c.FS.Create(path); return err }},
			{"write and sync 4 KiB", func() error {
				if _, err := f.Write(body); err != nil {
					return err
				}
				return f.Sync()
			}},
			{"close", func() error { return f.Close() }},
			{"symlink", func() error {
				if err := c.FS.Symlink("record", fmt.Sprintf("%s/%d", dir, i)); err != nil || c.stat.Network {
					return err
				}
				return c.FS.SyncDir(dir)
			}},
			{"list", func() error { _, err := c.FS.ReadDir(c.own, nil); return err }},
			{"look up what is absent", func() error {
				if _, err := c.FS.Lstat(path + "x"); !errors.Is(err, syscall.ENOENT) {
					return fmt.Errorf("absent name: %w", cmpErr(err))
				}
				return nil
			}},
		}
		for _, s := range steps {
			if err := timed(s.name, s.run); err != nil {
				return fmt.Errorf("%s: %w", path, err)
			}
		}
	}
	median := map[string]time.Duration{}
	for _, name := range order {
		d := took[name]
		slices.Sort(d)
		median[name] = d[len(d)/2]
		c.report.Latencies = append(c.report.Latencies, Latency{c.Host, name, len(d), d[len(d)/2].Microseconds(), d[len(d)*99/100].Microseconds(), d[len(d)-1].Microseconds()})
	}
	c.judgeLatency(median["write and sync 4 KiB"], median["symlink"], median["look up what is absent"])
	return nil
}

func cmpErr(err error) error {
	if err == nil {
		return errors.New("is there")
	}
	return err
}

// slow is a time for a commit's call beyond which people notice.
const slow = 50 * time.Millisecond

// judgeLatency holds the time of a sync against what durability costs, as far as that can be seen: on a network file system
// the time beyond a mere question to the server is what the server needs for the disk.
func (c *check) judgeLatency(sync, symlink, lookup time.Duration) {
	what := fmt.Sprintf("a synced write takes %v, a symlink %v, a mere question %v", micro(sync), micro(symlink), micro(lookup))
	const undo = "make sure by hand: the export has sync and not async, the disk's or the controller's write cache is protected by a battery or switched off, no layer below (a virtual machine's disk with cache=unsafe) drops flushes"
	switch {
	case max(sync, symlink) > slow:
		c.warn("latency", what, "each delivery waits for that, each commit of a mailbox for the second", "look for a busy disk or network")
	case c.stat.Network && (sync < lookup+tooGood || symlink < lookup+tooGood):
		c.warn("durability", what+": the server does not wait for its disk", "either its cache survives a power cut, or mail that was acknowledged does not", undo)
	case !c.stat.Network && sync < tooGood:
		c.warn("durability", what+": nothing waits for a disk", "either the cache survives a power cut, or mail that was acknowledged does not", undo)
	default:
		c.pass("latency", what)
	}
}

func micro(d time.Duration) time.Duration { return d.Round(10 * time.Microsecond) }
