package vaultd

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"hash/fnv"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"shoal/daemons/internal/clock"
	"shoal/daemons/internal/dirstore"
	"shoal/daemons/internal/ldapsession"
	"shoal/daemons/internal/ldapwire"
	"shoal/daemons/internal/replica"
)

// The master writes while enough shadows grant it a lease, each by promising to vote for no other master for a while
// (package replica, lease.go). A promotion needs the votes of a majority of the voters, so
//
//	voters      grants that the master needs      votes that a promotion needs
//	0           none: it cannot be replaced       -
//	1           none                              1, and that the old master is known to be off
//	2           1                                 2
//	n > 2       n/2 + 1                           n/2 + 1
//
// and any two such sets have a voter in common, who votes only when its grant has passed. With one voter a lease would
// stop the updates whenever the one shadow is restarted, which is worse than asking the operator.
//
// Voters are the vaults whose server entry has shoalDirectoryVoter TRUE: a shadow gets it from the master when it first
// asks, and loses it with its entry.

// grantsNeeded is how many voters must grant the lease.
func grantsNeeded(voters int) int {
	switch {
	case voters < 2:
		return 0
	case voters == 2:
		return 1
	}
	return voters/2 + 1
}

// votesNeeded is how many voters must vote for a new master.
func votesNeeded(voters int) int { return voters/2 + 1 }

// leases is what the master holds. Its methods may run at once.
type leases struct {
	clock clock.Clock
	nonce string // of this process: a stamp of another one grants nothing

	mu      sync.Mutex
	voters  []string
	until   map[string]time.Duration // by voter: when its grant ends, since boot
	knows   map[string]string        // by voter: the electorate that it knows
	looked  time.Duration            // when it was known that no other is the master, since boot; -1: never
	changed chan struct{}            // closed by the next grant
}

func newLeases(c clock.Clock) *leases {
	var b [6]byte
	_, _ = rand.Read(b[:]) // it does not fail
	return &leases{clock: c, nonce: hex.EncodeToString(b[:]), until: map[string]time.Duration{}, knows: map[string]string{}, looked: -1, changed: make(chan struct{})}
}

// stamp says when now is.
func (l *leases) stamp() string {
	return l.nonce + "." + strconv.FormatInt(int64(l.clock.Boot()), 10)
}

// granted notes a request.
func (l *leases) granted(who string, r replica.LeaseRequest) {
	nonce, at, _ := strings.Cut(r.Stamp, ".")
	ns, err := strconv.ParseInt(at, 10, 64)
	if nonce != l.nonce || err != nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.until[who], l.knows[who] = max(l.until[who], time.Duration(ns)+r.For), r.Voters
	l.announce()
}

// announce lets those who wait look again. l.mu is held.
func (l *leases) announce() {
	close(l.changed)
	l.changed = make(chan struct{})
}

// look notes that the other vaults were asked, and none knows of a later master.
func (l *leases) look() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.looked = l.clock.Boot()
	l.announce()
}

// reset forgets the grants of another reign: the vault was just elected.
func (l *leases) reset() {
	l.mu.Lock()
	defer l.mu.Unlock()
	clear(l.until)
	clear(l.knows)
	l.looked = l.clock.Boot()
}

// electorate is a digest of names, in whatever order.
func electorate(names []string) string {
	h := fnv.New64a()
	for _, name := range slices.Sorted(slices.Values(names)) {
		h.Write([]byte(name + " "))
	}
	return strconv.FormatUint(h.Sum64(), 36)
}

// mayGrow says whether another voter may be added: so many of those who are must know of all of them that any majority
// for a promotion has one who does. Else electorates that overlap too little could choose at the same time.
func (l *leases) mayGrow() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.voters) < 2 {
		return true
	}
	n, now, is := 0, l.clock.Boot(), electorate(l.voters)
	for _, v := range l.voters {
		if l.until[v] > now && l.knows[v] == is {
			n++
		}
	}
	return n >= votesNeeded(len(l.voters))
}

// electorate sets the voters.
func (l *leases) electorate(voters []string) {
	l.mu.Lock()
	l.voters = voters
	l.mu.Unlock()
}

// held says whether the lease holds, and for how long yet; next is closed by the next grant.
func (l *leases) held() (ok bool, left time.Duration, next <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	need, now := grantsNeeded(len(l.voters)), l.clock.Boot()
	if l.looked < 0 || now-l.looked > lookedFor {
		return false, 0, l.changed
	}
	if need == 0 {
		return true, 0, l.changed
	}
	var ends []time.Duration
	for _, v := range l.voters {
		if u := l.until[v]; u > now {
			ends = append(ends, u)
		}
	}
	if len(ends) < need {
		return false, 0, l.changed
	}
	// The lease ends when the need-th longest grant does.
	for range need - 1 {
		i := 0
		for j := range ends {
			if ends[j] > ends[i] {
				i = j
			}
		}
		ends[i] = ends[len(ends)-1]
		ends = ends[:len(ends)-1]
	}
	last := ends[0]
	for _, e := range ends {
		last = max(last, e)
	}
	return true, last - now, l.changed
}

