package vaultd

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"shoal/daemons/internal/dirstore"
	"shoal/daemons/internal/ldapwire"
	"shoal/daemons/internal/replica"
)

// The role of a vault can change while it runs: a shadow is promoted, a master gives way to a later one.

// state is the reign now.
func (v *vault) state() reign {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.reign
}

// setReign changes it, on the disk first.
func (v *vault) setReign(g reign) error {
	g.Promise = max(g.Promise, v.state().Promise)
	if err := g.save(v.config.Database.Path); err != nil {
		return fmt.Errorf("reign: %w", err)
	}
	v.mu.Lock()
	v.reign = g
	v.mu.Unlock()
	v.store.Fence(g.Mode != replica.ModeMaster)
	return v.showReign()
}

// showReign puts it into the root DSE.
func (v *vault) showReign() error {
	if v.server == nil {
		return nil
	}
	g := v.state()
	one := func(name, value string) ldapwire.Attribute {
		return ldapwire.Attribute{Type: []byte(name), Values: [][]byte{[]byte(value)}}
	}
	list := []ldapwire.Attribute{one(replica.AttributeMode, g.Mode), one(replica.AttributeEpoch, strconv.FormatUint(g.Epoch, 10))}
	if g.Master != "" {
		list = append(list, one(replica.AttributeMaster, g.Master))
	}
	return v.server.SetRootDSE(list)
}

// openReign finds out what this vault is, and makes a master's entries.
func (v *vault) openReign(c *Config) error {
	g, ok, err := loadReign(c.Database.Path)
	if err != nil {
		return err
	}
	provided := c.Shadow != nil && len(c.Shadow.Provider) > 0
	if !ok {
		var known bool
		if g, known, err = reignOfEntry(v.store); err != nil {
			return err
		}
		switch {
		case provided && g.Epoch == 0:
			g = reign{Master: "", Mode: replica.ModeShadow}
		case !known:
			g = reign{Master: v.name, Mode: replica.ModeMaster}
		case g.Master == v.name && !provided:
			g.Mode = replica.ModeMaster
		case g.Epoch == 0 && c.Shadow == nil:
			// The block was taken out of a shadow's file: that is a promotion without a question.
			g = reign{Epoch: 1, Master: v.name, Mode: replica.ModeMaster}
		default:
			g.Mode = replica.ModeShadow
		}
	}
	if c.Shadow != nil {
		g.Promise = max(g.Promise, c.Shadow.Lease)
	}
	v.reign = g
	v.store.Fence(g.Mode != replica.ModeMaster)
	if err := g.save(c.Database.Path); err != nil {
		return fmt.Errorf("reign: %w", err)
	}
	// A grant that a process before this one gave may hold yet.
	if c.Shadow != nil && g.Mode != replica.ModeMaster {
		v.promised = v.env.Clock.Boot() + promise(g.Promise)
	}
	if g.Mode == replica.ModeMaster {
		return v.rule(g)
	}
	return nil
}

// rule makes the database that of the master of a reign: what is written from now on is in no cookie of another one.
func (v *vault) rule(g reign) error {
	v.store.SetSID(g.sid())
	r, err := v.store.Read()
	if err != nil {
		return err
	}
	ordered := r.LogOrdered()
	r.Close()
	if v.store.Cookie() != "" || !ordered {
		forget := &dirstore.Context{CSNs: v.store.ContextCSN(), Cookie: []byte{}}
		if !ordered {
			forget.Refresh = dirstore.RefreshEnds
		}
		if err := v.store.Do(v.rootDN, forget); err != nil {
			return err
		}
	}
	if err := bootstrap(v.store, v.rootDN); err != nil {
		return err
	}
	if have, ok, err := reignOfEntry(v.store); err != nil || !ok || have.Epoch != g.Epoch || have.Master != g.Master {
		if err := g.proclaim(v.store, v.rootDN); err != nil {
			return err
		}
	}
	v.countVoters()
	return nil
}

// act begins to do what the role asks for. v.changing is held.
func (v *vault) act() {
	if v.parent == nil || v.parent.Err() != nil {
		return
	}
	ctx, cancel := context.WithCancel(v.parent)
	v.cancel = cancel
	switch g := v.state(); {
	case g.Mode == replica.ModeMaster:
		v.acting.Go(func() { v.lookOut(ctx) })
		v.acting.Go(func() { v.prepareScram(ctx, v.config) })
	case g.Mode == replica.ModeShadow && v.replica != nil:
		v.acting.Go(func() { _ = v.replica.Run(ctx) }) // it ends with ctx, without an error
		v.acting.Go(func() { v.link.run(ctx) })
	}
}

