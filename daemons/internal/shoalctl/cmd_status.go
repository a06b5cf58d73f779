package shoalctl

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"shoal/daemons/internal/devcluster"
	"shoal/daemons/internal/dirclient"
	"shoal/daemons/internal/kit"
	"shoal/daemons/internal/pki"
)

// serverView is a server as shown.
type serverView struct {
	Name    string      `json:"name"`
	Role    string      `json:"role"`
	State   string      `json:"state"` // "ready", "not ready", "draining", "unreachable", "unknown"
	Problem string      `json:"problem,omitempty"`
	Control string      `json:"control,omitempty"`
	Status  *kit.Status `json:"status,omitempty"`
}

// statusView is the answer of status.
type statusView struct {
	Healthy   bool                       `json:"healthy"`
	Directory string                     `json:"directory"` // "ok" or what is wrong
	Balancer  string                     `json:"balancer,omitempty"`
	Servers   []serverView               `json:"servers"`
	Backends  []devcluster.BackendServer `json:"backends,omitempty"`
}

// askWithin bounds the question to one server.
const askWithin = 5 * time.Second

func (t *tool) cmdStatus() *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "Show every server: health, version, process, and what the balancer finds",
		Long: `Show every server that the directory lists: whether it is ready, its version and process
id, when its certificate expires; and what the balancer's checks find of it. The exit code is
0 only if everything is well.`,
		Example: `  shoalctl status
  shoalctl status --json | jq '.servers[] | select(.state != "ready")'`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := t.load()
			if err != nil {
				return err
			}
			v, err := c.status(cmd.Context())
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
func (c *Config) status(ctx context.Context) (*statusView, error) {
	creds, err := c.credentials()
	if err != nil {
		return nil, err
	}
	v := &statusView{Healthy: true, Directory: "ok", Servers: []serverView{}}
	servers, err := c.servers(ctx)
	if err != nil {
		v.Healthy, v.Directory = false, err.Error()
	}
	transport := &http.Transport{TLSClientConfig: creds.ClientTLS(pki.RoleVault, pki.RoleSwitch, pki.RoleBox, pki.RoleWebmail, pki.RoleProvision)}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport, Timeout: askWithin}
	v.Servers = make([]serverView, len(servers))
	var wg sync.WaitGroup
	for i, s := range servers {
		wg.Go(func() { v.Servers[i] = ask(ctx, client, s) })
	}
	wg.Wait()
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
func ask(ctx context.Context, client *http.Client, s dirclient.Server) serverView {
	v := serverView{Name: s.Name, Role: s.Role, State: "unknown"}
	control := s.Addresses[dirclient.ServiceControl]
	if len(control) == 0 {
		v.Problem = "the directory lists no control address for it"
		return v
	}
	v.Control = control[0]
	v.State = "unreachable"
	status, err := fetchStatus(ctx, client, v.Control)
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

func fetchStatus(ctx context.Context, client *http.Client, address string) (*kit.Status, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+address+"/v1/status", nil)
	if err != nil {
		return nil, err
	}
	response, err := client.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("it answers %s", response.Status)
	}
	var status kit.Status
	if err := json.NewDecoder(io.LimitReader(response.Body, 1<<20)).Decode(&status); err != nil {
		return nil, fmt.Errorf("its answer is not readable: %w", err)
	}
	return &status, nil
}

func (t *tool) printStatus(v *statusView) {
	var rows [][]string
	for _, s := range v.Servers {
		row := []string{s.Name, s.Role, s.State, "", "", "", s.Problem}
		if s.Status != nil {
			row[3], row[4] = s.Status.Version, fmt.Sprint(s.Status.PID)
			row[5] = time.Since(s.Status.Started).Truncate(time.Second).String()
		}
		rows = append(rows, row)
	}
	t.table([]string{"SERVER", "ROLE", "STATE", "VERSION", "PID", "UP", "PROBLEM"}, rows)
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
