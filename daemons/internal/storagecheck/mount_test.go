package storagecheck

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"shoal/daemons/internal/vfs"
)

func TestMountOptions(t *testing.T) {
	nfs := func(options string) string {
		return "30 1 0:25 / /vol rw - nfs4 10.0.0.9:/ " + options + "\n"
	}
	for _, c := range []struct {
		mountinfo string
		verdict   Verdict
		words     string
	}{
		{rightMount, Pass, "lookupcache=positive"},
		{nfs("rw,vers=4.2,hard,proto=tcp"), Fail, "lookupcache=positive is missing"},
		{nfs("rw,vers=4.2,soft,proto=tcp,lookupcache=pos"), Fail, "hard is missing"},
		{nfs("rw,vers=4.2,softerr,proto=tcp,lookupcache=pos"), Fail, "hard is missing"},
		{nfs("rw,vers=3,hard,proto=tcp,lookupcache=pos"), Fail, "vers=4.2 is missing"},
		{nfs("rw,vers=4.1,hard,proto=tcp,lookupcache=pos"), Warn, "vers=4.2"},
		{nfs("rw,vers=4.2,hard,proto=udp,lookupcache=pos"), Fail, "proto=tcp is missing"},
		{nfs("rw,vers=4.2,hard,proto=rdma,lookupcache=pos"), Pass, ""},
		{nfs("rw,vers=4.2,hard,proto=tcp,lookupcache=none"), Warn, "lookupcache=none"},
		{nfs("rw,vers=4.2,hard,proto=tcp,lookupcache=pos,nocto"), Fail, "cto is missing"},
		{nfs("rw,vers=4.2,hard,proto=tcp,lookupcache=pos,noac"), Warn, "noac"},
		{"30 1 8:1 / /vol rw - ext4 /dev/sda1 rw\n", Pass, "local"},
		{"30 1 8:1 / /vol rw - ext4 /dev/sda1 rw,nobarrier\n", Fail, "power cut"},
		{"30 1 8:1 / /vol rw - ext4 /dev/sda1 rw,data=writeback\n", Warn, "data=writeback"},
		{"30 1 8:1 / / rw - xfs /dev/sda1 rw\n31 30 0:3 / /vol rw - tmpfs tmpfs rw\n", Fail, "memory"},
		{"30 1 8:1 / /vol rw - vfat /dev/sda1 rw\n", Fail, "vfat"},
		{"30 1 8:1 / /vol rw - btrfs /dev/sda1 rw\n", Warn, "btrfs"},
		{"30 1 8:1 / /volume rw - ext4 /dev/sda1 rw\n", Warn, "no line"},
		{"garbage\n", Warn, "no line"},
	} {
		x := &check{Options: options(t, nil, c.mountinfo)}
		x.checkMount()
		worst := Pass
		text := ""
		for _, f := range x.report.Findings {
			text += f.What + " " + f.Means + " " + f.Do + "\n"
			if f.Verdict.rank() > worst.rank() {
				worst = f.Verdict
			}
		}
		if worst != c.verdict || !strings.Contains(text, c.words) {
			t.Errorf("%s: %s, want %s with %q:\n%s", c.mountinfo, worst, c.verdict, c.words, text)
		}
		if worst == Fail && strings.Contains(c.mountinfo, "nfs4") && !strings.Contains(text, Right) {
			t.Errorf("%s: what to write instead is not said:\n%s", c.mountinfo, text)
		}
	}
}

func TestMountinfo(t *testing.T) {
	const text = "1 0 8:1 / / rw - ext4 /dev/sda1 rw\n" +
		"2 1 8:2 / /srv rw - xfs /dev/sdb rw\n" +
		"3 2 0:9 / /srv/my\\040mail rw - nfs4 h:/a\\040b rw,hard\n" +
		"4 1 8:3 / /srv rw - ext4 /dev/sdc rw\n"
	for path, want := range map[string]string{"/srv/my mail/x": "nfs4", "/srv/x": "ext4", "/srvx": "ext4", "/": "ext4"} {
		m := parseMountinfo(text, path)
		if m == nil || m.kind != want {
			t.Errorf("%s: %+v, want %s", path, m, want)
		}
	}
	if m := parseMountinfo(text, "/srv/my mail"); m.point != "/srv/my mail" || m.source != "h:/a b" || !m.has("hard") {
		t.Errorf("%+v", m)
	}
	if m := parseMountinfo(text, "/srv/x"); m.source != "/dev/sdc" {
		t.Errorf("the later mount covers the earlier: %+v", m)
	}
}

