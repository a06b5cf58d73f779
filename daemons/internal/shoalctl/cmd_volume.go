package shoalctl

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"shoal/daemons/internal/clock"
	"shoal/daemons/internal/dirclient"
	"shoal/daemons/internal/mailstore"
	"shoal/daemons/internal/vfs"
)

func (t *tool) cmdVolume() *cobra.Command {
	return group("volume", "List, add, drain and close the volumes that mail lies on",
		t.cmdVolumeList(), t.cmdVolumeAdd(), t.cmdVolumeDrain(), t.cmdVolumeState("activate", dirclient.VolumeActive), t.cmdVolumeState("close", dirclient.VolumeClosed))
}

// volumeView is a volume as shown.
type volumeView struct {
	Name       string   `json:"name"`
	ID         string   `json:"id"`
	State      string   `json:"state"`
	Accounts   int      `json:"accounts"`
	Bytes      uint64   `json:"bytes,omitempty"`
	Free       uint64   `json:"bytes_free,omitempty"`
	Inodes     uint64   `json:"inodes,omitempty"`
	InodesFree uint64   `json:"inodes_free,omitempty"`
	Boxes      []string `json:"boxes"`   // that serve it
	Missing    []string `json:"missing"` // boxes that do not, and why
}

// accountsByVolume counts the accounts, or lists those of one volume.
func accountsByVolume(ctx context.Context, a *dirclient.Admin) (map[string][]*dirclient.Account, error) {
	all := map[string][]*dirclient.Account{}
	err := a.Accounts(ctx, "", func(acc *dirclient.Account) error {
		all[acc.Volume] = append(all[acc.Volume], acc)
		return nil
	})
	return all, err
}

func (t *tool) cmdVolumeList() *cobra.Command {
	return &cobra.Command{
		Use:     "list",
		Short:   "List the volumes: state, accounts, space, inodes, and the boxes that serve them",
		Example: "  shoalctl volume list",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx := cmd.Context()
			c, err := t.load()
			if err != nil {
				return err
			}
			return t.withAdmin(ctx, func(a *dirclient.Admin) error {
				k, err := c.control()
				if err != nil {
					return err
				}
				defer k.close()
				volumes, err := a.Volumes(ctx)
				if err != nil {
					return err
				}
				accounts, err := accountsByVolume(ctx, a)
				if err != nil {
					return err
				}
				boxes, silent, err := t.boxes(ctx, a, k)
				if err != nil {
					return err
				}
				views := []volumeView{}
				for _, v := range volumes {
					view := volumeView{Name: v.Name, ID: v.ID, State: v.State, Accounts: len(accounts[v.Name]), Boxes: []string{}, Missing: []string{}}
					for name, b := range boxes {
						if b.Volumes[v.Name] != "ok" {
							why := b.Volumes[v.Name]
							if why == "" {
								why = "does not serve it"
							}
							view.Missing = append(view.Missing, name+": "+printable(why))
							continue
						}
						view.Boxes = append(view.Boxes, name)
						if u, ok := b.Use[v.Name]; ok {
							view.Bytes, view.Free, view.Inodes, view.InodesFree = u.Bytes, u.Free, u.Inodes, u.InodesFree
						}
					}
					for _, s := range silent {
						view.Missing = append(view.Missing, s.Server+": does not answer")
					}
					slices.Sort(view.Boxes)
					slices.Sort(view.Missing)
					views = append(views, view)
				}
				return t.show(views, func() {
					rows := make([][]string, len(views))
					for i, v := range views {
						free, inodes := "", ""
						if v.Bytes > 0 {
							free = fmt.Sprintf("%s of %s", bytesText(int64(v.Free)), bytesText(int64(v.Bytes)))
						}
						if v.Inodes > 0 {
							inodes = fmt.Sprintf("%d%%", 100*v.InodesFree/v.Inodes)
						}
						rows[i] = []string{v.Name, v.State, fmt.Sprint(v.Accounts), free, inodes, strings.Join(v.Boxes, " "), strings.Join(v.Missing, "; ")}
					}
					t.table([]string{"VOLUME", "STATE", "ACCOUNTS", "FREE", "INODES FREE", "BOXES", "NOT SERVED BY"}, rows)
				})
			})
		},
	}
}

