package route

import (
	"context"
	"errors"
	"fmt"

	"shoal/daemons/internal/mailaddr"
)

// Bounds of what one address may stand for.
const (
	MaxDepth  = 20   // aliases and forwards that lead to each other
	MaxLeaves = 1000 // addresses in the end
)

// Errors of Resolve that are not temporary.
var (
	// ErrCircle: the address stands for nobody but itself.
	ErrCircle = errors.New("the address leads back to itself and to nobody else")
	// ErrTooMany: it stands for more than MaxLeaves, or by more than MaxDepth steps.
	ErrTooMany = errors.New("the address stands for too many others")
)

// Leaf is an address at which mail arrives, with the decision about it: any outcome but Expanded.
type Leaf struct {
	Address  mailaddr.Address
	Decision Decision
}

// Resolve follows aliases and forwards from a, about which d was decided, to their ends. An address that is met again is left
// out: aliases may lead in circles. The leaves are in the order in which they were found, each once. Errors other than
// ErrCircle and ErrTooMany are temporary.
func Resolve(ctx context.Context, r interface {
	Route(context.Context, mailaddr.Address) (Decision, error)
}, a mailaddr.Address, d Decision) ([]Leaf, error) {
	w := walk{route: r.Route, seen: map[string]bool{}, leaf: map[string]bool{}}
	if err := w.follow(ctx, a, d, 0); err != nil {
		return nil, fmt.Errorf("%s: %w", a, err)
	}
	if len(w.leaves) == 0 {
		return nil, fmt.Errorf("%s: %w", a, ErrCircle)
	}
	return w.leaves, nil
}

type walk struct {
	route  func(context.Context, mailaddr.Address) (Decision, error)
	seen   map[string]bool // addresses and accounts that were expanded
	leaf   map[string]bool
	leaves []Leaf
}

func (w *walk) follow(ctx context.Context, a mailaddr.Address, d Decision, depth int) error {
	if d.Outcome != Expanded {
		return w.add(a, d)
	}
	key := a.Key()
	if d.Account != nil {
		key = d.Account.Address // whatever address of the account led here
	}
	if w.seen[key] {
		return nil
	}
	w.seen[key] = true
	if depth++; depth > MaxDepth {
		return ErrTooMany
	}
	if d.Keep {
		own, err := mailaddr.Parse(d.Recipient())
		if err != nil {
			return err
		}
		kept := d
		kept.Outcome, kept.Targets, kept.Keep = Local, nil, false
		if err := w.add(own, kept); err != nil {
			return err
		}
	}
	for _, t := range d.Targets {
		to, err := mailaddr.Parse(t)
		if err != nil {
			return err
		}
		next, err := w.route(ctx, to)
		if err != nil {
			return err
		}
		if err := w.follow(ctx, to, next, depth); err != nil {
			return err
		}
	}
	return nil
}

func (w *walk) add(a mailaddr.Address, d Decision) error {
	key := a.Key()
	if d.Outcome == Local {
		key = d.Recipient()
	}
	if w.leaf[key] {
		return nil
	}
	w.leaf[key] = true
	if len(w.leaves) == MaxLeaves {
		return ErrTooMany
	}
	w.leaves = append(w.leaves, Leaf{Address: a, Decision: d})
	return nil
}
