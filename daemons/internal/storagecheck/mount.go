package storagecheck

import (
	"fmt"
	"net"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
)

// Right are the options of an NFS mount that holds mail.
const Right = "vers=4.2,hard,proto=tcp,lookupcache=positive"

// mount is a line of /proc/self/mountinfo (proc(5)):
//
//	36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue
type mount struct {
	point, kind, source string
	options             []string // those of the mount, then those of the file system
}

func (m *mount) value(name string) (string, bool) {
	for _, o := range m.options {
		if k, v, _ := strings.Cut(o, "="); k == name {
			return v, true
		}
	}
	return "", false
}

func (m *mount) has(name string) bool {
	_, ok := m.value(name)
	return ok
}

// maxProc bounds what is read of a file in /proc or of an export file.
const maxProc = 4 << 20

func readBounded(file string) (string, error) {
	f, err := os.Open(file)
	if err != nil {
		return "", err
	}
	defer f.Close()
	var b strings.Builder
	buf := make([]byte, 64<<10)
	for b.Len() < maxProc {
		n, err := f.Read(buf)
		b.Write(buf[:n])
		if err != nil || n == 0 {
			break
		}
	}
	return b.String(), nil
}

// parseMountinfo finds the mount that holds a path: the last of those with the longest mount point.
func parseMountinfo(text, dir string) *mount {
	var best *mount
	for line := range strings.Lines(text) {
		left, right, ok := strings.Cut(line, " - ")
		l, r := strings.Fields(left), strings.Fields(right)
		if !ok || len(l) < 6 || len(r) < 3 {
			continue
		}
		m := &mount{point: unescape(l[4]), kind: r[0], source: unescape(r[1]), options: append(strings.Split(l[5], ","), strings.Split(r[2], ",")...)}
		if !within(dir, m.point) || best != nil && len(m.point) < len(best.point) {
			continue
		}
		best = m
	}
	return best
}

func within(dir, point string) bool {
	return point == "/" || dir == point || strings.HasPrefix(dir, point+"/")
}

// unescape undoes the \ooo of blanks and the like.
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

func (c *check) checkMount() {
	text, err := readBounded(c.Mountinfo)
	if err != nil {
		c.warn("mount", err.Error(), "how the directory is mounted is not known", "")
		return
	}
	m := parseMountinfo(text, path.Clean(c.Path))
	if m == nil {
		c.warn("mount", fmt.Sprintf("%s has no line for %s", c.Mountinfo, c.Path), "how the directory is mounted is not known", "")
		return
	}
	c.mount = m
	switch m.kind {
	case "nfs4", "nfs":
		c.checkNFS(m)
	case "ext4", "xfs":
		c.checkLocal(m)
	case "tmpfs", "ramfs":
		c.fail("mount", m.point+" is "+m.kind+": memory", "mail is gone when the machine is switched off", "use ext4, XFS, or NFS")
	case "cifs", "smb3", "vboxsf", "9p", "vfat", "exfat", "ntfs", "ntfs3", "overlay":
		c.fail("mount", m.point+" is "+m.kind, "it lacks what the store is built on", "use ext4, XFS, or NFS")
	default:
		c.warn("mount", m.point+" is "+m.kind, "the store has not been tested on it", "prefer ext4, XFS, or NFS")
	}
}

