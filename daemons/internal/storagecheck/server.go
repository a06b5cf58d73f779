package storagecheck

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// mountstats is what the kernel counts for a mount: calls by kind, and the lease time that the server announced.
type mountstats struct {
	calls map[string]int
	lease int // seconds, 0: not known
}

// readMountstats reads /proc/self/mountstats: a part for each mount begins with "device <source> mounted on <point> with ...";
// "nfsv4:" lines hold lease_time=<s>; after "per-op statistics" a line for each kind of call, its count first.
func readMountstats(file, point string) (mountstats, error) {
	s := mountstats{calls: map[string]int{}}
	text, err := readBounded(file)
	if err != nil {
		return s, err
	}
	ours, ops := false, false
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		switch {
		case len(f) > 4 && f[0] == "device":
			ours, ops = unescape(f[4]) == point, false
		case !ours || len(f) < 2:
		case f[0] == "per-op":
			ops = true
		case ops:
			if n, err := strconv.Atoi(f[1]); err == nil {
				s.calls[strings.TrimSuffix(f[0], ":")] = n
			}
		case f[0] == "nfsv4:":
			for _, x := range strings.Split(strings.Join(f[1:], ","), ",") {
				if v, ok := strings.CutPrefix(x, "lease_time="); ok {
					s.lease, _ = strconv.Atoi(v)
				}
			}
		}
	}
	return s, nil
}

// longLease is a lease time in seconds beyond which hosts wait too long for what a dead one held.
const longLease = 30

// checkServer tries whether the server hands out delegations, asks for its lease time, and looks at its exports where they
// are at hand.
func (c *check) checkServer(context.Context) error {
	if c.mount == nil || c.mount.kind != "nfs4" && c.mount.kind != "nfs" {
		return nil
	}
	path := c.unique()
	if err := c.writeFile(path, []byte("delegation?\n")); err != nil {
		return err
	}
	for range 3 { // servers delegate a file that is opened again and again
		f, err := c.FS.Open(path)
		if err != nil {
			return fmt.Errorf("open %s: %w", path, err)
		}
		if err := f.Close(); err != nil {
			return fmt.Errorf("close %s: %w", path, err)
		}
	}
	if err := c.FS.Rename(path, path+"r"); err != nil {
		return fmt.Errorf("rename %s: %w", path, err)
	}
	if err := c.FS.Unlink(path + "r"); err != nil {
		return fmt.Errorf("unlink %s: %w", path, err)
	}
	s, err := readMountstats(c.Mountstats, c.mount.point)
	switch {
	case err != nil || len(s.calls) == 0:
		c.warn("leases", "the kernel's counts of this mount cannot be read", "whether the server hands out delegations is not known", "")
	case s.calls["DELEGRETURN"] > c.before.calls["DELEGRETURN"]:
		c.warn("leases", "the file server hands out delegations", "a host that dies with one makes others wait for its lease when they copy or remove that message",
			"on the file server: sysctl fs.leases-enable=0")
	default:
		c.pass("leases", "no delegations are handed out")
	}
	switch {
	case s.lease > longLease:
		c.warn("leases", fmt.Sprintf("lease time %d s", s.lease), "after a restart of the file server everything stands still for that long",
			"on the file server, before nfsd starts: lease-time=10 and grace-time=10 in the section [nfsd] of /etc/nfs.conf")
	case s.lease > 0:
		c.pass("leases", fmt.Sprintf("lease time %d s", s.lease))
	}
	return c.checkExports()
}

func (c *check) checkExports() error {
	files := slices.Clone(c.Exports)
	if len(files) == 0 {
		address, _ := c.mount.value("addr")
		if !c.Local(address) {
			return nil
		}
		files = append(files, "/etc/exports")
		more, _ := filepath.Glob("/etc/exports.d/*.exports") // the pattern is a good one
		files = append(files, more...)
	}
	found := false
	for _, file := range files {
		text, err := readBounded(file)
		if err != nil {
			if len(c.Exports) > 0 {
				return fmt.Errorf("export file: %w", err)
			}
			continue
		}
		for _, e := range parseExports(text) {
			if !exports(e.path, c.mount.source) {
				continue
			}
			found = true
			c.checkExport(file, e)
		}
	}
	if !found && len(c.Exports) > 0 {
		c.warn("export", fmt.Sprintf("no entry for %s in %s", c.mount.source, strings.Join(files, ", ")), "how it is exported is not known", "name the export file of the server of this mount")
	}
	return nil
}

// export is one client of an entry of /etc/exports (exports(5)).
type export struct {
	path, client string
	options      []string
}

// parseExports reads lines of the form
//
//	path [-default,options] client(option,option) client ...
//
// with # comments, \ before a line's end, and paths in quotes or with \ooo.
func parseExports(text string) []export {
	var out []export
	text = strings.ReplaceAll(text, "\\\n", " ")
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(line, "#")
		line = strings.TrimSpace(line)
		var path string
		if rest, quoted := strings.CutPrefix(line, `"`); quoted {
			path, line, _ = strings.Cut(rest, `"`)
		} else if i := strings.IndexAny(line, " \t"); i > 0 {
			path, line = line[:i], line[i:]
		} else {
			path, line = line, ""
		}
		if !strings.HasPrefix(path, "/") {
			continue
		}
		var common []string
		clients := 0
		for _, f := range strings.Fields(line) {
			if o, ok := strings.CutPrefix(f, "-"); ok {
				common = strings.Split(o, ",")
				continue
			}
			name, o, _ := strings.Cut(f, "(")
			e := export{path: unescape(path), client: name, options: slices.Clone(common)}
			if o = strings.TrimSuffix(o, ")"); o != "" {
				e.options = append(e.options, strings.Split(o, ",")...)
			}
			out = append(out, e)
			clients++
		}
		if clients == 0 {
			out = append(out, export{path: unescape(path), client: "*", options: common})
		}
	}
	return out
}

// exports tells whether an exported path may be what a source of a mount names. With NFSv4 the source is relative to the
// pseudo root, which may lie anywhere: so "/" is what any path may be.
func exports(path, source string) bool {
	at := source
	if i := strings.LastIndex(source, ":/"); i >= 0 {
		at = source[i+1:]
	}
	return at == "/" || path == at || within(at, path) || strings.HasSuffix(path, at)
}

func (c *check) checkExport(file string, e export) {
	where := fmt.Sprintf("%s: %s %s", file, e.path, e.client)
	last := "sync" // the default of every version that is around
	for _, o := range e.options {
		if o == "sync" || o == "async" {
			last = o
		}
	}
	if last == "async" {
		c.fail("export", where+" has async", "the server says that mail is stored before it is: when it crashes, mail that was acknowledged is gone",
			"write sync instead of async, then exportfs -ra")
		return
	}
	if slices.Contains(e.options, "ro") && !slices.Contains(e.options, "rw") {
		c.fail("export", where+" is ro", "no mail can be written", "write rw, then exportfs -ra")
		return
	}
	if slices.Contains(e.options, "no_root_squash") {
		c.warn("export", where+" has no_root_squash", "root of each client may do everything with all mail", "leave it out, and let the service run as a user of its own; adopting a Maildir tree needs it for a while")
		return
	}
	c.pass("export", where+": sync")
}
