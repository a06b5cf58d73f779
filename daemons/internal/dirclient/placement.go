package dirclient

import (
	"context"
	"fmt"
	"slices"
	"strings"
)

// DefaultQuotaStorage is the storage limit, in bytes, of a new account for which neither its maker nor its domain's entry
// gives one.
const DefaultQuotaStorage = 2 << 30

// NoQuota as a new account's quota: none at all, whatever the domain says.
const NoQuota = -1

// defaultQuota fills in the quotas that the account's maker left open.
func (n *NewAccount) defaultQuota(d *Domain) {
	if n.QuotaStorage == 0 {
		if n.QuotaStorage = d.QuotaStorage; n.QuotaStorage == 0 {
			n.QuotaStorage = DefaultQuotaStorage
		}
	}
	if n.QuotaMessages == 0 {
		n.QuotaMessages = d.QuotaMessages
	}
	n.QuotaStorage, n.QuotaMessages = max(n.QuotaStorage, 0), max(n.QuotaMessages, 0)
}

// volumeFor finds the volume of a new account. Volumes that are draining or closed take none.
func (a *Admin) volumeFor(ctx context.Context, d *Domain, n *NewAccount) (string, error) {
	all, err := a.Volumes(ctx)
	if err != nil {
		return "", err
	}
	state := func(name string) string {
		if i := slices.IndexFunc(all, func(v Volume) bool { return v.Name == name }); i >= 0 {
			return all[i].State
		}
		return ""
	}
	if n.Volume != "" {
		if s := state(n.Volume); s != "" && s != VolumeActive {
			return "", fmt.Errorf("%w: volume %s is %s: it takes no new accounts", ErrInvalidName, n.Volume, s)
		}
		return n.Volume, nil
	}
	if s := state(d.DefaultVolume); d.DefaultVolume != "" && (s == "" || s == VolumeActive) {
		return d.DefaultVolume, nil
	}
	var active []string
	for _, v := range all {
		if v.State == VolumeActive {
			active = append(active, v.Name)
		}
	}
	switch {
	case len(active) == 1:
		return active[0], nil
	case len(active) == 0:
		return "", fmt.Errorf("%w: the directory lists no active volume", ErrInvalidName)
	case n.Place != nil:
		return n.Place(ctx, active)
	}
	return "", fmt.Errorf("%w: domain %s has no active default volume: name one of %s", ErrInvalidName, d.Name, strings.Join(active, ", "))
}
