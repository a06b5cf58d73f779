// Package agent is shoal-agent: what an operator's tool (Terraform's provider, Ansible) asks of a machine whose software
// is not ours. On a balancer it keeps HAProxy's pools and their members, on a storage server the exports of the volumes,
// on the directory machine it gives certificates to new servers (package enrol).
//
// The API is the control API of every daemon: HTTPS, and a certificate of role operator is demanded. It knows
// things by name (pools, members, volumes, policies) and a fixed set of verbs; no path, no command and no text of a
// configuration file comes in by it. Which files are written and which programs are called stands in the agent's
// own configuration. Everything lies under /v1 (api.go); what a newer minor version adds, older clients pass over.
//
// A machine has the parts that its configuration has blocks for: haproxy, exports, enrolment. What was asked for is kept
// in one JSON file for each part (state.go), written before it is put into force; the files of HAProxy and exportfs are
// made from it and are never read back. What is in force is shown beside it, so that a tool can see what drifted.
//
// Invariants: a configuration that `haproxy -c` or our own rules refuse is never put in the place of the old one; a
// member is added, drained and removed over the runtime socket, without a reload; no export is open to the world, and
// none lets root through; data is never deleted.
//
// Left out on purpose: a shell, files, packages, restarts (that is what Ansible is for); keepalived (its file depends on
// the machine alone, and comes from the seed).
package agent

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"runtime"
	"sync"

	"shoal/daemons/internal/kit"
)

// Spec is the daemon for kit.Main.
func Spec() kit.Spec {
	return kit.Spec{
		Name:      "shoal-agent",
		Summary:   "keeps a balancer's pools, a storage server's exports, and gives certificates to new servers",
		NewConfig: func() kit.Config { return &Config{} },
		Build: func(ctx context.Context, env *kit.Env, c kit.Config) (kit.Service, error) {
			return build(ctx, env, c.(*Config))
		},
	}
}

// agent is one running agent; a part is nil where the machine has none.
type agent struct {
	env       *kit.Env
	balancer  *balancer
	exports   *exporter
	authority *authority
}

func build(ctx context.Context, env *kit.Env, c *Config) (kit.Service, error) {
	a := &agent{env: env}
	var err error
	if c.HAProxy != nil {
		if a.balancer, err = newBalancer(ctx, env, c.HAProxy); err != nil {
			return nil, err
		}
		a.balancer.routes(env.Control)
	}
	if c.Exports != nil {
		if a.exports, err = newExporter(ctx, env, c.Exports); err != nil {
			return nil, err
		}
		a.exports.routes(env.Control)
	}
	if c.Enrolment != nil {
		if a.authority, err = newAuthority(env, c); err != nil {
			return nil, err
		}
	}
	env.Control.HandleFunc("GET /v1/agent", func(w http.ResponseWriter, r *http.Request) {
		kit.WriteJSON(w, http.StatusOK, a.about(r.Context()))
	})
	return a, nil
}

// about is the answer to GET /v1/agent.
type about struct {
	API      string            `json:"api"` // "1.0": major.minor
	Version  string            `json:"version"`
	Server   string            `json:"server"`
	Parts    []string          `json:"parts"`    // haproxy, exports, enrolment
	Software map[string]string `json:"software"` // versions of what the parts look after
}

const apiVersion = "1.0"

func (a *agent) about(ctx context.Context) about {
	v := about{API: apiVersion, Version: kit.Version, Server: a.env.Server, Parts: []string{}, Software: map[string]string{"go": runtime.Version()}}
	if a.balancer != nil {
		v.Parts = append(v.Parts, "haproxy")
		v.Software["haproxy"] = a.balancer.version(ctx)
	}
	if a.exports != nil {
		v.Parts = append(v.Parts, "exports")
		v.Software["kernel"] = kernelVersion()
	}
	if a.authority != nil {
		v.Parts = append(v.Parts, "enrolment")
	}
	return v
}

// Run serves until ctx ends: the control API is the kit's, so only enrolment has something of its own.
func (a *agent) Run(ctx context.Context) error {
	var all sync.WaitGroup
	defer all.Wait()
	failed := make(chan error, 1)
	if a.authority != nil {
		all.Go(func() {
			if err := a.authority.run(ctx); err != nil {
				failed <- err
			}
		})
	}
	select {
	case <-ctx.Done():
		return nil
	case err := <-failed:
		return err
	}
}

// Drain lets requests for certificates end.
func (a *agent) Drain(ctx context.Context) error {
	if a.authority == nil {
		return nil
	}
	return a.authority.drain(ctx)
}

// Close has nothing to free: files are written at once, listeners are the environment's.
func (a *agent) Close() error { return nil }

// Reload: no setting of the agent is live.
func (a *agent) Reload(context.Context, kit.Config) error { return nil }

// Ready is nil when every part can do its work.
func (a *agent) Ready(ctx context.Context) error {
	var errs []error
	if a.balancer != nil {
		if err := a.balancer.ready(ctx); err != nil {
			errs = append(errs, fmt.Errorf("haproxy: %w", err))
		}
	}
	if a.exports != nil {
		if err := a.exports.ready(); err != nil {
			errs = append(errs, fmt.Errorf("exports: %w", err))
		}
	}
	if a.authority != nil {
		if err := a.authority.ready(ctx); err != nil {
			errs = append(errs, fmt.Errorf("enrolment: %w", err))
		}
	}
	return errors.Join(errs...)
}

// Status is shown to operators.
func (a *agent) Status(ctx context.Context) map[string]any {
	v := a.about(ctx)
	s := map[string]any{"parts": v.Parts, "software": v.Software}
	if a.balancer != nil {
		s["pools"], s["members"] = a.balancer.count()
	}
	if a.exports != nil {
		s["volumes"], s["policies"] = a.exports.count()
	}
	return s
}
