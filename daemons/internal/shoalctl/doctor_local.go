package shoalctl

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"shoal/daemons/internal/conf"
	"shoal/daemons/internal/devcluster"
	"shoal/daemons/internal/pki"
)

// Bounds at which doctor speaks up.
const (
	expiresSoon   = 30 * 24 * time.Hour
	freeWarning   = 10 // per cent
	freeProblem   = 3
	filesReserved = 256 // descriptors that a daemon needs besides its connections
	filesPerConn  = 2
	filesUsed     = 80 // per cent
)

func isDataFolder(path string) bool {
	_, err := os.Stat(filepath.Join(path, "shoal-data"))
	return err == nil
}

// checkDataFolder looks at the folder of a service on this machine.
func (d *doctor) checkDataFolder() string {
	if d.data == "" {
		return ""
	}
	info, err := os.Stat(d.data)
	if err != nil {
		d.problem(err.Error(), "nothing can run on it", "name the right folder with --data or SHOAL_DATA")
		return ""
	}
	text, err := os.ReadFile(filepath.Join(d.data, "shoal-data"))
	if err != nil || !strings.HasPrefix(string(text), "shoal-data ") {
		d.problem(fmt.Sprintf("the mark shoal-data in %s is not readable", d.data), "shoalctl up refuses the folder", "restore it: one line, \"shoal-data 1\"")
	} else if strings.TrimSpace(string(text)) != "shoal-data 1" {
		d.problem(fmt.Sprintf("%s is of another version: %s", d.data, strings.TrimSpace(string(text))), "this program cannot use it", "use the program that made it")
	}
	if mode := info.Mode().Perm(); mode&0o022 != 0 {
		d.problem(fmt.Sprintf("%s may be written by others (mode %04o)", d.data, mode), "anybody can replace keys and mail", "chmod 700 "+d.data)
	}
	d.space(d.data, "the data folder")
	return d.data
}

// space warns when a file system fills up.
func (d *doctor) space(path, what string) {
	st, err := d.statfs(path)
	if err != nil {
		d.problem(fmt.Sprintf("%s: %s: %v", what, path, err), "it cannot be used", "see whether it is mounted, and the kernel's log")
		return
	}
	if st.ReadOnly {
		d.problem(fmt.Sprintf("%s: %s is mounted read-only", what, path), "nothing can be stored", "see the kernel's log for errors of the disk, then remount it")
	}
	for _, left := range []struct {
		name        string
		free, total uint64
		text        string
	}{
		{"space", st.Free, st.Total, bytesText(int64(st.Free))},
		{"inodes", st.FilesFree, st.Files, strconv.FormatUint(st.FilesFree, 10)},
	} {
		if left.total == 0 { // file systems without a fixed number of inodes
			continue
		}
		share := left.free * 100 / left.total
		text := fmt.Sprintf("%s: %d%% of the %s of %s are free (%s)", what, share, left.name, path, left.text)
		switch {
		case share < freeProblem:
			d.problem(text, "soon nothing can be stored: mail is deferred at the door", "free some, enlarge it, or set the volume to draining and add another")
		case share < freeWarning:
			d.warn(text, "it fills up", "plan to enlarge it, or add another volume")
		}
	}
}

// checkCertificates looks at the operator's certificate, those of the daemons on this machine, and (once the servers
// were asked) not again at what they say.
func (d *doctor) checkCertificates() string {
	n, first := 0, time.Time{}
	seen := map[string]bool{}
	look := func(what, file string, load func() (time.Time, error)) {
		if file == "" || seen[file] {
			return
		}
		seen[file] = true
		end, err := load()
		if err != nil {
			if errors.Is(err, fs.ErrPermission) {
				d.warn(fmt.Sprintf("%s: %v", what, err), "it is not examined", "run doctor as root or as the daemon's user")
				return
			}
			d.problem(fmt.Sprintf("%s: %v", what, err), "nobody accepts it: its connections fail", "issue it anew (a service on this machine: shoalctl down, then up)")
			return
		}
		n++
		if first.IsZero() || end.Before(first) {
			first = end
		}
		if left := end.Sub(d.now()); left < expiresSoon {
			d.warn(fmt.Sprintf("%s: %s ends in %s, on %s", what, file, ageText(left), end.Format("2006-01-02")),
				"after that its connections fail", "renew it; daemons take up new files by themselves (a service on this machine renews at its start)")
		}
	}
	internal := func(what string, f pki.Files) {
		look(what, f.Cert, func() (time.Time, error) {
			creds, err := pki.Load(f, pki.WithClock(d.now))
			if err != nil {
				return time.Time{}, err
			}
			return creds.NotAfter(), nil
		})
	}
	id := d.config.Identity
	internal("the operator's certificate", pki.Files{Cert: id.CertFile, Key: id.KeyFile, CA: id.CAFile})
	for _, c := range d.configs {
		for _, b := range c.all("identity") {
			internal("certificate of "+c.server, pki.Files{Cert: c.path(b.attributes["cert_file"]), Key: c.path(b.attributes["key_file"]), CA: c.path(b.attributes["ca_file"])})
		}
		for _, b := range c.all("public_tls") {
			cert, key := c.path(b.attributes["cert_file"]), c.path(b.attributes["key_file"])
			look("public certificate of "+c.server, cert, func() (time.Time, error) {
				public, err := pki.OpenPublic(cert, key, pki.WithClock(d.now))
				if err != nil {
					return time.Time{}, err
				}
				return public.NotAfter(), nil
			})
		}
	}
	return fmt.Sprintf("%d, of which the first ends on %s", n, first.Format("2006-01-02"))
}

