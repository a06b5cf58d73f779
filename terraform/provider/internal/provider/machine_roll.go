package provider

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"shoal/terraform/provider/internal/shoal"
)

// rolls takes care that of a rolling group one machine at a time is rebuilt or restarted, and that after one that did not come
// back the others are left alone.
type rolls struct {
	mu     sync.Mutex
	groups map[string]*group
}

type group struct {
	sync.Mutex
	failed string // name of the machine
}

// turn waits for the machine's turn. done gives it back, and says how it went.
func (r *rolls) turn(name, machine string) (done func(error), err error) {
	if name == "" {
		return func(error) {}, nil
	}
	r.mu.Lock()
	if r.groups == nil {
		r.groups = map[string]*group{}
	}
	g := r.groups[name]
	if g == nil {
		g = &group{}
		r.groups[name] = g
	}
	r.mu.Unlock()
	g.Lock()
	if g.failed != "" {
		defer g.Unlock()
		return nil, fmt.Errorf("machine %s of the same rolling group %s did not come back, so %s was left as it is", g.failed, name, machine)
	}
	return func(err error) {
		if err != nil {
			g.failed = machine
		}
		g.Unlock()
	}, nil
}

// wait asks the control API of the role until it says that it is ready. It is asked over mutual TLS, and must be the
// server that was meant.
func (r *machineResource) wait(ctx context.Context, m *machineModel) error {
	if m.Ready == nil {
		return nil
	}
	a, err := r.c.agents()
	if err != nil {
		return err
	}
	name := m.Name.ValueString()
	want := name
	if m.Enrol != nil {
		want = m.Enrol.Server.ValueString()
	}
	last := errors.New("nothing was asked")
	ready := func() bool {
		var s struct {
			Server string
			Ready  bool
			Reason string
		}
		ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
		defer cancel()
		switch _, err := a.Do(ctx, m.Ready.Address.ValueString(), http.MethodGet, "/v1/status", nil, &s); {
		case err != nil:
			last = err
		case s.Server != want:
			last = fmt.Errorf("at %s answers %s", m.Ready.Address.ValueString(), s.Server)
		case !s.Ready:
			last = errors.New(s.Reason)
		default:
			return true
		}
		return false
	}
	done, err := until(ctx, time.Duration(m.Ready.Seconds.ValueInt64())*time.Second, ready)
	if err != nil || done {
		return err
	}
	return fmt.Errorf("machine %s runs, but is not ready after %d s: %w; its console says more (virsh console %s)", name, m.Ready.Seconds.ValueInt64(), last, name)
}

// until asks twice a second until the answer is yes; done is false when the time is over.
func until(ctx context.Context, limit time.Duration, ask func() bool) (done bool, err error) {
	for end := time.Now().Add(limit); ; {
		if ask() {
			return true, nil
		}
		if !time.Now().Before(end) {
			return false, nil
		}
		select {
		case <-time.After(500 * time.Millisecond):
		case <-ctx.Done():
			return false, ctx.Err()
		}
	}
}

// upWithin is how long a machine that is ready may take until the balancers' checks have seen it.
const upWithin = 3 * time.Minute

// memberSeen is what an agent says of a member.
type memberSeen struct {
	memberJSON
	Status   string
	Sessions int
}

// members asks for all members of the machine that are there.
func (r *machineResource) members(ctx context.Context, m *machineModel, each func(a *shoal.Agents, agent, path string, s memberSeen) error) error {
	if len(m.Drain) == 0 {
		return nil
	}
	a, err := r.c.agents()
	if err != nil {
		return err
	}
	for _, d := range m.Drain {
		path := "/v1/lb/pools/" + d.Pool.ValueString() + "/members/" + d.Member.ValueString()
		var s memberSeen
		_, err := a.Do(ctx, d.Agent.ValueString(), http.MethodGet, path, nil, &s)
		if err == nil {
			err = each(a, d.Agent.ValueString(), path, s)
		}
		if err != nil && !errors.Is(err, shoal.ErrNotFound) {
			return err
		}
	}
	return nil
}

func (r *machineResource) setMembers(ctx context.Context, m *machineModel, state string) error {
	return r.members(ctx, m, func(a *shoal.Agents, agent, path string, s memberSeen) error {
		s.State, s.Drift = state, ""
		_, err := a.Do(ctx, agent, http.MethodPut, path, s.memberJSON, nil)
		return err
	})
}

// drain lets the machine's members get nothing new, and waits for their sessions, as long as they may go on.
func (r *machineResource) drain(ctx context.Context, m *machineModel) error {
	err := r.setMembers(ctx, m, "drain")
	if err != nil {
		return fmt.Errorf("drain: %w", err)
	}
	_, err2 := until(ctx, time.Duration(m.DrainSeconds.ValueInt64())*time.Second, func() bool {
		sessions := 0
		err = r.members(ctx, m, func(_ *shoal.Agents, _, _ string, s memberSeen) error {
			sessions += s.Sessions
			return nil
		})
		return err != nil || sessions == 0
	})
	if err = errors.Join(err, err2); err != nil {
		return fmt.Errorf("drain: %w", err)
	}
	return nil
}

// undrain lets clients in again, and waits until the balancers have seen that the members serve: the next machine of a group
// must not go before.
func (r *machineResource) undrain(ctx context.Context, m *machineModel) error {
	err := r.setMembers(ctx, m, "ready")
	if err != nil {
		return err
	}
	var down []string
	up, err2 := until(ctx, upWithin, func() bool {
		down = nil
		err = r.members(ctx, m, func(_ *shoal.Agents, agent, path string, s memberSeen) error {
			if !strings.HasPrefix(s.Status, "UP") && s.Status != "no check" {
				down = append(down, agent+path+" ("+s.Status+")")
			}
			return nil
		})
		return err != nil || len(down) == 0
	})
	switch {
	case err != nil || err2 != nil:
		return errors.Join(err, err2)
	case !up:
		return fmt.Errorf("machine %s is ready, but the balancers do not see it serve: %s", m.Name.ValueString(), strings.Join(down, ", "))
	}
	return nil
}
