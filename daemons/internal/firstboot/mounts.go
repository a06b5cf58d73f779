package firstboot

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// The options of every volume (docs/store.md, mounting): without hard a busy server loses writes, without lookupcache=positive
// a record of another box stays invisible.
const volumeOptions = "vers=4.2,hard,proto=tcp,lookupcache=positive,nosuid,nodev,noexec,noatime,retry=10080"

// More options that a seed may give: none of them weakens what the store relies on.
var allowedOption = regexp.MustCompile(`^(nconnect=([1-9]|1[0-6])|[rw]size=[0-9]{4,7}|timeo=[0-9]{2,5}|retrans=[0-9]{1,2}|sec=(sys|krb5|krb5i|krb5p)|port=[0-9]{1,5}|proto=tcp6?)$`)

// mountOptions joins the options of every volume and those of one.
func mountOptions(more string) (string, error) {
	all := strings.Split(volumeOptions, ",")
	if more == "" {
		return volumeOptions, nil
	}
	for _, o := range strings.Split(more, ",") {
		switch {
		case slices.Contains(all, o):
		case allowedOption.MatchString(o):
			if strings.HasPrefix(o, "proto=") {
				all = slices.DeleteFunc(all, func(o string) bool { return strings.HasPrefix(o, "proto=") })
			}
			all = append(all, o)
		default:
			return "", fmt.Errorf("%q is not allowed: volumes are mounted with %s, and may add nconnect, rsize, wsize, timeo, retrans, sec and port", o, volumeOptions)
		}
	}
	return strings.Join(all, ","), nil
}

// CheckMounts refuses folders that lie on NFS with options by which mail could be lost or seen late. Local file systems are
// taken as they are.
func (m *Machine) CheckMounts(folders []string) error {
	b, err := readBounded(m.path("/proc/self/mountinfo"))
	if err != nil {
		return err
	}
	var wrong []error
	for _, folder := range folders {
		if err := checkMount(string(b), folder); err != nil {
			wrong = append(wrong, err)
		}
	}
	return errors.Join(wrong...)
}

// checkMount looks for a folder in the text of mountinfo: "id parent major:minor root POINT options [fields] - TYPE source
// SUPEROPTIONS" (proc_pid_mountinfo(5)). The last mount over a point is the one that counts.
func checkMount(mountinfo, folder string) error {
	best, fs, options := "", "", ""
	for line := range strings.Lines(mountinfo) {
		before, after, ok := strings.Cut(strings.TrimSpace(line), " - ")
		f, g := strings.Fields(before), strings.Fields(after)
		if !ok || len(f) < 6 || len(g) < 3 {
			continue
		}
		point := strings.NewReplacer(`\040`, " ", `\011`, "\t", `\134`, `\`).Replace(f[4])
		if under := folder == point || strings.HasPrefix(folder, strings.TrimSuffix(point, "/")+"/"); under && len(point) >= len(best) {
			best, fs, options = point, g[0], g[2]
		}
	}
	if !strings.HasPrefix(fs, "nfs") {
		return nil
	}
	have := strings.Split(options, ",")
	for _, want := range [][]string{{"vers=4.2"}, {"hard"}, {"lookupcache=positive", "lookupcache=pos"}} {
		if !slices.ContainsFunc(want, func(o string) bool { return slices.Contains(have, o) }) {
			return fmt.Errorf("%s is mounted without %s: unmount it, and mount it with vers=4.2,hard,lookupcache=positive", folder, want[0])
		}
	}
	return nil
}

// mountUnit is the unit of a volume at /srv/shoal/<name>. The mount waits for its server for as long as it takes: a box
// without its volume must not serve, and needs nobody when the volume is back.
func mountUnit(v Volume) (name, text string, err error) {
	options, err := mountOptions(v.Options)
	if err != nil {
		return "", "", err
	}
	// systemd.unit(5): / becomes -, and a hyphen its code.
	name = "srv-shoal-" + strings.ReplaceAll(v.Name, "-", `\x2d`) + ".mount"
	return name, fmt.Sprintf(`# Written by first boot: changes are lost.
[Unit]
Description=Volume %[1]s
Wants=network-online.target
After=network-online.target

[Mount]
What=%[2]s
Where=/srv/shoal/%[1]s
Type=nfs4
Options=%[3]s,_netdev
TimeoutSec=infinity
`, v.Name, v.Source, options), nil
}
