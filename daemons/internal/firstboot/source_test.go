package firstboot

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// disk makes a file of a size and lets a program write a file system into it.
func disk(t *testing.T, size int64, program string, args ...string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(file, size); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(program, append(args, file)...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", program, err, out)
	}
	return file
}

func TestLabels(t *testing.T) {
	if label, kind := readLabel(disk(t, 8<<20, "/sbin/mkfs.ext4", "-q", "-L", "shoal-data")); label != "shoal-data" || kind != "ext4" {
		t.Errorf("ext4: %q %q", label, kind)
	}
	if label, kind := readLabel(disk(t, 400<<20, "/sbin/mkfs.xfs", "-q", "-L", "shoal-data")); label != "shoal-data" || kind != "xfs" {
		t.Errorf("XFS: %q %q", label, kind)
	}
	if label, kind := readLabel(disk(t, 1<<20, "true")); label != "" || kind != "" {
		t.Errorf("blank: %q %q", label, kind)
	}
	iso := make([]byte, 34<<10)
	copy(iso[32768:], "\x01CD001")
	copy(iso[32768+40:], "cidata                          ")
	if label, kind := parseLabel(iso); label != "cidata" || kind != "iso9660" {
		t.Errorf("ISO 9660: %q %q", label, kind)
	}
}

// A disk is formatted if it is blank and was made for it, and in no other case.
func TestBlankDataDisk(t *testing.T) {
	m := newMachine(t, "box")
	m.put(t, "/sys/block/vdb/serial", "shoal-data\n")
	m.put(t, "/sys/class/block/vdb", "")
	m.put(t, "/dev/vdb", strings.Repeat("\x00", 2<<20))
	if err := m.mountData(false); err != nil {
		t.Fatal(err)
	}
	wantParts(t, strings.Join(m.ran, "\n"), "mkfs.ext4 -q -L shoal-data /dev/vdb", "mount -t ext4 ")
	m.ran = nil
	m.put(t, "/dev/vdb", "\x00\x00something"+strings.Repeat("\x00", 2<<20))
	if err := m.mountData(false); err == nil || !strings.Contains(err.Error(), "holds something") {
		t.Errorf("%v", err)
	}
	m.put(t, "/sys/block/vdb/serial", "other\n")
	if err := m.mountData(false); err != nil {
		t.Error(err)
	}
	if all := strings.Join(m.ran, "\n"); strings.Contains(all, "mkfs") {
		t.Errorf("formatted: %s", all)
	}
}

const mountinfo = `22 1 0:1 / / rw - ext4 /dev/vda2 rw
30 22 0:2 / /srv/shoal/vol01 rw,relatime shared:1 - nfs4 storage1:/vol01 rw,vers=4.2,hard,proto=tcp,lookupcache=pos
31 22 0:3 / /srv/shoal/soft rw - nfs4 storage1:/vol rw,vers=4.2,soft,lookupcache=pos
32 22 0:4 / /srv/shoal/all rw - nfs4 storage1:/vol rw,vers=4.2,hard
33 22 0:5 / /srv/shoal/old rw - nfs storage1:/vol rw,vers=3,hard,lookupcache=pos
`

func TestCheckMounts(t *testing.T) {
	m := newMachine(t, "box")
	m.put(t, "/proc/self/mountinfo", mountinfo)
	if err := m.CheckMounts([]string{"/srv/shoal/vol01", "/srv/shoal/vol01/a", "/home"}); err != nil {
		t.Error(err)
	}
	err := m.CheckMounts([]string{"/srv/shoal/soft", "/srv/shoal/all", "/srv/shoal/old", "/srv/shoal/vol01"})
	if err == nil || strings.Count(err.Error(), "\n") != 2 {
		t.Fatalf("%v", err)
	}
	wantParts(t, err.Error(), "soft is mounted without hard", "all is mounted without lookupcache=positive", "old is mounted without vers=4.2")
}

