package shoalctl

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"shoal/daemons/internal/dirclient"
	"shoal/daemons/internal/mailstore"
)

func jsonLine(w io.Writer, v any) error { return json.NewEncoder(w).Encode(v) }

func (t *tool) cmdStore() *cobra.Command {
	return group("store", "Check and repair what is on the volumes", t.cmdStoreVerify(), t.cmdStoreRepair(), t.cmdStoreRenumber())
}

// boxConfigFlag is for all commands that work on volumes.
func boxConfigFlag(cmd *cobra.Command, f *storeFlags) {
	cmd.Flags().StringArrayVar(&f.configs, "box-config", nil, "configuration of boxd that says where the volumes are (default: those of the data folder, or /etc/shoal/boxd.hcl)")
}

// verifyView is the answer of store verify, for one volume.
type verifyView struct {
	Volume string `json:"volume"`
	*mailstore.Report
}

// foundError ends a check that found something.
type foundError struct{ error }

// verifyState is what an unfinished check of a volume has done.
type verifyState struct {
	ID     string            `json:"id"` // of the volume
	Cursor string            `json:"cursor"`
	Report *mailstore.Report `json:"report"`
}

func (t *tool) cmdStoreVerify() *cobra.Command {
	var f storeFlags
	var quick, all bool
	var rate, resume string
	var volumes []string
	cmd := &cobra.Command{
		Use:   "verify [ACCOUNT]",
		Short: "Check mail on the volumes against itself, beside the running service",
		Long: `Check mail on the volumes against itself, beside the running service: every record and every snapshot
parses and says the same, every message has its file, of the size and with the checksum that its name
says. It also counts message files that no record names, interest of servers that are gone, and the
trash. Nothing is changed. It runs on a box, where the volumes are mounted.

Give an account, or --volume, or --all for all volumes of this machine. With --resume FILE an
interrupted check goes on where it was; the file is removed when a volume is through.

Exit codes: 0 nothing wrong; 1 something was found (store repair shows what can be done).`,
		Example: `  shoalctl store verify carol@example.test
  shoalctl store verify --all --rate 20MiB
  shoalctl store verify --volume vol01 --resume /var/tmp/vol01.check --json | jq .problems`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 1 || (len(args) == 1) == (all || len(volumes) > 0) {
				return usageError{errors.New("store verify needs either an account, --volume or --all")}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			bytes, err := rateText(rate)
			if err != nil {
				return err
			}
			id := ""
			want := volumes
			if len(args) == 1 {
				err := t.withAdmin(ctx, func(a *dirclient.Admin) error {
					account, err := a.Account(ctx, args[0])
					if err == nil {
						id, want = account.ID, []string{account.Volume}
					}
					return err
				})
				if err != nil {
					return err
				}
			}
			return t.withStore(ctx, f, want, func(_ *dirclient.Admin, s *localStore) error {
				views := []verifyView{}
				found := 0
				for _, m := range s.mounts {
					r, err := t.verifyVolume(cmd, s, m, mailstore.VerifyOptions{Content: !quick, Rate: bytes, Account: id}, resume)
					if err != nil {
						return interrupted(fmt.Errorf("volume %s: %w", m.name, err))
					}
					views = append(views, verifyView{m.name, r})
					found += len(r.Problems)
				}
				if err := t.show(views, func() { t.printVerify(views) }); err != nil {
					return err
				}
				if found > 0 {
					return foundError{fmt.Errorf("%d problems: shoalctl store repair shows what can be done", found)}
				}
				return nil
			})
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "all volumes of this machine")
	cmd.Flags().StringArrayVar(&volumes, "volume", nil, "this volume")
	cmd.Flags().BoolVar(&quick, "quick", false, "do not read the messages, only look whether their files are there and of the right size")
	cmd.Flags().StringVar(&rate, "rate", "", "read at most so much a second, for example 20MiB (default: no limit)")
	cmd.Flags().StringVar(&resume, "resume", "", "file that keeps how far the check is, and where it goes on")
	boxConfigFlag(cmd, &f)
	return cmd
}

// verifyVolume checks one volume and keeps in a file how far it is.
func (t *tool) verifyVolume(cmd *cobra.Command, s *localStore, m mount, o mailstore.VerifyOptions, file string) (*mailstore.Report, error) {
	state := verifyState{ID: m.id}
	if file != "" && len(s.mounts) > 1 {
		file += "." + m.name
	}
	if file != "" {
		text, err := os.ReadFile(file)
		switch {
		case errors.Is(err, os.ErrNotExist):
		case err != nil:
			return nil, err
		default:
			if err := json.Unmarshal(text, &state); err != nil || state.ID != m.id {
				return nil, fmt.Errorf("%s does not belong to a check of this volume: remove it to begin anew", file)
			}
		}
	}
	o.After = state.Cursor
	tick := t.ticker()
	var failed error
	o.Progress = func(r *mailstore.Report) {
		tick.say(map[string]any{"progress": "verify", "volume": m.name, "accounts": r.Accounts, "messages": r.Messages, "bytes": r.Read, "problems": len(r.Problems)},
			"%s: %d accounts, %d messages, %s read, %d problems", m.name, r.Accounts, r.Messages, bytesText(r.Read), len(r.Problems))
	}
	o.Done = func(cursor string, r *mailstore.Report) {
		o.Progress(r)
		if file == "" || failed != nil {
			return
		}
		text, err := json.Marshal(verifyState{m.id, cursor, state.Report.Plus(r)})
		if err == nil {
			tmp := file + ".new"
			if err = os.WriteFile(tmp, text, 0o600); err == nil {
				err = os.Rename(tmp, file)
			}
		}
		failed = err
	}
	r, err := s.Verify(cmd.Context(), m.name, o)
	if err == nil {
		err = failed
	}
	if err != nil {
		return nil, err
	}
	if file != "" {
		if err := os.Remove(file); err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
	}
	return state.Report.Plus(r), nil
}

func (t *tool) printVerify(views []verifyView) {
	for _, v := range views {
		t.say("%s: %d accounts, %d mailboxes, %d messages in %s; %s read", v.Volume, v.Accounts, v.Mailboxes, v.Messages, bytesText(v.Bytes), bytesText(v.Read))
		note := func(n int, what string) {
			if n > 0 {
				t.say("  note: %d %s", n, what)
			}
		}
		note(len(v.Orphans), "message files that no record names for a week (the collector will remove them; store repair keeps them)")
		note(v.Torn, "snapshots that cannot be read and that nothing rests on")
		note(v.Shadowed, "records that cannot be read and that a newer snapshot stands for")
		note(v.StaleInterest, "entries of interest of servers that are gone")
		note(v.Moved, "accounts that have moved away")
		note(v.Trash, "deleted mailboxes in the trash")
		for _, p := range v.Problems {
			t.say("  %s: %s: %s", p.Kind, printable(p.Path), printable(p.What))
		}
		if len(v.Problems) == 0 {
			t.say("  nothing wrong")
		}
	}
}
