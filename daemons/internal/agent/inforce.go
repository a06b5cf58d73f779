package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"shoal/daemons/internal/mailstore"
	"shoal/daemons/internal/vfs"
)

// inForce asks exportfs which clients may use which folder, and how: "10.1.2.0/24 rw root_squash" by path.
func (x *exporter) inForce(ctx context.Context) (map[string][]string, error) {
	ctx, cancel := context.WithTimeout(ctx, x.conf.Timeout)
	defer cancel()
	out, err := exec.CommandContext(ctx, x.conf.Program, "-s").Output()
	if err != nil {
		return nil, fmt.Errorf("exportfs does not say what is in force: %w", err)
	}
	return parseInForce(string(out)), nil
}

// parseInForce reads lines of a path, in which what is no plain character is written as in fstab(5), and a client with its options:
//
//	/srv/shoal/vol01  10.1.2.0/24(sync,wdelay,hide,no_subtree_check,sec=sys,rw,secure,root_squash,no_all_squash)
func parseInForce(text string) map[string][]string {
	all := map[string][]string{}
	for _, l := range strings.Split(text, "\n") {
		path, rest, _ := strings.Cut(strings.TrimSpace(l), " ")
		client, options, ok := strings.Cut(strings.TrimSuffix(strings.TrimSpace(rest), ")"), "(")
		if !ok {
			continue
		}
		o := strings.Split(options, ",")
		access, squash := "ro", "no_root_squash"
		if slices.Contains(o, "rw") {
			access = "rw"
		}
		if slices.Contains(o, "root_squash") {
			squash = "root_squash"
		}
		if slices.Contains(o, "all_squash") {
			squash = "all_squash"
		}
		path = unescape(path)
		all[path] = append(all[path], client+" "+access+" "+squash)
	}
	for _, clients := range all {
		slices.Sort(clients)
	}
	return all
}

// unescape undoes the octal writing of fstab(5).
func unescape(s string) string {
	for _, c := range []string{" ", "\t", "\n", `\`} {
		s = strings.ReplaceAll(s, fmt.Sprintf(`\%03o`, c[0]), c)
	}
	return s
}

// view is a volume as it was asked for, with what is otherwise now.
func (x *exporter) view(v *Volume, force map[string][]string, problem error) Volume {
	out := *v
	out.Path = x.path(v)
	var st unix.Statfs_t
	if err := unix.Statfs(out.Path, &st); err != nil {
		out.Drift = "its folder cannot be read: " + err.Error()
		return out
	}
	out.Size, out.Free = int64(st.Blocks)*st.Bsize, int64(st.Bavail)*st.Bsize
	if v.Kind == "mail" {
		switch id, err := mailstore.VolumeID(vfs.OS(), out.Path); {
		case err != nil:
			out.Drift = "its marker file cannot be read: " + err.Error()
			return out
		case id != v.ID:
			out.Drift = "its marker file is that of another volume, " + id
			return out
		}
	}
	if problem != nil {
		out.Drift = problem.Error()
		return out
	}
	want := []string{}
	if v.Policy != "" {
		grants, err := x.policies[v.Policy].grants()
		if err != nil {
			out.Drift = err.Error()
			return out
		}
		for _, g := range grants {
			squash := "root_squash"
			if g.rule.Squash == "all" {
				squash = "all_squash"
			}
			want = append(want, g.client.String()+" "+g.rule.Access+" "+squash)
		}
		slices.Sort(want)
	}
	if have := force[out.Path]; !slices.Equal(have, want) {
		out.Drift = fmt.Sprintf("exported to %s, and not to %s", orElse(strings.Join(have, ", "), "nobody"), orElse(strings.Join(want, ", "), "nobody"))
	}
	return out
}

// stillThere refuses to make a volume anew that was there: an empty one in its place, with its id, would look to boxes as if all mail
// were gone. Most likely its file system is not mounted.
func (x *exporter) stillThere(v *Volume) error {
	_, err := os.Stat(filepath.Join(x.path(v), map[string]string{"mail": "shoal-volume", "queue": "shoal-queue"}[v.Kind]))
	if errors.Is(err, fs.ErrNotExist) {
		return conflict("volume %s was made before, and %s is gone: is its file system mounted? If the data is lost, delete the volume with data=keep and make it again", v.Name, x.path(v))
	}
	return err
}
