package vfs

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// What ext4 and XFS promise beyond POSIX, and the store makes use of (StatFS.Journal): changes of metadata reach the journal
// in the order in which they were made, a flush of the journal flushes the data before it, and the blocks and size
// of a file whose data sync_file_range has waited for are in the journal by then. Crash images of both show it (tests/powercut).
//
// ext4 can do without a journal, and the driver also serves ext2 and ext3; that is told from the name of the file system in
// /proc/self/mountinfo and from the journal's entry in /proc/fs/jbd2. Where either can not be seen, nothing is promised.

// keepsOrder tells whether the file system that holds path is ext4 with a journal, or XFS.
func keepsOrder(path string) bool {
	var st unix.Stat_t
	if err := retry(func() error { return unix.Stat(path, &st) }); err != nil {
		return false
	}
	device := fmt.Sprintf("%d:%d", unix.Major(st.Dev), unix.Minor(st.Dev))
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return false
	}
	switch mountType(string(mounts), device) {
	case "xfs":
		return true
	case "ext4":
		name, err := os.Readlink("/sys/dev/block/" + device)
		if err != nil {
			return false
		}
		journal, err := filepath.Glob("/proc/fs/jbd2/" + filepath.Base(name) + "-*")
		return err == nil && len(journal) > 0
	}
	return false
}

// mountType returns the type of the file system on a device, as /proc/self/mountinfo gives it:
//
//	36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue
//
// The third field is the device; the type follows the field "-" behind a number of optional fields (proc_pid_mountinfo(5)).
func mountType(mountinfo, device string) string {
	for line := range strings.SplitSeq(mountinfo, "\n") {
		f := strings.Fields(line)
		if len(f) < 7 || f[2] != device {
			continue
		}
		for i := 6; i+1 < len(f); i++ {
			if f[i] == "-" {
				return f[i+1]
			}
		}
	}
	return ""
}