// servedWithin is how long volume add waits for the boxes.
const servedWithin = 10 * time.Second

func (t *tool) cmdVolumeAdd() *cobra.Command {
	var path string
	cmd := &cobra.Command{
		Use:   "add NAME --path FOLDER",
		Short: "Make a mounted folder a volume and put it into the directory",
		Long: `Make a folder, usually the root of a mounted file system, a volume: it gets a marker file with an id, and
the directory an entry. A folder that is a volume already keeps its id, so the command can be repeated.

Boxes take a new volume up while they run: within seconds when it is mounted below their volume_folder under
its name; otherwise add a volume block to their configuration and reload them (SIGHUP). The command waits
a moment and says which boxes do not serve it yet. In a service that make up started, --path may be left out.`,
		Example: `  shoalctl volume add vol02 --path /srv/shoal/vol02`,
		Args:    exactArgs("the name"),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, name := cmd.Context(), args[0]
			if err := dirclient.CheckVolumeName(name); err != nil {
				return usageError{err}
			}
			if path == "" {
				folder := t.volumesFolder()
				if folder == "" {
					return usageError{errors.New("volume add needs --path FOLDER")}
				}
				path = filepath.Join(folder, name)
				if err := os.Mkdir(path, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
					return err
				}
			}
			path, err := filepath.Abs(path)
			if err != nil {
				return err
			}
			c, err := t.load()
			if err != nil {
				return err
			}
			return t.withAdmin(ctx, func(a *dirclient.Admin) error {
				k, err := c.control()
				if err != nil {
					return err
				}
				defer k.close()
				id, err := t.makeVolume(ctx, a, name, path)
				if err != nil {
					return err
				}
				var missing []string
				for waited := clock.System().Boot(); ; {
					if missing, err = t.boxesWithout(ctx, a, k, name); err != nil {
						return err
					}
					if len(missing) == 0 || clock.System().Boot()-waited > servedWithin {
						break
					}
					if err := clock.Sleep(ctx, clock.System(), 200*time.Millisecond); err != nil {
						return err
					}
				}
				return t.show(map[string]any{"name": name, "id": id, "path": path, "missing": missing}, func() {
					t.say("volume %s added, id %s", name, id)
					for _, m := range missing {
						t.say("  %s: mount it below its volume_folder, or add a volume block and reload boxd", printable(m))
					}
				})
			})
		},
	}
	cmd.Flags().StringVar(&path, "path", "", "the folder")
	return cmd
}

// volumesFolder is where volumes lie in a service that shoalctl up started here.
func (t *tool) volumesFolder() string {
	for _, data := range t.dataFolders() {
		folder := filepath.Join(data, "volumes")
		if st, err := os.Stat(folder); err == nil && st.IsDir() {
			return folder
		}
	}
	return ""
}

