package agent

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"shoal/daemons/internal/clock"
	"shoal/daemons/internal/kit"
	"shoal/daemons/internal/pki"
)

// balancer keeps HAProxy like what was asked for.
type balancer struct {
	conf   *HAProxy
	clock  clock.Clock
	admin  socket
	master socket
	state  string // file

	mu    sync.Mutex // one change at a time
	pools map[string]*Pool
}

// lbState is the state file.
type lbState struct {
	Version int              `json:"version"`
	Pools   map[string]*Pool `json:"pools"`
}

func newBalancer(ctx context.Context, env *kit.Env, c *HAProxy) (*balancer, error) {
	b := &balancer{conf: c, clock: env.Clock, admin: socket{c.Socket, c.Timeout}, master: socket{c.Master, c.Timeout}}
	var err error
	if b.state, err = statePath(c.State, "pools.json"); err != nil {
		return nil, err
	}
	s := lbState{}
	if err := loadState(b.state, &s, &s.Version); err != nil {
		return nil, err
	}
	if b.pools = s.Pools; b.pools == nil {
		b.pools = map[string]*Pool{}
	}
	// HAProxy cannot start without the file; and what a crash left between state and file is made whole.
	text := render(b.pools)
	if old, err := os.ReadFile(c.Pools); err != nil || string(old) != text {
		if err := b.try(ctx, b.pools); err != nil {
			return nil, err
		}
		if err := pki.WriteFile(c.Pools, []byte(text), 0o644); err != nil {
			return nil, err
		}
	}
	return b, nil
}

func (b *balancer) routes(mux *http.ServeMux) {
	mux.HandleFunc("GET /v1/lb/pools", answered(func(r *http.Request) (int, any, error) {
		pools, err := b.view(r.Context())
		return http.StatusOK, pools, err
	}))
	mux.HandleFunc("GET /v1/lb/pools/{pool}", answered(b.getPool))
	mux.HandleFunc("PUT /v1/lb/pools/{pool}", answered(b.putPool))
	mux.HandleFunc("DELETE /v1/lb/pools/{pool}", answered(b.deletePool))
	mux.HandleFunc("GET /v1/lb/pools/{pool}/members/{member}", answered(b.getMember))
	mux.HandleFunc("PUT /v1/lb/pools/{pool}/members/{member}", answered(b.putMember))
	mux.HandleFunc("DELETE /v1/lb/pools/{pool}/members/{member}", answered(b.deleteMember))
}

// try lets HAProxy read a configuration that is not in force yet.
func (b *balancer) try(ctx context.Context, pools map[string]*Pool) error {
	f, err := os.CreateTemp(filepath.Dir(b.conf.Pools), ".check-*.cfg")
	if err != nil {
		return fmt.Errorf("check of the configuration: %w", err)
	}
	defer os.Remove(f.Name())
	_, err = f.WriteString(render(pools))
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return fmt.Errorf("check of the configuration: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, b.conf.Timeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, b.conf.Program, "-c", "-f", b.conf.Base, "-f", f.Name())
	if out, err := cmd.CombinedOutput(); err != nil {
		return conflict("haproxy refuses the configuration, nothing was changed: %s (%v)", firstLines(string(out), f.Name()), err)
	}
	return nil
}

// firstLines is what HAProxy says first, without the name of the file that only the check knew.
func firstLines(s, file string) string {
	lines := strings.Split(strings.TrimSpace(strings.ReplaceAll(s, file, "pools")), "\n")
	if len(lines) > 4 {
		lines = lines[:4]
	}
	return strings.Join(lines, "; ")
}

// commit checks, keeps and writes a new set of pools. The state goes first: it is what was asked for.
func (b *balancer) commit(ctx context.Context, pools map[string]*Pool) error {
	if err := b.try(ctx, pools); err != nil {
		return err
	}
	if err := saveState(b.state, lbState{stateVersion, pools}); err != nil {
		return err
	}
	b.pools = pools
	return pki.WriteFile(b.conf.Pools, []byte(render(pools)), 0o644)
}

// copied is the pools with one of them free to be changed.
func (b *balancer) copied(name string) (map[string]*Pool, *Pool) {
	all := maps.Clone(b.pools)
	p := &Pool{}
	if old := b.pools[name]; old != nil {
		*p = *old
	}
	if p.Members = maps.Clone(p.Members); p.Members == nil {
		p.Members = map[string]*Member{}
	}
	all[name] = p
	return all, p
}

// reload has HAProxy's master start new workers on the file; connections stay with the old ones until they end. It
// returns when the new workers answer with the pools that they should have.
func (b *balancer) reload(ctx context.Context) error {
	before, _ := b.admin.command(ctx, "show info")
	if _, err := b.master.command(ctx, "reload"); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, b.conf.Timeout)
	defer cancel()
	for {
		now, err := b.admin.command(ctx, "show info")
		if err == nil && infoOf(now, "Pid") != infoOf(before, "Pid") {
			return b.settle(ctx)
		}
		t := b.clock.NewTimer(20 * time.Millisecond)
		select {
		case <-t.C():
		case <-ctx.Done():
			t.Stop()
			return fmt.Errorf("haproxy did not reload in time: its log says why")
		}
	}
}

