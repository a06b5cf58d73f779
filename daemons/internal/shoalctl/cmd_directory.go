package shoalctl

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"shoal/daemons/internal/dirclient"
	"shoal/daemons/internal/dirstore"
	"shoal/daemons/internal/pki"
)

func (t *tool) cmdDirectory() *cobra.Command {
	return group("directory", "Look into the directory, change it, and look after its master and shadows",
		t.cmdDirectorySearch(), t.cmdDirectoryEdit(), t.cmdDirectoryApply(), t.cmdDirectoryExport(), t.cmdDirectoryAccess(),
		t.cmdDirectoryReplicas(), t.cmdDirectoryPromote(), t.cmdDirectoryBackup(), t.cmdDirectoryRestore())
}

// vaultView is a vault among the others.
type vaultView struct {
	Name        string   `json:"name"`
	State       string   `json:"state"` // as status shows it
	Problem     string   `json:"problem,omitempty"`
	Mode        string   `json:"mode,omitempty"`
	Epoch       uint64   `json:"epoch"`
	Master      string   `json:"master,omitempty"` // whom it takes for the master
	ContextCSN  []string `json:"context_csn,omitempty"`
	InStep      bool     `json:"in_step"`
	Behind      float64  `json:"behind_seconds"` // from its last change to the newest that it lacks
	Lag         float64  `json:"lag_seconds"`    // for how long it has not been known that nothing is missing
	Entries     int64    `json:"entries"`
	Replication string   `json:"replication,omitempty"`
	Provider    string   `json:"provider,omitempty"`
	LastContact string   `json:"last_contact,omitempty"`
	Voter       bool     `json:"voter"`
	LeaseHeld   *bool    `json:"lease_held,omitempty"` // of the master
	// Content is the agreement by which it has a part of the directory only; nil: all.
	Content *dirstore.Agreement `json:"content,omitempty"`

	address string
	voters  []string
}

// last is its newest change.
func (v *vaultView) last() string {
	if len(v.ContextCSN) == 0 {
		return ""
	}
	return slices.Max(v.ContextCSN)
}

// vaults asks the directory for its vaults, and each how it is.
func (t *tool) vaults(ctx context.Context, c *Config, k *control) ([]*vaultView, error) {
	servers, err := t.servers(ctx, c)
	if err != nil {
		return nil, err
	}
	servers = slices.DeleteFunc(servers, func(s dirclient.Server) bool { return s.Role != pki.RoleVault })
	slices.SortFunc(servers, func(a, b dirclient.Server) int { return strings.Compare(a.Name, b.Name) })
	views := make([]serverView, len(servers))
	var wg sync.WaitGroup
	for i, s := range servers {
		wg.Go(func() { views[i] = ask(ctx, k, s) })
	}
	wg.Wait()
	compareVaults(views)
	var all []*vaultView
	voter := map[string]bool{}
	for _, s := range views {
		v := &vaultView{Name: s.Name, State: s.State, Problem: s.Problem, address: s.Control}
		all = append(all, v)
		var is vaultService
		if s.Status == nil || !decodeService(s.Status.Service, &is) {
			continue
		}
		v.Mode, v.Epoch, v.Master, v.ContextCSN, v.Lag, v.Entries = is.Mode, is.Epoch, is.Master, is.ContextCSN, is.Lag, is.Entries
		v.Replication, v.Provider, v.LastContact = is.Replication, is.Provider, is.LastContact
		v.voters = append(is.Voters, is.KnownVoters...)
		for _, name := range v.voters {
			voter[name] = true
		}
		v.Content = is.Content
		if is.Lease != nil {
			v.LeaseHeld = &is.Lease.Held
		}
		if s.Replication != nil {
			v.InStep, v.Behind = s.Replication.InStep, s.Replication.Lag
		}
		if v.Problem == "" {
			v.Problem = is.ReplicationError
		}
	}
	for _, v := range all {
		v.Voter = voter[v.Name]
	}
	return all, nil
}

// withVaults runs f with a view of the vaults.
func (t *tool) withVaults(ctx context.Context, f func(*Config, *control, []*vaultView) error) error {
	c, err := t.load()
	if err != nil {
		return err
	}
	k, err := c.control()
	if err != nil {
		return err
	}
	defer k.close()
	all, err := t.vaults(ctx, c, k)
	if err != nil {
		return err
	}
	return f(c, k, all)
}

func (t *tool) cmdDirectoryReplicas() *cobra.Command {
	return &cobra.Command{
		Use:   "replicas",
		Short: "Show the master and its shadows: newest change, lag, epoch, lease",
		Long: `Show every vault that the directory lists: whether it is the master or a shadow, its newest change, how far it is
behind the newest that any vault has, and for how long it has not known that nothing is missing (lag). VOTER says
that it grants the master's lease and is counted at a promotion. The exit code is 0 only if there is one master and
every vault is in step.`,
		Example: `  shoalctl directory replicas
  shoalctl directory replicas --json | jq '.[] | select(.in_step | not)'`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return t.withVaults(cmd.Context(), func(_ *Config, _ *control, all []*vaultView) error {
				if err := t.show(all, func() { t.printVaults(all) }); err != nil {
					return err
				}
				masters := 0
				for _, v := range all {
					if v.Mode == "master" {
						masters++
					}
					if v.State != "ready" || !v.InStep {
						return fmt.Errorf("%s is not well", v.Name)
					}
				}
				if masters != 1 {
					return fmt.Errorf("there are %d masters", masters)
				}
				return nil
			})
		},
	}
}

func (t *tool) printVaults(all []*vaultView) {
	var rows [][]string
	for _, v := range all {
		row := []string{v.Name, v.State, v.Mode, "", v.last(), "", "", "", v.Provider}
		if v.Mode != "" {
			row[3] = fmt.Sprint(v.Epoch)
			row[5] = "in step"
			if !v.InStep {
				row[5] = "behind"
				if v.Behind > 0 {
					row[5] = ageText(time.Duration(v.Behind*float64(time.Second))) + " behind"
				}
			}
			if v.Mode != "master" {
				row[6] = fmt.Sprintf("%.1f s", v.Lag)
			}
		}
		switch {
		case v.LeaseHeld != nil && *v.LeaseHeld:
			row[7] = "lease held"
		case v.LeaseHeld != nil:
			row[7] = "NO LEASE"
		case v.Voter:
			row[7] = "voter"
		}
		rows = append(rows, row)
	}
	t.table([]string{"VAULT", "STATE", "MODE", "EPOCH", "NEWEST CHANGE", "STANDS", "LAG", "VOTER", "FOLLOWS"}, rows)
	for _, v := range all {
		if v.Content != nil {
			t.say("%s has a part of the directory only: %s", v.Name, printable(v.Content.String()))
		}
		if v.Problem != "" {
			t.say("%s: %s", v.Name, wrap(printable(v.Problem), 95-len(v.Name), "\n    "))
		}
	}
}

// completeVault proposes the vaults.
func (t *tool) completeVault(ctx context.Context, prefix string) []string {
	c, err := t.load()
	if err != nil {
		return nil
	}
	servers, err := t.servers(ctx, c)
	if err != nil {
		return nil
	}
	names := map[string]bool{}
	for _, s := range servers {
		if s.Role == pki.RoleVault && strings.HasPrefix(s.Name, prefix) {
			names[printable(s.Name)] = true
		}
	}
	return slices.Sorted(maps.Keys(names))
}