// checkSecrets looks at the modes of passwords and keys.
func (d *doctor) checkSecrets() string {
	n := 0
	seen := map[string]bool{}
	look := func(path string, secret bool) {
		if path == "" || seen[path] {
			return
		}
		seen[path] = true
		n++
		if secret {
			if _, err := conf.ReadSecret(path); err != nil {
				d.problem(err.Error(), "the daemon that needs it does not start", "")
				return
			}
		}
		info, err := os.Stat(path)
		if err != nil {
			d.problem(err.Error(), "the daemon that needs it does not start", "restore it")
			return
		}
		if mode := info.Mode().Perm(); mode&0o077 != 0 {
			d.warn(fmt.Sprintf("%s can be read by others than its owner (mode %04o)", path, mode), "whoever reads it can act as its owner", "chmod 600 "+path)
		}
	}
	look(d.config.Directory.PasswordFile, true)
	look(d.config.Identity.KeyFile, false)
	for _, c := range d.configs {
		for _, b := range c.blocks {
			look(c.path(b.attributes["password_file"]), true)
			look(c.path(b.attributes["key_file"]), false)
		}
	}
	return fmt.Sprintf("%d files, for their owners only", n)
}

// marker reads the id in the marker file of a volume or queue.
func marker(path, name string) (id string, err error) {
	text, err := os.ReadFile(filepath.Join(path, name))
	if err != nil {
		return "", err
	}
	head, rest, _ := strings.Cut(string(text), "\n")
	if !strings.HasPrefix(head, name+" ") {
		return "", fmt.Errorf("%s/%s begins with %q", path, name, printable(head))
	}
	for line := range strings.Lines(rest) {
		if id, ok := strings.CutPrefix(strings.TrimSpace(line), "id "); ok {
			return id, nil
		}
	}
	return "", fmt.Errorf("%s/%s has no id", path, name)
}

// marked checks a folder with a marker: that it is there and the one that is meant.
func (d *doctor) marked(what, path, name, want string) {
	id, err := marker(path, name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		d.problem(fmt.Sprintf("%s: %s has no marker %s", what, path, name),
			"most likely it is not mounted: the daemon refuses to work on an empty folder", "mount it, then restart the daemon")
	case err != nil:
		d.problem(fmt.Sprintf("%s: %v", what, err), "the daemon refuses it", "see whether the right file system is mounted there")
	case !strings.EqualFold(id, want):
		d.problem(fmt.Sprintf("%s: %s is %s, the configuration says %s", what, path, id, want),
			"another file system is mounted there: the daemon refuses it", "mount the right one, or correct the configuration")
	}
}

// checkQueue looks at the queue's folder.
func (d *doctor) checkQueue() string {
	good := ""
	for _, c := range d.configs {
		for _, b := range c.all("queue") {
			path := c.path(b.attributes["path"])
			what := "queue of " + c.server
			if path == "" {
				continue
			}
			d.marked(what, path, "shoal-queue", b.attributes["id"])
			d.space(path, what)
			d.mountOptions(what, path)
			good = path
		}
	}
	return good
}

// nfsNeeds are the mount options that the store's format relies on.
var nfsNeeds = []struct{ option, means string }{
	{"vers=4.2", "the store was made and measured for this version: others lack what it relies on, or are slower"},
	{"hard", "with soft a write may be given up and reported as done by nobody: mail can be lost"},
	{"lookupcache=positive", "the default remembers for seconds that a name is not there: mail that another server stored is seen late"},
}

// mountOptions looks at how NFS is mounted.
func (d *doctor) mountOptions(what, path string) {
	kind, options, point, err := d.mount(path)
	if err != nil {
		d.warn(fmt.Sprintf("%s: how %s is mounted is not known: %v", what, path, err), "mount options are not examined", "")
		return
	}
	if !strings.HasPrefix(kind, "nfs") {
		return
	}
	for _, need := range nfsNeeds {
		// the kernel writes "positive" as "pos"
		if slices.Contains(options, need.option) || need.option == "lookupcache=positive" && slices.Contains(options, "lookupcache=pos") {
			continue
		}
		d.problem(fmt.Sprintf("%s: %s is mounted without %s", what, point, need.option), need.means,
			fmt.Sprintf("in /etc/fstab: vers=4.2,hard,lookupcache=positive; then unmount and mount %s", point))
	}
}

