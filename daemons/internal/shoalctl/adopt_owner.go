package shoalctl

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// markerFile is what makes a directory a volume; its owner is who the service runs as.
const markerFile = "shoal-volume"

// ownTree gives what lies in dir to the owner of the volume, and the directories that lead to it. Message files, which
// are other servers' too, only if messages is set. It returns how many files changed hands or had already.
func ownTree(volume, dir string, messages bool) (n int, err error) {
	i, err := os.Stat(filepath.Join(volume, markerFile))
	if err != nil {
		return 0, err
	}
	owner, ok := i.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, fmt.Errorf("%s: its owner cannot be found out", volume)
	}
	give := func(path string, i fs.FileInfo) error {
		if have, ok := i.Sys().(*syscall.Stat_t); ok && have.Uid == owner.Uid && have.Gid == owner.Gid {
			return nil
		}
		if err := os.Lchown(path, int(owner.Uid), int(owner.Gid)); err != nil {
			return fmt.Errorf("%w (run this as root, where root is not squashed)", err)
		}
		return nil
	}
	for up := filepath.Dir(dir); up != filepath.Clean(volume) && strings.HasPrefix(up, filepath.Clean(volume)+"/"); up = filepath.Dir(up) {
		i, err := os.Lstat(up)
		if err != nil {
			return 0, err
		}
		if err := give(up, i); err != nil {
			return 0, err
		}
	}
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			if os.IsNotExist(err) {
				return nil // the service tidies up
			}
			return err
		}
		i, err := d.Info()
		if os.IsNotExist(err) {
			return nil
		}
		if err != nil {
			return err
		}
		if st, ok := i.Sys().(*syscall.Stat_t); ok && i.Mode().IsRegular() && st.Nlink > 1 && isMessage(dir, path) && !messages {
			return nil
		}
		if err := give(path, i); err != nil {
			return err
		}
		if i.Mode().IsRegular() && i.Mode()&0o400 == 0 {
			if err := os.Chmod(path, i.Mode()|0o400); err != nil {
				return err
			}
		}
		if !d.IsDir() {
			n++
		}
		return nil
	})
	return n, err
}

// isMessage: b/<mailbox>/m/<k>/<msgid> below an account.
func isMessage(account, path string) bool {
	rel, err := filepath.Rel(account, path)
	if err != nil {
		return false
	}
	p := strings.Split(rel, "/")
	return len(p) == 5 && p[0] == "b" && p[2] == "m"
}