// halt ends that and waits. v.changing is held.
func (v *vault) halt() {
	if v.cancel != nil {
		v.cancel()
		v.cancel = nil
	}
	v.acting.Wait()
}

// rest is halt for good.
func (v *vault) rest() {
	v.changing.Lock()
	defer v.changing.Unlock()
	v.halt()
	v.parent = nil
}

// lookEvery is how often a master looks for one of a later epoch, lookWithin how long it waits for an answer.
const (
	lookEvery  = 5 * time.Second
	lookWithin = 2 * time.Second
	// lookedFor is for how long it may write after it has looked: one that was frozen looks again before it goes on.
	lookedFor = 4 * lookEvery
)

// lookOut asks the other vaults for a later master, before the first update and then again and again: one that was
// away for a promotion gives way.
func (v *vault) lookOut(ctx context.Context) {
	for ctx.Err() == nil {
		v.countVoters()
		later := v.laterMaster(ctx)
		if later != nil {
			// From a goroutine of its own: it ends this one.
			go v.giveWay(*later)
			return
		}
		if ctx.Err() != nil {
			return
		}
		v.leases.look()
		t := v.env.Clock.NewTimer(lookEvery)
		select {
		case <-ctx.Done():
		case <-t.C():
		}
		t.Stop()
	}
}

// laterMaster is the reign of a master with a later epoch, if one answers.
func (v *vault) laterMaster(ctx context.Context) *reign {
	if v.verify == nil {
		return nil
	}
	g := v.state()
	var all sync.WaitGroup
	var mu sync.Mutex
	var later *reign
	for _, p := range v.peers() {
		all.Go(func() {
			for _, uri := range p.uris {
				is, err := replica.Introduce(ctx, uri, v.verify, lookWithin)
				if err != nil {
					continue
				}
				mu.Lock()
				defer mu.Unlock()
				switch {
				case !is.Vault || is.Mode != replica.ModeMaster:
				case is.Epoch > g.Epoch && (later == nil || is.Epoch > later.Epoch):
					later = &reign{Epoch: is.Epoch, Master: is.Master, Mode: replica.ModeShadow}
				case is.Epoch == g.Epoch && is.Master != g.Master:
					v.env.Log.Error("there are two masters of one epoch: end one of them, and promote the other once more",
						"event", "directory-two-masters", "epoch", g.Epoch, "other", is.Master, "uri", uri)
				}
				return
			}
		})
	}
	all.Wait()
	return later
}

// giveWay makes of a master a shadow of a later one.
func (v *vault) giveWay(g reign) {
	v.changing.Lock()
	defer v.changing.Unlock()
	if now := v.state(); now.Mode != replica.ModeMaster || now.Epoch >= g.Epoch || v.parent == nil {
		return
	}
	v.halt()
	err := v.setReign(g)
	if err == nil {
		err = v.follows()
	}
	if err != nil {
		v.env.Log.Error("this master cannot give way to a later one", "error", err)
	}
	v.env.Log.Warn("this vault was the master and gives way to a later one", "event", "directory-give-way", "epoch", g.Epoch, "master", g.Master)
	v.act()
}

// readyToAnswer returns nil when the database holds a whole directory, however old.
func (v *vault) readyToAnswer() error {
	g := v.state()
	switch {
	case g.Mode == replica.ModeMaster && v.store.Entries() == 0:
		return errors.New("the directory is empty")
	case g.Mode == replica.ModeMaster:
		return nil
	case v.replica == nil:
		return fmt.Errorf("this vault was replaced by %s (epoch %d), and has no block shadow by which to follow it", g.Master, g.Epoch)
	}
	return v.replica.Ready()
}

// reignStatus adds what an operator wants to know of the role.
func (v *vault) reignStatus(status map[string]any) {
	g := v.state()
	status["mode"], status["epoch"], status["master"] = g.Mode, g.Epoch, g.Master
	v.mu.Lock()
	promised := v.promised - v.env.Clock.Boot()
	v.mu.Unlock()
	if g.Mode == replica.ModeMaster {
		held, left, _ := v.leases.held()
		voters := v.leases.list()
		status["voters"] = voters
		status["lease"] = map[string]any{"held": held, "seconds": left.Seconds(), "grants_needed": grantsNeeded(len(voters)), "votes_needed": votesNeeded(len(voters))}
		return
	}
	status["known_voters"] = v.knownVoters(g.Master)
	if promised > 0 {
		status["promised_seconds"] = promised.Seconds()
	}
	if v.replica != nil {
		v.shadowStatus(status)
	}
}
