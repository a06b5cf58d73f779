package shoalctl

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"shoal/daemons/internal/clock"
	"shoal/daemons/internal/conf"
	"shoal/daemons/internal/dirclient"
	"shoal/daemons/internal/mailstore"
	"shoal/daemons/internal/vfs"
)

// The commands that work on volumes do so as one more server of the store: by the same rules as the boxes, beside
// them. They run where the volumes are mounted, which is on any box, find them as boxd does (the volume blocks and
// the volume_folder of its configuration) and, where root runs them, become the owner of the volumes first, so that
// what they make belongs to the boxes' user.

// storeServer is the name under which these commands commit. There may be several at the same time: the
// time of their start tells them apart.
const storeServer = "shoalctl"

// mount is a volume as this machine has it.
type mount struct {
	name, path, id string
}

// localStore is the store as the commands open it.
type localStore struct {
	*mailstore.Store
	mounts  []mount
	control *control
	dir     sync.Mutex // held for the directory by moves at the same time
}

func (s *localStore) mount(name string) (mount, bool) {
	for _, m := range s.mounts {
		if m.name == name {
			return m, true
		}
	}
	return mount{}, false
}

// errNotHere: a volume is not mounted where shoalctl runs.
var errNotHere = errors.New("this volume is not mounted here: run shoalctl on a box, where the volumes are")

// storeFlags are common to the commands that work on volumes.
type storeFlags struct {
	configs []string // --box-config
}

// mounts finds the volumes of this machine; listed are those of the directory.
func (t *tool) mounts(f storeFlags, listed []dirclient.Volume) (found []mount, retention time.Duration, err error) {
	files, err := t.daemonConfigs(f.configs)
	if err != nil {
		return nil, 0, err
	}
	add := func(m mount) {
		if !slices.ContainsFunc(found, func(x mount) bool { return x.name == m.name }) {
			found = append(found, m)
		}
	}
	for _, file := range files {
		c, err := readDaemonConfig(file)
		if err != nil {
			return nil, 0, err
		}
		for _, b := range c.all("volume") {
			add(mount{b.label, c.path(b.attributes["path"]), b.attributes["id"]})
		}
		for _, b := range c.all("store") {
			if d, err := time.ParseDuration(b.attributes["retention"]); err == nil {
				retention = d
			}
			folder := c.path(b.attributes["volume_folder"])
			if folder == "" {
				continue
			}
			for _, v := range listed {
				path := filepath.Join(folder, v.Name)
				if _, err := os.Lstat(path); err == nil {
					add(mount{v.Name, path, v.ID})
				}
			}
		}
	}
	if len(found) == 0 {
		return nil, 0, fmt.Errorf("%w: no configuration of boxd here names a volume (looked at %s): run shoalctl on a box, or name its configuration with --box-config",
			errUnreachable, strings.Join(files, ", "))
	}
	return found, retention, nil
}

// withStore runs f with the volumes of this machine, or only those that are wanted, and the directory.
func (t *tool) withStore(ctx context.Context, f storeFlags, want []string, run func(*dirclient.Admin, *localStore) error) error {
	return t.withAdmin(ctx, func(a *dirclient.Admin) error {
		listed, err := a.Volumes(ctx)
		if err != nil {
			return err
		}
		mounts, retention, err := t.mounts(f, listed)
		if err != nil {
			return err
		}
		for _, name := range want {
			if !slices.ContainsFunc(mounts, func(m mount) bool { return m.name == name }) {
				return fmt.Errorf("volume %s: %w", name, errNotHere)
			}
		}
		if len(want) > 0 {
			mounts = slices.DeleteFunc(mounts, func(m mount) bool { return !slices.Contains(want, m.name) })
		}
		c, err := t.load()
		if err != nil {
			return err
		}
		k, err := c.control() // before root is given up: it reads the operator's key
		if err != nil {
			return err
		}
		defer k.close()
		s, err := t.openStore(mounts, retention)
		if err != nil {
			return err
		}
		s.control = k
		err = run(a, s)
		return errors.Join(err, s.Close())
	})
}

func (t *tool) openStore(mounts []mount, retention time.Duration) (*localStore, error) {
	if err := becomeOwner(mounts); err != nil {
		return nil, err
	}
	level := slog.LevelWarn
	store, err := mailstore.New(mailstore.Options{
		Server: storeServer, FS: vfs.OS(), Clock: clock.System(), Retention: retention,
		Log:         slog.New(slog.NewTextHandler(t.err, &slog.HandlerOptions{Level: level})),
		CallTimeout: time.Hour, // nobody else waits, and what takes long here may
	})
	if err != nil {
		return nil, err
	}
	s := &localStore{Store: store, mounts: mounts}
	for _, m := range mounts {
		if err := store.AddVolume(m.name, m.path, m.id); err != nil {
			return nil, errors.Join(err, store.Close())
		}
	}
	return s, nil
}

// becomeOwner gives up root for the user that the volumes belong to. Credentials have been read before.
func becomeOwner(mounts []mount) error {
	if os.Geteuid() != 0 {
		return nil
	}
	uid, gid := -1, -1
	for _, m := range mounts {
		var st syscall.Stat_t
		if err := syscall.Stat(m.path, &st); err != nil {
			return fmt.Errorf("volume %s: %s: %w", m.name, m.path, err)
		}
		if uid >= 0 && int(st.Uid) != uid {
			return fmt.Errorf("volume %s belongs to user %d, others to user %d: name one volume at a time", m.name, st.Uid, uid)
		}
		uid, gid = int(st.Uid), int(st.Gid)
	}
	if uid <= 0 {
		return nil
	}
	if err := syscall.Setgroups([]int{}); err != nil {
		return fmt.Errorf("give up root: %w", err)
	}
	if err := syscall.Setgid(gid); err != nil {
		return fmt.Errorf("become group %d: %w", gid, err)
	}
	if err := syscall.Setuid(uid); err != nil {
		return fmt.Errorf("become user %d, the owner of the volumes: %w", uid, err)
	}
	return nil
}

// interrupted words the end of long work that somebody interrupted.
func interrupted(err error) error {
	if errors.Is(err, context.Canceled) {
		return errors.New("interrupted; the same command goes on from here")
	}
	return err
}

// rateText reads a rate: bytes a second.
func rateText(s string) (int64, error) {
	if s == "" || s == "0" {
		return 0, nil
	}
	n, err := conf.ParseSize(strings.TrimSuffix(s, "/s"))
	if err != nil {
		return 0, usageError{fmt.Errorf("--rate: %w", err)}
	}
	return int64(n), nil
}

// ticker says, at most every so often, that something moves; to be called from long work.
type ticker struct {
	t     *tool
	every time.Duration
	last  time.Time
	out   io.Writer
}

func (t *tool) ticker() *ticker {
	return &ticker{t: t, every: 2 * time.Second, last: time.Now(), out: t.err}
}

// say prints a line of progress if it is time: text, or one JSON object.
func (k *ticker) say(object map[string]any, format string, args ...any) {
	if time.Since(k.last) < k.every {
		return
	}
	k.last = time.Now()
	k.force(object, format, args...)
}

func (k *ticker) force(object map[string]any, format string, args ...any) {
	if k.t.json {
		_ = jsonLine(k.out, object)
		return
	}
	fmt.Fprintf(k.out, format+"\n", args...)
}