// gateWait is how long an update waits for a lease: a master that was started, and shadows that were, need a moment.
const gateWait = 5 * time.Second

// gate lets an update through while this vault is the master and holds the lease.
func (v *vault) gate(ctx context.Context, made bool) error {
	state := v.state()
	if state.Mode != replica.ModeMaster {
		if made {
			return ldapwire.Errorf(ldapwire.Unavailable, "this server has ceased to be the master meanwhile: whether the update stays is not known")
		}
		return ldapwire.Errorf(ldapwire.Unavailable, "the master of the directory is not known (%s)", state)
	}
	ok, _, next := v.leases.held()
	if ok {
		return nil
	}
	if made {
		return ldapwire.Errorf(ldapwire.Unavailable, "the lease of this master has lapsed meanwhile: whether the update stays is not known")
	}
	t := v.env.Clock.NewTimer(gateWait)
	defer t.Stop()
	for {
		select {
		case <-next:
		case <-t.C():
			voters := len(v.leases.list())
			return ldapwire.Errorf(ldapwire.Unavailable, "this master has no lease from enough shadows (%d of %d needed): no updates until it has", grantsNeeded(voters), voters)
		case <-ctx.Done():
			return ldapwire.Errorf(ldapwire.Unavailable, "given up")
		}
		if v.state().Mode != replica.ModeMaster {
			return ldapwire.Errorf(ldapwire.Unavailable, "this server has ceased to be the master")
		}
		if ok, _, next = v.leases.held(); ok {
			return nil
		}
	}
}

func (l *leases) list() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.voters
}

// countVoters reads the electorate from the directory.
func (v *vault) countVoters() {
	var names []string
	for _, p := range v.peers() {
		if p.voter {
			names = append(names, p.name)
		}
	}
	v.leases.electorate(names)
}

// renewal answers a shadow that renews the lease (ldapwire.OIDLease).
func (v *vault) renewal(norm []byte, rights *ldapsession.Rights, value []byte) ([]byte, error) {
	r, err := replica.ParseLeaseRequest(value)
	if err != nil {
		return nil, err
	}
	if !rights.Secrets {
		return nil, ldapwire.Errorf(ldapwire.InsufficientAccessRights, "a lease is granted by a vault")
	}
	state := v.state()
	if state.Mode != replica.ModeMaster {
		return nil, ldapwire.Errorf(ldapwire.UnwillingToPerform, "this server is no master")
	}
	if r.Epoch != state.Epoch {
		return nil, ldapwire.Errorf(ldapwire.UnwillingToPerform, "the lease is of epoch %d, not %d", r.Epoch, state.Epoch)
	}
	name, ok := v.serverName(norm)
	if !ok {
		return nil, ldapwire.Errorf(ldapwire.UnwillingToPerform, "%s is no entry of a server: its lease would not be counted", norm)
	}
	answer := []byte(replica.LeaseAnswer(state.Epoch, v.leases.stamp()))
	if err := v.admit(name); err != nil {
		return nil, err
	}
	v.leases.granted(name, r)
	v.countVoters()
	return answer, nil
}

// serverName is the name of a server by the normal form of its entry's name.
func (v *vault) serverName(norm []byte) (string, bool) {
	below, err := v.store.CheckDN([]byte(serversDN(v.store.Suffix())))
	if err != nil {
		return "", false
	}
	rdn, ok := bytes.CutSuffix(norm, append([]byte(","), below...))
	name, is := bytes.CutPrefix(rdn, []byte("cn="))
	return string(name), ok && is && !bytes.ContainsAny(name, ",+")
}

// admit makes a vault a voter, where it is none, if the electorate may grow now and this master may write.
func (v *vault) admit(name string) error {
	v.countVoters()
	if slices.Contains(v.leases.list(), name) {
		return nil
	}
	if ok, _, _ := v.leases.held(); !ok || !v.leases.mayGrow() {
		return ldapwire.Errorf(ldapwire.Busy, "%s gets a vote when enough of the others know of each other's", name)
	}
	return v.enfranchise(name)
}

// enfranchise makes a vault a voter, once.
func (v *vault) enfranchise(name string) error {
	for _, p := range v.peers() {
		if p.name == name && p.voter {
			return nil
		}
	}
	err := v.store.Do(v.rootDN, &dirstore.Modify{DN: []byte(dirclientServerDN(v.store.Suffix(), name)), Changes: []ldapwire.Change{
		{Op: ldapwire.ChangeReplace, Attribute: ldapwire.Attribute{Type: []byte("shoalDirectoryVoter"), Values: [][]byte{[]byte("TRUE")}}}}})
	if err != nil {
		return fmt.Errorf("voter %s: %w", name, err)
	}
	v.env.Log.Info("a shadow grants the lease from now on", "event", "directory-voter", "shadow", name)
	return nil
}

func dirclientServerDN(suffix, name string) string { return "cn=" + name + "," + serversDN(suffix) }
