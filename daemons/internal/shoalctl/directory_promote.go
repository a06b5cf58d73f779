package shoalctl

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// Bounds of a promotion.
const (
	promoteEvery = 100 * time.Millisecond
	catchUp      = 30 * time.Second // a candidate has the last change of a master that gave way
	voteWithin   = 5*time.Minute + 30*time.Second
)

// promotion is one run of the command.
type promotion struct {
	t         *tool
	k         *control
	all       []*vaultView
	candidate *vaultView
	old       *vaultView // the master as the others know it; nil if nobody knows
	epoch     uint64
	voters    []string
	off       bool // --old-master-is-off
	lose      bool // --lose-changes
	yes       bool
}

type voteAnswer struct {
	WasMaster  bool     `json:"was_master"`
	Wait       float64  `json:"wait_seconds"`
	ContextCSN []string `json:"context_csn"`
	Voters     []string `json:"known_voters"` // missing from older versions
}

func (t *tool) cmdDirectoryPromote() *cobra.Command {
	p := &promotion{t: t}
	cmd := &cobra.Command{
		Use:   "promote NAME",
		Short: "Make a shadow the master of the directory",
		Long: `Make a shadow the master: it takes the updates from now on, and the other vaults follow it.

If the present master answers it gives way first, and nothing is lost. If it does not, a majority of the voters
(` + "`directory replicas`" + ` shows them) must vote for the new master; each does when the lease that it granted the old one
has passed, which takes 10 seconds as it comes. Then the old master writes no more, wherever it is. When there are too few
votes (with one shadow always), it must be known to be switched off, or cut off from everybody: --old-master-is-off.

What the old master had acknowledged and no shadow had got is lost to the directory. It is not lost for good: the old
master becomes a shadow when it comes back, and writes such changes into a file first (lost-*.ldif beside its database).
A shadow that is behind another one that answers is not promoted, unless --lose-changes is given.

The command can be repeated, also after it was interrupted, and also for another shadow.`,
		Example: `  shoalctl directory promote vault2
  shoalctl directory promote vault2 --old-master-is-off --yes`,
		Args: exactArgs("the name of a shadow"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return t.withVaults(cmd.Context(), func(_ *Config, k *control, all []*vaultView) error {
				p.k, p.all = k, all
				return p.run(cmd.Context(), strings.ToLower(args[0]))
			})
		},
	}
	cmd.Flags().BoolVar(&p.off, "old-master-is-off", false, "the old master is switched off or cut off from all: its lease is not waited for")
	cmd.Flags().BoolVar(&p.lose, "lose-changes", false, "promote it although another vault has changes that it has not")
	cmd.Flags().BoolVar(&p.yes, "yes", false, "do not ask")
	return cmd
}

func (p *promotion) run(ctx context.Context, name string) error {
	i := slices.IndexFunc(p.all, func(v *vaultView) bool { return v.Name == name })
	if i < 0 {
		return fmt.Errorf("%w: vault %s", errNoSuchEntry, name)
	}
	p.candidate = p.all[i]
	if p.candidate.Mode == "" {
		return fmt.Errorf("%w: %s does not answer: %s", errUnreachable, name, p.candidate.Problem)
	}
	p.look()
	if p.candidate.Mode == "master" && p.candidate == p.old {
		return fmt.Errorf("%s is the master already", name)
	}
	if p.candidate.Content != nil {
		return fmt.Errorf("%s has a part of the directory only, and cannot be the master", name)
	}
	if err := p.preview(); err != nil {
		return err
	}
	if !p.yes {
		if err := p.t.confirm(fmt.Sprintf("Make %s the master of the directory? [y/N] ", name)); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, voteWithin)
	defer cancel()
	if err := p.collect(ctx); err != nil {
		return err
	}
	body := map[string]any{"epoch": p.epoch, "old_master": p.oldName()}
	if err := p.k.send(ctx, http.MethodPost, p.candidate.address, "/v1/directory/promote", body, nil); err != nil {
		return fmt.Errorf("%s: %w", p.candidate.Name, err)
	}
	following := p.followers(ctx)
	result := map[string]any{"master": p.candidate.Name, "epoch": p.epoch, "old_master": p.oldName(), "following": following}
	return p.t.show(result, func() {
		p.t.say("%s is the master, epoch %d; followed by %s", p.candidate.Name, p.epoch, enumerateNames(following))
	})
}

func enumerateNames(names []string) string {
	if len(names) == 0 {
		return "nobody yet"
	}
	return strings.Join(names, ", ")
}

