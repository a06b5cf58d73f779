package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// A fresh file system for each measurement: creating inodes on ext4 costs many times as much for minutes after a
// mass deletion nearby, so a folder that other runs have used would measure their leftovers.

// freshDisk makes an image of the kind ext4 or xfs beside b.dir, mounts it, and moves b.dir there.
func (b *bench) freshDisk(kind string) error {
	image := b.dir + "." + kind
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		return err
	}
	if err := os.Truncate(image, 8<<30); err != nil {
		return err
	}
	mount := filepath.Join(b.dir, "disk")
	if err := os.MkdirAll(mount, 0o755); err != nil {
		return err
	}
	mkfs := []string{"mkfs.xfs", "-q", "-f", image}
	if kind == "ext4" {
		mkfs = []string{"mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0", image}
	}
	for _, argv := range [][]string{mkfs, {"mount", "-o", "loop", image, mount}} {
		if out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w: %s", strings.Join(argv, " "), err, out)
		}
	}
	outer := b.dir
	b.atExit(func() {
		_ = exec.Command("umount", mount).Run()
		_ = os.Remove(image)
		b.dir = outer
	})
	b.dir = mount
	var st syscall.Stat_t
	if err := syscall.Stat(mount, &st); err != nil {
		return err
	}
	b.diskStat = fmt.Sprintf("/sys/dev/block/%d:%d/stat", unix.Major(st.Dev), unix.Minor(st.Dev))
	for _, dir := range []string{outer, mount} { // the peers drop to users of their own
		if err := os.Chmod(dir, 0o755); err != nil {
			return err
		}
	}
	return nil
}