func (c *check) checkNFS(m *mount) {
	wrong := map[string]string{} // option: why
	instead := func(option, why string) { wrong[option] = why }
	switch vers, _ := m.value("vers"); vers {
	case "4.2":
	case "4.1":
		c.warn("mount", "vers=4.1", "works, but is not what is tested", "write vers=4.2")
	case "":
		instead("vers=4.2", "the version of NFS is not shown")
	default:
		instead("vers=4.2", "it is vers="+vers+": before 4.1 a call that is repeated after a lost reply may be carried out twice")
	}
	for _, soft := range []string{"soft", "softerr"} {
		if m.has(soft) {
			instead("hard", "it is "+soft+": a slow server becomes an error, and what was written is lost")
		}
	}
	if proto, _ := m.value("proto"); proto != "tcp" && proto != "tcp6" && proto != "rdma" {
		instead("proto=tcp", "it is proto="+proto)
	}
	switch cache, there := m.value("lookupcache"); {
	case cache == "pos" || cache == "positive":
	case cache == "none":
		c.warn("mount", "lookupcache=none", "right, but each name costs a call", "write lookupcache=positive")
	case !there || cache == "all":
		instead("lookupcache=positive", "it is lookupcache=all, the default: this host goes on for up to a minute without seeing what other hosts have written, and confirms commits that are none")
	}
	if m.has("nocto") {
		instead("cto", "it is nocto: directories that are opened are not asked for anew")
	}
	if m.has("noac") {
		c.warn("mount", "noac", "right, but costs many calls", "leave out noac")
	}
	if len(wrong) == 0 {
		c.pass("mount", fmt.Sprintf("%s of %s on %s: %s", m.kind, m.source, m.point, Right))
		return
	}
	for _, option := range []string{"vers=4.2", "hard", "proto=tcp", "lookupcache=positive", "cto"} {
		if why := wrong[option]; why != "" {
			c.fail("mount", option+" is missing; "+why, "",
				"in /etc/fstab or the mount unit of "+m.point+" write "+Right+" and mount it again (umount, mount: remount does not change these)")
		}
	}
}

func (c *check) checkLocal(m *mount) {
	bad := false
	for _, o := range []string{"nobarrier", "barrier=0"} {
		name, value, _ := strings.Cut(o, "=")
		if v, there := m.value(name); there && v == value {
			bad = true
			c.fail("mount", o+" on "+m.point, "a power cut takes mail that was acknowledged", "leave it out")
		}
	}
	if d, _ := m.value("data"); d == "writeback" {
		c.warn("mount", "data=writeback on "+m.point, "after a power cut files may show old contents of the disk; messages are recognized by their checksums", "leave it out: data=ordered")
	}
	if !bad {
		c.pass("mount", fmt.Sprintf("%s on %s, a local file system: for one host", m.kind, m.point))
	}
}

// Space below which a volume is in danger.
const (
	leastBytes = 1 << 30
	leastFiles = 10_000
)

func (c *check) checkSpace() {
	s := c.stat
	percent := func(free, total uint64) uint64 {
		if total == 0 {
			return 100
		}
		return free * 100 / total
	}
	what := fmt.Sprintf("%d MiB of %d MiB free (%d %%), %d of %d inodes (%d %%)", s.Free>>20, s.Total>>20, percent(s.Free, s.Total), s.FilesFree, s.Files, percent(s.FilesFree, s.Files))
	switch {
	case s.Free == 0 || s.Files > 0 && s.FilesFree == 0:
		c.fail("space", what, "nothing can be written, and nothing removed: an expunge is a new record", "make room")
	case percent(s.Free, s.Total) < 10 || s.Free < leastBytes:
		c.warn("space", what, "the volume is almost full", "enlarge it, or move accounts away")
	case s.Files > 0 && (percent(s.FilesFree, s.Files) < 10 || s.FilesFree < leastFiles):
		c.warn("space", what, "almost no more files can be made: a message is a file", "make a file system with more inodes (mkfs.ext4 -i 4096), or use XFS")
	default:
		c.pass("space", what)
	}
	if s.MaxNameLen > 0 && s.MaxNameLen < 128 {
		c.fail("space", fmt.Sprintf("names of %d bytes at most", s.MaxNameLen), "names of messages do not fit", "use another file system")
	}
}

// localAddress tells whether an address is one of this machine's.
func localAddress(address string) bool {
	ip := net.ParseIP(strings.Trim(address, "[]"))
	if ip == nil {
		return address == "localhost"
	}
	if ip.IsLoopback() {
		return true
	}
	all, err := net.InterfaceAddrs()
	return err == nil && slices.ContainsFunc(all, func(a net.Addr) bool {
		n, ok := a.(*net.IPNet)
		return ok && n.IP.Equal(ip)
	})
}