func TestNetwork(t *testing.T) {
	files, resolv, err := ParseNetwork([]byte(`
network:
  version: 2
  ethernets:
    lan: {match: {macaddress: "52:54:00:00:00:01"}, addresses: [192.0.2.5/24, "2001:db8::5/64"], gateway4: 192.0.2.1, mtu: 9000,
          routes: [{to: default, via: "2001:db8::1"}, {to: 10.0.0.0/8, via: 192.0.2.2, metric: 7}], nameservers: {addresses: [192.0.2.53], search: [example.test]}}
    eth1: {dhcp4: true, dhcp6: true, optional: true}
`))
	if err != nil {
		t.Fatal(err)
	}
	wantParts(t, files["11-seed.network"], "MACAddress=52:54:00:00:00:01\n", "Address=2001:db8::5/64\n", "Destination=::/0\nGateway=2001:db8::1\n", "Metric=7\n", "MTUBytes=9000\n", "DHCP=no\n")
	wantParts(t, files["10-seed.network"], "Name=eth1\n", "DHCP=yes\n", "RequiredForOnline=no\n")
	if resolv != "# Written by first boot: changes are lost.\nnameserver 192.0.2.53\nsearch example.test\n" {
		t.Errorf("%q", resolv)
	}
	for text, want := range map[string]string{
		"version: 1\nconfig: []\n":                                           "there is no key config",
		"version: 2\nethernets: {eth0: {addresses: [192.0.2.5]}}\n":          "address/length",
		"version: 2\nethernets: {eth0: {set-name: lan0}}\n":                  "set-name",
		"version: 2\nethernets: {eth0: {routes: [{to: x, via: \"::1\"}]}}\n": "routes: to",
		"version: 2\nethernets: {\"a b\": {}}\n":                             "no name of an interface",
		"version: 2\nethernets: {e: {match: {name: \"a\\nb\"}}}\n":           "match.name",
		"version: 2\nethernets: {e: {nameservers: {search: [\"a\\nb\"]}}}":   "no domain",
		"version: 2\nbonds: {}\n":                                            "there is no key bonds",
		"version: 2\n":                                                       "ethernets",
	} {
		if _, _, err := ParseNetwork([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, wanted %q", text, err, want)
		}
	}
}

func FuzzSeed(f *testing.F) {
	f.Add([]byte(boxSeed))
	f.Add([]byte("#cloud-config\n{\"hostname\": \"a\", \"shoal\": {\"role\": \"lb\", \"lb\": {\"vrrp\": [{\"id\": 1}]}}}"))
	f.Add([]byte("#cloud-config\nshoal: [1"))
	f.Fuzz(func(t *testing.T, text []byte) {
		u, err := ParseUserData(text)
		if err != nil || u.Shoal == nil || u.Shoal.Check() != nil {
			return
		}
		// What is taken goes into units and shell files: it has no line ends.
		for _, v := range append(u.Shoal.Box.Volumes, Volume{Name: u.Shoal.Name}) {
			if strings.ContainsAny(v.Name+v.ID+v.Source+v.Options, "\n'\"\\ ") {
				t.Errorf("taken: %q", v)
			}
		}
	})
}

func FuzzNetwork(f *testing.F) {
	f.Add([]byte("version: 2\nethernets: {eth0: {dhcp4: true, addresses: [192.0.2.1/24], routes: [{to: default, via: 192.0.2.2}]}}"))
	f.Add([]byte("network: {version: 2}"))
	f.Fuzz(func(t *testing.T, text []byte) {
		files, _, err := ParseNetwork(text)
		if err != nil {
			return
		}
		for name, unit := range files {
			for line := range strings.Lines(unit) {
				if line = strings.TrimSpace(line); line != "" && line[0] != '#' && line[0] != '[' && !strings.Contains(line, "=") {
					t.Errorf("%s: line %q", name, line)
				}
			}
		}
	})
}

func FuzzLabel(f *testing.F) {
	f.Add([]byte("XFSB"))
	f.Add(bytes.Repeat([]byte("\x53\xef"), 700))
	f.Fuzz(func(t *testing.T, b []byte) {
		if label, kind := parseLabel(b); kind == "" && label != "" {
			t.Errorf("%q of nothing", label)
		}
	})
}

func FuzzMountinfo(f *testing.F) {
	f.Add(mountinfo, "/srv/shoal/soft")
	f.Fuzz(func(t *testing.T, text, folder string) {
		if err := checkMount(text, folder); err != nil && !strings.Contains(text, "nfs") {
			t.Error(err)
		}
	})
}