// look finds the old master, the voters and the epoch.
func (p *promotion) look() {
	var newest *vaultView // who knows most of who is the master
	for _, v := range p.all {
		if v.Mode == "" {
			continue
		}
		p.epoch = max(p.epoch, v.Epoch)
		if newest == nil || v.Epoch > newest.Epoch || v.Epoch == newest.Epoch && (v.last() > newest.last() || v.Mode == "master") {
			newest = v
		}
	}
	p.epoch++
	for _, v := range p.all {
		// One of an epoch below is none any more, whatever it says: it has not heard of the later one, which is asked for below.
		if v.Mode == "master" && v.Epoch == p.epoch-1 && (newest == nil || newest.Master == "" || v.Name == newest.Master) {
			p.old = v
		}
	}
	for _, v := range p.all { // of a promotion that ended half way, the candidate is named, and is no master
		if p.old == nil && newest != nil && v.Name == newest.Master && v.Mode == "" {
			p.old = v
		}
	}
	for _, v := range p.all {
		if v.Voter && v != p.old {
			p.voters = append(p.voters, v.Name)
		}
	}
}

func (p *promotion) oldName() string {
	if p.old == nil || p.old == p.candidate {
		return ""
	}
	return p.old.Name
}

// needed is how many votes of voters a promotion needs.
func (p *promotion) needed() int { return len(p.voters)/2 + 1 }

func (p *promotion) oldAnswers() bool { return p.old != nil && p.old.Mode == "master" }

// preview shows what is known and what may be lost; an error tells why this promotion should not be.
func (p *promotion) preview() error {
	if !p.t.json {
		p.t.printVaults(p.all)
		p.t.say("")
	}
	tell := func(format string, args ...any) { fmt.Fprintf(p.t.err, format+"\n", args...) }
	switch {
	case p.oldAnswers() && p.lose:
		tell("%s is the master and answers: it gives way first. Changes that %s has not got %s later are lost (--lose-changes).", p.old.Name, p.candidate.Name, catchUp)
	case p.oldAnswers():
		tell("%s is the master and answers: it gives way first, and nothing is lost.", p.old.Name)
	case p.old != nil:
		tell("%s was the master and does not answer. What it acknowledged after %s and no shadow got is missing until it comes back:", p.old.Name, p.candidate.last())
		tell("then it writes such changes into lost-*.ldif beside its database, for you to look through, and follows %s.", p.candidate.Name)
	default:
		tell("No vault is the master now.")
	}
	for _, v := range p.all {
		if v == p.candidate || v == p.old && p.oldAnswers() || v.Mode == "" || !lacks(p.candidate.ContextCSN, v.ContextCSN) {
			continue
		}
		if p.oldAnswers() && !lacks(p.old.ContextCSN, v.ContextCSN) {
			continue // it gets them from the old master
		}
		tell("%s has changes up to %s that %s has not (%s): they would be lost.", v.Name, v.last(), p.candidate.Name, p.candidate.last())
		if !p.lose && !p.oldAnswers() {
			return fmt.Errorf("%s has not everything that %s has: promote %s, or add --lose-changes", p.candidate.Name, v.Name, v.Name)
		}
	}
	if p.oldAnswers() {
		return nil
	}
	if p.off {
		if p.old != nil {
			tell("You say that %s is off. If it runs, and anybody reaches it, it goes on taking updates that the directory loses: make sure.", p.old.Name)
		}
		return nil
	}
	answering := 0
	for _, v := range p.all {
		if slices.Contains(p.voters, v.Name) && v.Mode != "" {
			answering++
		}
	}
	if len(p.voters) < 2 || answering < p.needed() {
		return fmt.Errorf("%d of %d voters answer and %d are needed to be sure that the old master writes no more: switch it off, then add --old-master-is-off",
			answering, len(p.voters), max(p.needed(), 2))
	}
	return nil
}

// lacks says whether have is behind other in the changes of some server.
func lacks(have, other []string) bool {
	own := map[string]string{}
	for _, c := range have {
		own[csnServer(c)] = c
	}
	return slices.ContainsFunc(other, func(c string) bool { return own[csnServer(c)] < c })
}