func TestExports(t *testing.T) {
	got := parseExports("# comment\n/srv/mail 10.0.0.0/24(rw,sync) box3(rw,async) # more\n" +
		"\"/srv/with blank\" -rw,async \\\n  *\n/srv/oct\\040al *(rw)\n/plain\nnot a path\n")
	want := []export{
		{"/srv/mail", "10.0.0.0/24", []string{"rw", "sync"}}, {"/srv/mail", "box3", []string{"rw", "async"}},
		{"/srv/with blank", "*", []string{"rw", "async"}}, {"/srv/oct al", "*", []string{"rw"}}, {"/plain", "*", nil},
	}
	if !slices.EqualFunc(got, want, func(a, b export) bool {
		return a.path == b.path && a.client == b.client && slices.Equal(a.options, b.options)
	}) {
		t.Errorf("%+v\nwant %+v", got, want)
	}
	for _, c := range []struct {
		text    string
		verdict Verdict
		words   string
	}{
		{"/vol01 *(rw,sync)\n", Pass, "sync"},
		{"/vol01 *(rw)\n", Pass, "sync"},
		{"/vol01 *(rw,async)\n", Fail, "has async"},
		{"/vol01 *(rw,sync,async)\n", Fail, "has async"},
		{"/srv/vol01 *(rw,async)\n", Fail, "has async"},
		{"/vol01 *(ro)\n", Fail, "is ro"},
		{"/vol01 *(rw,no_root_squash)\n", Warn, "no_root_squash"},
		{"/other *(rw,async)\n", Warn, "no entry"},
	} {
		file := filepath.Join(t.TempDir(), "exports")
		if err := os.WriteFile(file, []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		m := memory(t)
		o := options(t, m, rightMount)
		o.Exports = []string{file}
		r, err := Run(context.Background(), o)
		if err != nil {
			t.Fatal(err)
		}
		wantFinding(t, r, "export", c.verdict, c.words)
	}
	o := options(t, memory(t), rightMount)
	o.Exports = []string{"/nonexistent/exports"}
	if _, err := Run(context.Background(), o); err == nil {
		t.Error("an export file that is not there is no error")
	}
}

func TestSpace(t *testing.T) {
	for _, c := range []struct {
		s       vfs.StatFS
		verdict Verdict
		words   string
	}{
		{vfs.StatFS{Total: 1 << 40, Free: 1 << 39, Files: 1 << 30, FilesFree: 1 << 29}, Pass, "50 %"},
		{vfs.StatFS{Total: 1 << 40, Free: 1 << 36, Files: 1 << 30, FilesFree: 1 << 29}, Warn, "almost full"},
		{vfs.StatFS{Total: 1 << 40, Free: 1 << 39, Files: 1 << 20, FilesFree: 1 << 10}, Warn, "inodes"},
		{vfs.StatFS{Total: 1 << 40, Free: 0}, Fail, "expunge"},
		{vfs.StatFS{Total: 1 << 40, Free: 1 << 39}, Pass, ""},
	} {
		x := &check{stat: c.s}
		x.checkSpace()
		wantFinding(t, &x.report, "space", c.verdict, c.words)
	}
}

func TestLatency(t *testing.T) {
	const ms = time.Millisecond
	for _, c := range []struct {
		network               bool
		sync, symlink, lookup time.Duration
		check                 string
		verdict               Verdict
	}{
		{true, 2 * ms, 2 * ms, ms / 2, "latency", Pass},
		{true, ms / 2, ms / 2, ms / 2, "durability", Warn},
		{true, 2 * ms, ms / 2, ms / 2, "durability", Warn},
		{true, 100 * ms, 2 * ms, ms, "latency", Warn},
		{false, 2 * ms, ms, 0, "latency", Pass},
		{false, ms / 100, ms / 100, 0, "durability", Warn},
	} {
		x := &check{stat: vfs.StatFS{Network: c.network}}
		x.judgeLatency(c.sync, c.symlink, c.lookup)
		if finding(&x.report, c.check, c.verdict) == nil {
			t.Errorf("%+v: %+v", c, x.report.Findings)
		}
	}
}

func TestServer(t *testing.T) {
	for _, c := range []struct {
		stats   string
		verdict Verdict
		words   string
	}{
		{rightStats, Pass, "no delegations"},
		{rightStats, Pass, "lease time 10"},
		{strings.Replace(rightStats, "lease_time=10", "lease_time=90", 1), Warn, "grace-time=10"},
		{"device other mounted on /other with fstype nfs4\n", Warn, "not known"},
	} {
		o := options(t, memory(t), rightMount)
		if err := os.WriteFile(o.Mountstats, []byte(c.stats), 0o600); err != nil {
			t.Fatal(err)
		}
		r, err := Run(context.Background(), o)
		if err != nil {
			t.Fatal(err)
		}
		found := false
		for _, f := range r.Findings {
			found = found || f.Check == "leases" && f.Verdict == c.verdict && strings.Contains(f.What+f.Means+f.Do, c.words)
		}
		if !found {
			t.Errorf("no %s with %q: %+v", c.verdict, c.words, r.Findings)
		}
	}
	x := &check{Options: options(t, memory(t), rightMount), mount: &mount{point: "/vol", kind: "nfs4"}, own: "/vol"}
	x.before = mountstats{calls: map[string]int{"DELEGRETURN": -1}}
	if err := x.checkServer(context.Background()); err != nil {
		t.Fatal(err)
	}
	wantFinding(t, &x.report, "leases", Warn, "fs.leases-enable=0")
}

func FuzzMountinfo(f *testing.F) {
	f.Add(rightMount, "/vol/a")
	f.Add("1 0 8:1 / /a\\040b rw - ext4 /dev/sda1 rw\n", "/a b")
	f.Add("1 0 8:1 / /\\", "/")
	f.Fuzz(func(t *testing.T, text, path string) {
		if m := parseMountinfo(text, path); m != nil && !within(path, m.point) {
			t.Errorf("%q: mount point %q", path, m.point)
		}
	})
}

func FuzzExports(f *testing.F) {
	f.Add("/a *(rw,sync)\n\"/b c\" -rw x y(async)\n/d\\040e\n")
	f.Add("\"/unended *(rw")
	f.Add("/a (rw) \\\n b()")
	f.Fuzz(func(t *testing.T, text string) {
		for _, e := range parseExports(text) {
			if !strings.HasPrefix(e.path, "/") && !strings.Contains(text, `\`) {
				t.Errorf("path %q", e.path)
			}
		}
	})
}

func FuzzMountstats(f *testing.F) {
	f.Add(rightStats)
	f.Add("device a mounted on /vol with\n\tnfsv4: lease_time=x\n\tper-op statistics\n X: y\n")
	file := filepath.Join(f.TempDir(), "stats")
	f.Fuzz(func(t *testing.T, text string) {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := readMountstats(file, "/vol")
		if err != nil || s.calls == nil {
			t.Errorf("%+v, %v", s, err)
		}
	})
}
