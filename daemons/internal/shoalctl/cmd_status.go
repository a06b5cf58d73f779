package shoalctl

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"shoal/daemons/internal/devcluster"
	"shoal/daemons/internal/dirclient"
	"shoal/daemons/internal/kit"
)

// serverView is a server as shown.
type serverView struct {
	Name    string      `json:"name"`
	Role    string      `json:"role"`
	State   string      `json:"state"` // "ready", "not ready", "draining", "unreachable", "unknown"
	Problem string      `json:"problem,omitempty"`
	Control string      `json:"control,omitempty"`
	Status  *kit.Status `json:"status,omitempty"`

	Queue       *queueDepth  `json:"queue,omitempty"`       // of a switch
	Replication *replication `json:"replication,omitempty"` // of a vault
}

// statusView is the answer of status.
type statusView struct {
	Healthy   bool                       `json:"healthy"`
	Directory string                     `json:"directory"` // "ok" or what is wrong
	Balancer  string                     `json:"balancer,omitempty"`
	Servers   []serverView               `json:"servers"`
	Backends  []devcluster.BackendServer `json:"backends,omitempty"`
}

func (t *tool) cmdStatus() *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "Show every server: health, version, queue, replication, volumes, and what the balancer finds",
		Long: `Show every server that the directory lists: whether it is ready, its version and how long it runs;
how many entries wait in a switch's queue and how old the oldest is; how far a shadow of the directory is
behind; how full the volumes of a box are; and what the balancer's checks find. The exit code is 0 only if
everything is well. --json shows much more.`,
		Example: `  shoalctl status
  shoalctl status --json | jq '.servers[] | select(.state != "ready")'`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := t.load()
			if err != nil {
				return err
			}
			v, err := t.status(cmd.Context(), c)
			if err != nil {
				return err
			}
			if err := t.show(v, func() { t.printStatus(v) }); err != nil {
				return err
			}
			if !v.Healthy {
				return errors.New("not everything is well")
			}
			return nil
		},
	}
}

// status asks the directory for the servers, and all of them at the same time how they are.
func (t *tool) status(ctx context.Context, c *Config) (*statusView, error) {
	servers, err := t.servers(ctx, c)
	v, askErr := t.statusOf(ctx, c, servers)
	if askErr != nil {
		return nil, askErr
	}
	if err != nil {
		v.Healthy, v.Directory = false, err.Error()
	}
	return v, nil
}

// statusOf asks these servers.
func (t *tool) statusOf(ctx context.Context, c *Config, servers []dirclient.Server) (*statusView, error) {
	k, err := c.control()
	if err != nil {
		return nil, err
	}
	defer k.close()
	v := &statusView{Healthy: true, Directory: "ok", Servers: make([]serverView, len(servers))}
	var wg sync.WaitGroup
	for i, s := range servers {
		wg.Go(func() {
			v.Servers[i] = ask(ctx, k, s)
			v.Servers[i].Queue = k.queueDepth(ctx, &v.Servers[i])
		})
	}
	wg.Wait()
	compareVaults(v.Servers)
	for _, s := range v.Servers {
		v.Healthy = v.Healthy && s.State == "ready"
	}
	if c.Balancer != nil {
		v.Balancer = "ok"
		v.Backends, err = devcluster.Balancer{Socket: c.Balancer.Socket}.Servers(ctx)
		if err != nil {
			v.Healthy, v.Balancer = false, err.Error()
		}
		for _, b := range v.Backends {
			v.Healthy = v.Healthy && b.Up()
		}
	}
	return v, nil
}

func (c *Config) servers(ctx context.Context) ([]dirclient.Server, error) {
	admin, err := c.admin(ctx)
	if err != nil {
		return nil, err
	}
	defer admin.Close()
	return admin.Servers(ctx, "")
}

// ask gets one server's own view by its control API.
func ask(ctx context.Context, k *control, s dirclient.Server) serverView {
	v := serverView{Name: s.Name, Role: s.Role, State: "unknown"}
	control := s.Addresses[dirclient.ServiceControl]
	if len(control) == 0 {
		v.Problem = "the directory lists no control address for it"
		return v
	}
	v.Control = control[0]
	v.State = "unreachable"
	status := &kit.Status{}
	err := k.call(ctx, http.MethodGet, v.Control, "/v1/status", status)
	switch {
	case err != nil:
		v.Problem = err.Error()
		return v
	case status.Server != s.Name:
		v.Problem = fmt.Sprintf("at %s answers %s", v.Control, status.Server)
		return v
	}
	v.Status = status
	switch {
	case status.Draining:
		v.State = "draining"
	case status.Ready:
		v.State = "ready"
	default:
		v.State, v.Problem = "not ready", status.Reason
	}
	return v
}

func (t *tool) printStatus(v *statusView) {
	var rows [][]string
	for _, s := range v.Servers {
		row := []string{s.Name, s.Role, s.State, "", "", s.detail(time.Now())}
		if s.Status != nil {
			row[3], row[4] = cut(s.Status.Version, 20), ageText(time.Since(s.Status.Started))
		}
		rows = append(rows, row)
	}
	t.table([]string{"SERVER", "ROLE", "STATE", "VERSION", "UP", "DETAILS"}, rows)
	for _, s := range v.Servers {
		if s.Problem != "" {
			t.say("%s: %s", s.Name, wrap(printable(s.Problem), 95-len(s.Name), "\n    "))
		}
	}
	if v.Directory != "ok" {
		t.say("\ndirectory: %s", printable(v.Directory))
	}
	if v.Balancer == "" {
		return
	}
	if v.Balancer != "ok" {
		t.say("\nbalancer: %s", printable(v.Balancer))
		return
	}
	t.say("")
	rows = nil
	for _, b := range v.Backends {
		if b.Status == "no check" { // the ways to one server alone say nothing about it
			continue
		}
		rows = append(rows, []string{b.Backend, b.Name, b.Address, b.Status, b.Check, fmt.Sprint(b.Sessions)})
	}
	t.table([]string{"BALANCER", "SERVER", "ADDRESS", "STATE", "CHECK", "SESSIONS"}, rows)
}