// makeVolume makes the marker and the entry.
func (t *tool) makeVolume(ctx context.Context, a *dirclient.Admin, name, path string) (id string, err error) {
	volumes, err := a.Volumes(ctx)
	if err != nil {
		return "", err
	}
	i := slices.IndexFunc(volumes, func(v dirclient.Volume) bool { return v.Name == name })
	if err := becomeOwner([]mount{{name: name, path: path}}); err != nil {
		return "", err
	}
	id, err = mailstore.VolumeID(vfs.OS(), path)
	switch {
	case errors.Is(err, mailstore.ErrNotVolume):
		if i >= 0 {
			return "", fmt.Errorf("%w: the directory lists volume %s already, with id %s, but %s is none: is it mounted?", dirclient.ErrExists, name, volumes[i].ID, path)
		}
		// What else lies there is somebody's.
		entries, err := os.ReadDir(path)
		if err != nil {
			return "", err
		}
		for _, e := range entries {
			if e.Name() != "lost+found" {
				return "", fmt.Errorf("%s is not empty (%s): name an empty folder, or a volume", path, printable(e.Name()))
			}
		}
		if id, err = newVolumeID(); err != nil {
			return "", err
		}
		if err := mailstore.InitVolume(vfs.OS(), path, id); err != nil {
			return "", err
		}
	case err != nil:
		return "", err
	}
	if i >= 0 {
		if volumes[i].ID != id {
			return "", fmt.Errorf("%w: the directory lists volume %s with id %s, %s is volume %s", dirclient.ErrExists, name, volumes[i].ID, path, id)
		}
		return id, nil
	}
	for _, v := range volumes {
		if v.ID == id {
			return "", fmt.Errorf("%w: %s is volume %s", dirclient.ErrExists, path, v.Name)
		}
	}
	return id, a.AddVolume(ctx, dirclient.NewVolume{Name: name, ID: id})
}

// newVolumeID is a random UUID (RFC 9562 §5.4).
func newVolumeID() (string, error) {
	var b [16]byte
	if _, err := rand.Read(b[:]); err != nil {
		return "", err
	}
	b[6] = b[6]&0x0f | 0x40
	b[8] = b[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:]), nil
}

func (t *tool) cmdVolumeState(verb, state string) *cobra.Command {
	short := "Let a volume take accounts again"
	long := short + ", after drain or close."
	if state == dirclient.VolumeClosed {
		short = "Close a volume that has no accounts any more"
		long = short + `: boxes open it no more. It can be unmounted when
what it kept for the retention is not wanted any more.`
	}
	return &cobra.Command{
		Use: verb + " NAME", Short: short, Long: long, Example: "  shoalctl volume " + verb + " vol01", Args: exactArgs("the name"),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			return t.withChange(ctx, func(a *dirclient.Admin) error {
				if state == dirclient.VolumeClosed {
					accounts, err := accountsByVolume(ctx, a)
					if err != nil {
						return err
					}
					if n := len(accounts[args[0]]); n > 0 {
						return fmt.Errorf("%d accounts lie on volume %s, %s for one: shoalctl volume drain %s moves them away", n, args[0], accounts[args[0]][0].Address, args[0])
					}
				}
				if err := a.SetVolumeState(ctx, args[0], state); err != nil {
					return err
				}
				return t.show(map[string]string{"name": args[0], "state": state}, func() { t.say("volume %s is %s", args[0], state) })
			})
		},
	}
}

// drainView is the answer of volume drain.
type drainView struct {
	Volume string      `json:"volume"`
	Moved  []*moveView `json:"moved"`
	Failed []*moveView `json:"failed"`
	// Defaults are domains whose new accounts would still come here.
	Defaults []string `json:"default_of_domains"`
}

