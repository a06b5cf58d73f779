package kit

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/user"
	"strconv"
	"strings"
	"syscall"
)

// wantedFiles is the number of open files that root raises the limit to: one per connection, and some.
const wantedFiles = 1 << 20

// raiseFileLimit raises the limit of open files as far as this user may, and returns it.
func raiseFileLimit() (uint64, error) {
	var r syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &r); err != nil {
		return 0, fmt.Errorf("limit of open files: %w", err)
	}
	if os.Geteuid() == 0 && r.Max < wantedFiles {
		up := syscall.Rlimit{Cur: wantedFiles, Max: wantedFiles}
		if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &up); err == nil {
			return up.Cur, nil
		}
		// In a container root may not; the hard limit is then all there is.
	}
	r.Cur = r.Max
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &r); err != nil {
		return 0, fmt.Errorf("limit of open files: %w", err)
	}
	return r.Cur, nil
}

// dropRoot changes to the configured account ("user" or "user:group") if the process is root, and checks
// that it has arrived there.
func dropRoot(account string, log *slog.Logger) error {
	root := os.Geteuid() == 0
	if account == "" {
		if root {
			log.Warn("running as root: set user in the server block to the account that the daemon should change to")
		}
		return nil
	}
	name, group, _ := strings.Cut(account, ":")
	u, err := user.Lookup(name)
	if err != nil {
		return fmt.Errorf("user %q of the server block: %w: create it, or name another", name, err)
	}
	uid, err := strconv.Atoi(u.Uid)
	if err != nil {
		return fmt.Errorf("user %q: id %q: %w", name, u.Uid, err)
	}
	gid, err := strconv.Atoi(u.Gid)
	if err != nil {
		return fmt.Errorf("user %q: group id %q: %w", name, u.Gid, err)
	}
	if group != "" {
		g, err := user.LookupGroup(group)
		if err != nil {
			return fmt.Errorf("group %q of the server block: %w: create it, or name another", group, err)
		}
		if gid, err = strconv.Atoi(g.Gid); err != nil {
			return fmt.Errorf("group %q: id %q: %w", group, g.Gid, err)
		}
	}
	if !root {
		if os.Geteuid() != uid {
			return fmt.Errorf("started as user id %d, but the server block says user = %q (%d): start as root or as that user", os.Geteuid(), account, uid)
		}
		return nil
	}
	ids, err := u.GroupIds()
	if err != nil {
		return fmt.Errorf("groups of user %q: %w", name, err)
	}
	groups := []int{gid}
	for _, id := range ids {
		if n, err := strconv.Atoi(id); err == nil && n != gid {
			groups = append(groups, n)
		}
	}
	if err := syscall.Setgroups(groups); err != nil {
		return fmt.Errorf("change groups to those of %q: %w", name, err)
	}
	if err := syscall.Setgid(gid); err != nil {
		return fmt.Errorf("change to group id %d: %w", gid, err)
	}
	if err := syscall.Setuid(uid); err != nil {
		return fmt.Errorf("change to user %q (%d): %w", name, uid, err)
	}
	if os.Getuid() != uid || os.Geteuid() != uid || os.Getegid() != gid || uid != 0 && syscall.Setuid(0) == nil {
		return errors.New("root was not given up")
	}
	log.Info("changed user", "user", name, "uid", uid, "gid", gid)
	return nil
}