// mount finds what is mounted at or above a path (proc(5), mountinfo).
func (d *doctor) mount(path string) (kind string, options []string, point string, err error) {
	if path, err = filepath.EvalSymlinks(path); err != nil {
		return "", nil, "", err
	}
	if path, err = filepath.Abs(path); err != nil {
		return "", nil, "", err
	}
	f, err := os.Open(filepath.Join(d.proc, "self", "mountinfo"))
	if err != nil {
		return "", nil, "", err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		before, after, ok := strings.Cut(lines.Text(), " - ")
		head, tail := strings.Fields(before), strings.Fields(after)
		if !ok || len(head) < 6 || len(tail) < 3 {
			continue
		}
		at := unescapeMount(head[4])
		if path != at && at != "/" && !strings.HasPrefix(path, at+"/") || len(at) < len(point) {
			continue
		}
		point, kind = at, tail[0]
		options = append(strings.Split(head[5], ","), strings.Split(tail[2], ",")...)
	}
	if err := lines.Err(); err != nil {
		return "", nil, "", err
	}
	if point == "" {
		return "", nil, "", errors.New("no mount point is above it")
	}
	return kind, options, point, nil
}

// unescapeMount undoes \040 and the like.
func unescapeMount(s string) string {
	for _, c := range []string{" ", "\t", "\n", `\`} {
		s = strings.ReplaceAll(s, fmt.Sprintf(`\%03o`, c[0]), c)
	}
	return s
}

// checkBalancer asks HAProxy what it finds.
func (d *doctor) checkBalancer() string {
	if d.config.Balancer == nil {
		return ""
	}
	ctx, cancel := timeout()
	defer cancel()
	servers, err := devcluster.Balancer{Socket: d.config.Balancer.Socket}.Servers(ctx)
	if err != nil {
		d.problem(err.Error(), "clients reach nobody if HAProxy does not run", "start it; haproxy -c -f <file> says what is wrong with its configuration")
		return ""
	}
	up := map[string]int{}
	for _, s := range servers {
		up[s.Backend] += btoi(s.Up())
	}
	for _, s := range servers {
		if s.Up() {
			continue
		}
		text := fmt.Sprintf("%s/%s (%s) is %s, its last check %s", s.Backend, s.Name, s.Address, s.Status, orDash(s.Check))
		if up[s.Backend] == 0 {
			d.problem(text, "no server of this service is left: clients are refused", "shoalctl status; start "+s.Name+", its log says why it ended")
		} else {
			d.warn(text, "the others carry its load", "shoalctl status; start "+s.Name+", its log says why it ended")
		}
	}
	return fmt.Sprintf("%d servers in %d backends", len(servers), len(up))
}

// checkLimits compares open files with what a daemon may need, for the daemons on this machine.
func (d *doctor) checkLimits() string {
	if d.status == nil {
		return ""
	}
	n := 0
	for _, c := range d.configs {
		i := slices.IndexFunc(d.status.Servers, func(s serverView) bool { return s.Name == c.server && s.Status != nil })
		if i < 0 {
			continue
		}
		pid := strconv.Itoa(d.status.Servers[i].Status.PID)
		soft, err := openFilesLimit(filepath.Join(d.proc, pid, "limits"))
		if err != nil { // another machine's, or another user's
			continue
		}
		n++
		need := int64(filesReserved)
		for _, b := range c.all("listener") {
			most := b.numbers["max_connections"]
			switch {
			case most == 0 && b.label == "hint":
				most = filesReserved // other boxes, one connection each
			case most == 0:
				most = 10000 // the default
			}
			need += most
		}
		if soft < need {
			d.warn(fmt.Sprintf("%s may open %d files, its listeners admit connections for %d", c.server, soft, need),
				"under a rush of clients it refuses connections and cannot open mail", fmt.Sprintf("LimitNOFILE=%d in its unit, or ulimit -n before its start, or smaller max_connections", max(need*filesPerConn, 65536)))
		}
		if open, err := os.ReadDir(filepath.Join(d.proc, pid, "fd")); err == nil && soft > 0 && int64(len(open))*100 > soft*filesUsed {
			d.problem(fmt.Sprintf("%s has %d of %d files open", c.server, len(open), soft), "soon it can accept no connection and open no mail", "raise its limit (LimitNOFILE), then restart it")
		}
	}
	if n == 0 {
		return ""
	}
	return fmt.Sprintf("open files of %d daemons on this machine", n)
}

func openFilesLimit(path string) (soft int64, err error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, "Max open files"); ok {
			fields := strings.Fields(rest)
			if len(fields) > 0 && fields[0] == "unlimited" {
				return 1 << 40, nil
			}
			if len(fields) > 0 {
				return strconv.ParseInt(fields[0], 10, 64)
			}
		}
	}
	return 0, fmt.Errorf("%s names no limit of open files", path)
}