// settle asks for the states that a file cannot say: drain.
func (b *balancer) settle(ctx context.Context) error {
	for _, p := range b.pools {
		for _, m := range p.Members {
			if m.State == "drain" {
				if err := b.admin.do(ctx, "set server "+backend+p.Name+"/"+m.Name+" state drain"); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func infoOf(info, name string) string {
	for _, l := range strings.Split(info, "\n") {
		if v, ok := strings.CutPrefix(l, name+": "); ok {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

// view is what was asked for, with what HAProxy has.
func (b *balancer) view(ctx context.Context) (map[string]*Pool, error) {
	have, err := b.admin.look(ctx)
	if err != nil {
		return nil, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	all := map[string]*Pool{}
	for name, p := range b.pools {
		c := *p
		c.Members = map[string]*Member{}
		for n, m := range p.Members {
			v := *m
			s, known := have[name][n]
			v.Status, v.Sessions = s.status, s.sessions
			switch {
			case !known:
				v.Drift = "haproxy does not have it"
			case !sameAddress(s.address, m.Address):
				v.Drift = "haproxy has it at " + s.address
			case s.state() != m.State:
				v.Drift = "haproxy has it in state " + s.state()
			case s.weight != m.Weight:
				v.Drift = fmt.Sprintf("haproxy has it with weight %d", s.weight)
			}
			c.Members[n] = &v
		}
		all[name] = &c
	}
	return all, nil
}

func (b *balancer) getPool(r *http.Request) (int, any, error) {
	all, err := b.view(r.Context())
	if err != nil {
		return 0, nil, err
	}
	p := all[r.PathValue("pool")]
	if p == nil {
		return 0, nil, notFound("there is no pool %s", r.PathValue("pool"))
	}
	return http.StatusOK, p, nil
}

func (b *balancer) putPool(r *http.Request) (int, any, error) {
	var in Pool
	if err := body(r, &in); err != nil {
		return 0, nil, err
	}
	in.Name = r.PathValue("pool")
	if err := in.check(); err != nil {
		return 0, nil, err
	}
	b.mu.Lock()
	old := b.pools[in.Name]
	if old == nil && len(b.pools) >= maxPools {
		b.mu.Unlock()
		return 0, nil, conflict("there are %d pools already", maxPools)
	}
	pools, p := b.copied(in.Name)
	in.Members = p.Members
	*p = in
	err := b.commit(r.Context(), pools)
	if err == nil {
		err = b.reload(r.Context())
	}
	b.mu.Unlock()
	if err != nil {
		return 0, nil, err
	}
	return b.getPool(r)
}

func (b *balancer) deletePool(r *http.Request) (int, any, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	name := r.PathValue("pool")
	p := b.pools[name]
	if p == nil {
		return 0, nil, notFound("there is no pool %s", name)
	}
	if len(p.Members) > 0 {
		return 0, nil, conflict("pool %s has members: %s", name, strings.Join(sortedKeys(p.Members), ", "))
	}
	pools := maps.Clone(b.pools)
	delete(pools, name)
	if err := b.commit(r.Context(), pools); err != nil {
		return 0, nil, err
	}
	return 0, nil, b.reload(r.Context())
}

func (b *balancer) count() (pools, members int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, p := range b.pools {
		members += len(p.Members)
	}
	return len(b.pools), members
}

func (b *balancer) ready(ctx context.Context) error {
	_, err := b.admin.command(ctx, "show info")
	return err
}

func (b *balancer) version(ctx context.Context) string {
	info, err := b.admin.command(ctx, "show info")
	if err != nil {
		return "unknown"
	}
	return infoOf(info, "Version")
}
