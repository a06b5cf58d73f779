package agent

import (
	"context"
	"fmt"
	"net/http"
	"strings"
)

func (b *balancer) getMember(r *http.Request) (int, any, error) {
	all, err := b.view(r.Context())
	if err != nil {
		return 0, nil, err
	}
	if p := all[r.PathValue("pool")]; p != nil && p.Members[r.PathValue("member")] != nil {
		return http.StatusOK, p.Members[r.PathValue("member")], nil
	}
	return 0, nil, notFound("pool %s has no member %s", r.PathValue("pool"), r.PathValue("member"))
}

func (b *balancer) putMember(r *http.Request) (int, any, error) {
	var in Member
	if err := body(r, &in); err != nil {
		return 0, nil, err
	}
	in.Name = r.PathValue("member")
	if err := in.check(); err != nil {
		return 0, nil, err
	}
	if err := b.setMember(r.Context(), r.PathValue("pool"), &in); err != nil {
		return 0, nil, err
	}
	return b.getMember(r)
}

func (b *balancer) setMember(ctx context.Context, pool string, in *Member) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.pools[pool] == nil {
		return notFound("there is no pool %s", pool)
	}
	if b.pools[pool].Members[in.Name] == nil && len(b.pools[pool].Members) >= maxMembers {
		return conflict("pool %s has %d members already", pool, maxMembers)
	}
	pools, p := b.copied(pool)
	p.Members[in.Name] = in
	if err := b.commit(ctx, pools); err != nil {
		return err
	}
	return b.apply(ctx, p, in)
}

// apply makes the running HAProxy's member like what was asked for, whatever it is now, without a reload.
func (b *balancer) apply(ctx context.Context, p *Pool, m *Member) error {
	all, err := b.admin.look(ctx)
	if err != nil {
		return err
	}
	servers, known := all[p.Name]
	if !known { // HAProxy runs on an older file
		return b.reload(ctx)
	}
	name := backend + p.Name + "/" + m.Name
	have, there := servers[m.Name]
	if !there {
		if err := b.admin.do(ctx, "add server "+name+" "+m.Address+" "+p.parameters(m), "New server registered"); err != nil {
			return err
		}
		if err := b.admin.do(ctx, "enable health "+name); err != nil {
			return err
		}
		have = seen{address: m.Address, weight: m.Weight, admin: adminMaint} // that is how it begins
	}
	if !sameAddress(have.address, m.Address) {
		host, port, _ := strings.Cut(strings.TrimPrefix(m.Address, "["), "]:")
		if port == "" {
			i := strings.LastIndexByte(m.Address, ':')
			host, port = m.Address[:i], m.Address[i+1:]
		}
		if err := b.admin.do(ctx, fmt.Sprintf("set server %s addr %s port %s", name, host, port), "changed", "no need to change"); err != nil {
			return err
		}
	}
	if have.weight != m.Weight {
		if err := b.admin.do(ctx, fmt.Sprintf("set server %s weight %d", name, m.Weight)); err != nil {
			return err
		}
	}
	if have.state() != m.State {
		return b.admin.do(ctx, "set server "+name+" state "+m.State)
	}
	return nil
}

// draining is the answer to a removal that is not done yet.
type draining struct {
	Sessions int `json:"sessions"`
}

// deleteMember drains a member, and takes it away once it has no sessions. Each request goes one step further, so that a
// client decides how long it waits, and what is under way survives a restart of the agent.
func (b *balancer) deleteMember(r *http.Request) (int, any, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	ctx, pool, member := r.Context(), r.PathValue("pool"), r.PathValue("member")
	if b.pools[pool] == nil || b.pools[pool].Members[member] == nil {
		return 0, nil, notFound("pool %s has no member %s", pool, member)
	}
	force := r.URL.Query().Get("force") == "true"
	all, err := b.admin.look(ctx)
	if err != nil {
		return 0, nil, err
	}
	have, there := all[pool][member]
	name := backend + pool + "/" + member
	if there && have.sessions > 0 && !force {
		if err := b.drain(ctx, pool, member); err != nil {
			return 0, nil, err
		}
		return http.StatusAccepted, draining{have.sessions}, nil
	}
	if there {
		if err := b.drain(ctx, pool, member); err != nil {
			return 0, nil, err
		}
		if err := b.admin.do(ctx, "set server "+name+" state maint"); err != nil {
			return 0, nil, err
		}
		if force {
			if err := b.admin.do(ctx, "shutdown sessions server "+name); err != nil {
				return 0, nil, err
			}
		}
		told, err := b.admin.command(ctx, "del server "+name)
		if err != nil {
			return 0, nil, err
		}
		if told != "" && !strings.Contains(told, "Server deleted") {
			// A session came or is not quite gone yet, a check is under way: the next request tries again.
			if strings.Contains(told, "still has connections") || strings.Contains(told, "connection") {
				return http.StatusAccepted, draining{max(have.sessions, 1)}, nil
			}
			return 0, nil, fmt.Errorf("haproxy refuses to remove %s: %s", name, told)
		}
	}
	pools, p := b.copied(pool)
	delete(p.Members, member)
	return 0, nil, b.commit(ctx, pools)
}

// drain lets a member get nothing new, and notes it, so that a reload does not bring it back.
func (b *balancer) drain(ctx context.Context, pool, member string) error {
	if b.pools[pool].Members[member].State == "ready" {
		pools, p := b.copied(pool)
		m := *p.Members[member]
		m.State = "drain"
		p.Members[member] = &m
		if err := b.commit(ctx, pools); err != nil {
			return err
		}
	}
	return b.admin.do(ctx, "set server "+backend+pool+"/"+member+" state drain")
}