func (t *tool) cmdVolumeDrain() *cobra.Command {
	var f storeFlags
	var targets []string
	var atOnce int
	var force bool
	cmd := &cobra.Command{
		Use:   "drain NAME",
		Short: "Move all accounts of a volume to others, while they are in use",
		Long: `Move all accounts of a volume to others, while they are in use: the volume's state becomes draining, so that
it gets no new accounts, and its accounts move one after the other (account move --help), to the active volumes with
the most free space or those given with --to. When it was interrupted, or accounts could not be moved, the same command
goes on.`,
		Example: `  shoalctl volume drain vol01
  shoalctl volume drain vol01 --to vol02 --to vol03 --parallel 8`,
		Args: exactArgs("the name"),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, name := cmd.Context(), args[0]
			return t.withStore(ctx, f, nil, func(a *dirclient.Admin, s *localStore) error {
				if _, ok := s.mount(name); !ok {
					return fmt.Errorf("volume %s: %w", name, errNotHere)
				}
				if len(targets) == 0 {
					volumes, err := a.Volumes(ctx)
					if err != nil {
						return err
					}
					for _, v := range volumes {
						if _, here := s.mount(v.Name); here && v.Name != name && v.State == dirclient.VolumeActive {
							targets = append(targets, v.Name)
						}
					}
				}
				if len(targets) == 0 || slices.Contains(targets, name) {
					return errors.New("there is no other active volume here to move the accounts to: shoalctl volume add")
				}
				for _, to := range targets {
					if err := t.readyToMove(ctx, a, s, to, force); err != nil {
						return err
					}
				}
				if err := a.SetVolumeState(ctx, name, dirclient.VolumeDraining); err != nil {
					return err
				}
				v, err := t.drain(ctx, a, s, name, targets, atOnce)
				if err != nil {
					return interrupted(err)
				}
				if err := t.show(v, func() {
					t.say("%d accounts moved from %s", len(v.Moved), name)
					for _, m := range v.Failed {
						t.say("  not moved: %s: %s", m.Address, printable(m.Problem))
					}
					for _, d := range v.Defaults {
						t.say("  %s is the default volume of domain %s: its new accounts would come here", name, d)
					}
				}); err != nil {
					return err
				}
				if len(v.Failed) > 0 {
					return foundError{fmt.Errorf("%d accounts could not be moved: the same command tries again", len(v.Failed))}
				}
				return nil
			})
		},
	}
	cmd.Flags().StringArrayVar(&targets, "to", nil, "a volume to move accounts to (default: all active ones, by free space)")
	cmd.Flags().IntVar(&atOnce, "parallel", 4, "how many accounts move at the same time")
	cmd.Flags().BoolVar(&force, "force", false, "move although boxes do not answer or do not serve a target")
	boxConfigFlag(cmd, &f)
	return cmd
}

func (t *tool) drain(ctx context.Context, a *dirclient.Admin, s *localStore, name string, targets []string, atOnce int) (*drainView, error) {
	accounts, err := accountsByVolume(ctx, a)
	if err != nil {
		return nil, err
	}
	v := &drainView{Volume: name, Moved: []*moveView{}, Failed: []*moveView{}, Defaults: []string{}}
	err = a.Domains(ctx, func(d *dirclient.Domain) error {
		if d.DefaultVolume == name {
			v.Defaults = append(v.Defaults, d.Name)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	var mu sync.Mutex // guards v, and the connection to the directory within the moves
	var wg sync.WaitGroup
	jobs := make(chan *dirclient.Account)
	tick := t.ticker()
	for range max(1, min(atOnce, 64)) {
		wg.Go(func() {
			for account := range jobs {
				// Most free space first; the moves under way are not seen in it yet, so ties and near ties alternate by themselves.
				to := s.roomiest(targets)
				m, err := t.moveAccount(ctx, a, s, account, to, &ticker{t: t, every: time.Hour, last: time.Now(), out: t.err})
				mu.Lock()
				if err != nil {
					m.Problem = err.Error()
					v.Failed = append(v.Failed, m)
				} else {
					v.Moved = append(v.Moved, m)
				}
				tick.say(map[string]any{"progress": "drain", "volume": name, "moved": len(v.Moved), "failed": len(v.Failed), "of": len(accounts[name])},
					"%s: %d of %d accounts moved, %d failed", name, len(v.Moved), len(accounts[name]), len(v.Failed))
				mu.Unlock()
			}
		})
	}
	for _, account := range accounts[name] {
		if ctx.Err() != nil {
			break
		}
		jobs <- account
	}
	close(jobs)
	wg.Wait()
	return v, ctx.Err()
}

// roomiest is the volume with the most free space.
func (s *localStore) roomiest(names []string) string {
	best, free := names[0], uint64(0)
	for _, name := range names {
		m, ok := s.mount(name)
		if !ok {
			continue
		}
		if st, err := vfs.OS().Statfs(m.path); err == nil && st.Free > free {
			best, free = name, st.Free
		}
	}
	return best
}