// collect gets the votes.
func (p *promotion) collect(ctx context.Context) error {
	off := p.off
	if p.oldAnswers() && p.old != p.candidate {
		answer, err := p.vote(ctx, p.old, false)
		if err != nil {
			return fmt.Errorf("%s does not give way: %w", p.old.Name, err)
		}
		off = true
		if err := p.await(ctx, answer.ContextCSN); err != nil {
			return err
		}
	}
	if err := p.granted(ctx, p.candidate, off); err != nil {
		return err
	}
	votes, counted := 0, []string{}
	var missing []string
	for _, v := range p.all {
		if v == p.old && v != p.candidate {
			continue
		}
		if v != p.candidate {
			if v.Mode == "" {
				missing = append(missing, v.Name+" (does not answer)")
				continue
			}
			if err := p.granted(ctx, v, off); err != nil {
				if refused := new(controlError); errors.As(err, &refused) && refused.code == http.StatusPreconditionFailed {
					return fmt.Errorf("%s has voted for another master meanwhile: is somebody else promoting one? Look at directory replicas, and repeat the command: %w", v.Name, err)
				}
				missing = append(missing, fmt.Sprintf("%s (%v)", v.Name, err))
				continue
			}
		}
		if slices.Contains(p.voters, v.Name) {
			votes++
			counted = append(counted, v.Name)
		}
	}
	if !off && votes < p.needed() {
		return fmt.Errorf("%d of %d votes, %d are needed (%s voted; without: %s): repeat the command, or switch the old master off and add --old-master-is-off",
			votes, len(p.voters), p.needed(), enumerateNames(counted), enumerateNames(missing))
	}
	return nil
}

func (p *promotion) vote(ctx context.Context, v *vaultView, off bool) (*voteAnswer, error) {
	answer := &voteAnswer{}
	body := map[string]any{"epoch": p.epoch, "master": p.candidate.Name, "old_master_is_off": off}
	return answer, p.k.send(ctx, http.MethodPost, v.address, "/v1/directory/vote", body, answer)
}

// granted gets the vote of one vault, and waits until it counts.
func (p *promotion) granted(ctx context.Context, v *vaultView, off bool) error {
	told := false
	for {
		answer, err := p.vote(ctx, v, off)
		if err != nil {
			return err
		}
		for _, name := range answer.Voters { // who votes now may know of more than it did when it was asked first
			if !slices.Contains(p.voters, name) && (p.old == nil || name != p.old.Name) {
				p.voters = append(p.voters, name)
			}
		}
		if answer.WasMaster && v.Mode != "master" && !p.lose {
			return &controlError{http.StatusPreconditionFailed, v.Name + " became the master meanwhile, and has given way: what it took is not at " + p.candidate.Name}
		}
		if answer.Wait <= 0 {
			return nil
		}
		if !told {
			told = true
			fmt.Fprintf(p.t.err, "%s votes in %.1f s, when its grant to the old master has passed\n", v.Name, answer.Wait)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(min(max(time.Duration(answer.Wait*float64(time.Second)), promoteEvery), time.Second)):
		}
	}
}

// await waits until the candidate has what the old master had when it gave way.
func (p *promotion) await(ctx context.Context, csns []string) error {
	ctx, cancel := context.WithTimeout(ctx, catchUp)
	defer cancel()
	for {
		now, err := p.refresh(ctx, p.candidate)
		if err == nil && !lacks(now.ContextCSN, csns) {
			return nil
		}
		select {
		case <-ctx.Done():
			if p.lose {
				return nil
			}
			return errors.Join(fmt.Errorf("%s has given way, and %s has not got its last changes in %s: repeat the command for %s or %s", p.old.Name, p.candidate.Name, catchUp, p.old.Name, p.candidate.Name), err)
		case <-time.After(promoteEvery):
		}
	}
}

// refresh asks one vault how it is now.
func (p *promotion) refresh(ctx context.Context, v *vaultView) (*vaultService, error) {
	var status struct{ Service map[string]any }
	if err := p.k.call(ctx, http.MethodGet, v.address, "/v1/status", &status); err != nil {
		return nil, err
	}
	is := &vaultService{}
	if !decodeService(status.Service, is) {
		return nil, errors.New("its status is not readable")
	}
	return is, nil
}

// followers waits a moment for the other vaults to follow, and names those that do.
func (p *promotion) followers(ctx context.Context) []string {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	for {
		names, all := []string{}, true
		for _, v := range p.all {
			if v == p.candidate || v.Mode == "" {
				continue
			}
			is, err := p.refresh(ctx, v)
			if err == nil && is.Epoch == p.epoch && is.Replication == "following" {
				names = append(names, v.Name)
			} else {
				all = false
			}
		}
		if all {
			return names
		}
		select {
		case <-ctx.Done():
			return names
		case <-time.After(promoteEvery):
		}
	}
}
