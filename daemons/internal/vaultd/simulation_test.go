package vaultd

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"shoal/daemons/internal/clock"
	"shoal/daemons/internal/dirschema"
	"shoal/daemons/internal/dirstore"
	"shoal/daemons/internal/kit"
	"shoal/daemons/internal/ldapsession"
	"shoal/daemons/internal/ldapwire"
	"shoal/daemons/internal/replica"
)

// The simulation drives the real code of leases, votes and promotions (grant, renewal, vote, promote, gate, the file
// reign), without a network: requests and answers wait, come late, out of order, or never; vaults are killed and started
// again; clocks run at different speeds; two operators promote at once. A master never hears of a later one by itself.
// After every step at most one vault may acknowledge an update.
type simulation struct {
	t      *testing.T
	rnd    *rand.Rand
	vaults []*simVault
	wire   []func()
	hasty  bool // operators do not wait for grants to pass: a mistake that must be found
	acks   int
	wins   int
}

type simVault struct {
	*vault
	clock   *clock.Fake
	speed   float64
	session int // of a synchronization
	stamp   string
	master  *simVault
}

func (s *simulation) open(old *simVault, name, folder string, master bool) *simVault {
	t := s.t
	schema, err := dirschema.Default()
	fatal(t, err)
	sv := &simVault{}
	if old != nil {
		fatal(t, old.store.Close())
		sv.clock, sv.speed, sv.session = old.clock, old.speed, old.session+1
	} else {
		sv.clock, sv.speed = clock.NewFake(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)), 1+(s.rnd.Float64()-0.5)/100
	}
	log := slog.New(slog.DiscardHandler)
	store, err := dirstore.Open(dirstore.Options{Path: folder, Suffix: "o=shoal", Schema: schema, Clock: sv.clock, Log: log, Unsynced: true})
	fatal(t, err)
	c := &Config{Suffix: "o=shoal", Shadow: &Shadow{Lease: 10 * time.Second}}
	c.Database.Path = folder
	if !master {
		c.Shadow.Provider = []string{"ldap://127.0.0.1:1"}
	}
	v := &vault{env: &kit.Env{Log: log, Clock: sv.clock}, config: c, name: name, rootDN: "cn=admin,o=shoal", leases: newLeases(sv.clock), store: store}
	sv.vault = v
	if old == nil {
		fatal(t, bootstrap(store, v.rootDN))
		for i := range cap(s.vaults) {
			one := func(name, value string) ldapwire.Attribute {
				return ldapwire.Attribute{Type: []byte(name), Values: [][]byte{[]byte(value)}}
			}
			server := fmt.Sprintf("vault%d", i+1)
			list := []ldapwire.Attribute{one("objectClass", "shoalServer"), one("cn", server), one("shoalRole", "vault"), one("shoalAddress", "ldap 127.0.0.1:1")}
			if i > 0 {
				list = append(list, one("shoalDirectoryVoter", "TRUE"))
			}
			fatal(t, store.Do(v.rootDN, &dirstore.Add{DN: []byte(dirclientServerDN("o=shoal", server)), Attributes: list}))
		}
		if !master {
			fatal(t, v.follows())
		}
	}
	v.replica, err = replica.New(replica.Options{Store: store, Providers: []string{"ldap://127.0.0.1:1"}, TLS: &tls.Config{}, Clock: sv.clock, Log: log,
		More: v.moreProviders})
	fatal(t, err)
	fatal(t, v.openReign(c))
	return sv
}

func fatal(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (s *simulation) any() *simVault { return s.vaults[s.rnd.IntN(len(s.vaults))] }

// send leaves a message on the wire; some are lost.
func (s *simulation) send(f func()) {
	if s.rnd.IntN(8) > 0 {
		s.wire = append(s.wire, f)
	}
}

// follow lets a shadow begin a session with a master.
func (s *simulation) follow(sh *simVault) {
	m := s.any()
	if m == sh || m.state().Mode != replica.ModeMaster || sh.state().Mode != replica.ModeShadow {
		return
	}
	g := m.state()
	if _, err := sh.accept(&replica.Provider{URI: m.name, Vault: true, Mode: g.Mode, Epoch: g.Epoch, Master: g.Master, Context: sh.store.ContextCSN()}); err != nil {
		return
	}
	sh.session++
	sh.stamp, sh.master = "", m
}

// renew sends a renewal.
func (s *simulation) renew(sh *simVault) {
	if sh.master == nil {
		return
	}
	value, ok := sh.grant(sh.stamp)
	if !ok {
		return
	}
	session, m, v := sh.session, sh.master, sh.vault
	norm, err := sh.store.CheckDN([]byte(dirclientServerDN("o=shoal", sh.name)))
	fatal(s.t, err)
	s.send(func() {
		answer, err := m.renewal(norm, &ldapsession.Rights{Secrets: true}, []byte(value))
		if err != nil {
			return
		}
		s.send(func() {
			if sh.session == session && sh.vault == v {
				sh.stamp = strings.Fields(string(answer))[2]
			}
		})
	})
}

// operator runs one promotion as shoalctl does, without the old master and without its being known to be off: a step for
// each call; done at its end.
func (s *simulation) operator() func() (done bool) {
	candidate := s.any()
	epoch, voters := uint64(0), []string{}
	for _, v := range s.vaults {
		if s.rnd.IntN(4) > 0 { // the others do not answer
			g := v.state()
			epoch = max(epoch, g.Epoch)
			for _, name := range v.knownVoters(g.Master) {
				if !slices.Contains(voters, name) {
					voters = append(voters, name)
				}
			}
		}
	}
	epoch++
	counted := map[string]bool{}
	asked := false
	return func() bool {
		v := s.any()
		if !asked {
			v = candidate
		}
		answer, err := v.vote(VoteRequest{Epoch: epoch, Master: candidate.name})
		if err != nil {
			return v == candidate || s.rnd.IntN(3) == 0
		}
		asked = true
		if s.rnd.IntN(6) == 0 {
			return s.rnd.IntN(4) == 0 // the answer is lost
		}
		for _, name := range answer.Voters {
			if !slices.Contains(voters, name) {
				voters = append(voters, name)
			}
		}
		if (answer.Wait <= 0 || s.hasty) && slices.Contains(voters, v.name) {
			counted[v.name] = true
		}
		if len(counted) < votesNeeded(len(voters)) || len(voters) < 2 {
			return s.rnd.IntN(60) == 0
		}
		s.send(func() {
			if candidate.promote(PromoteRequest{Epoch: epoch, OldMaster: "vault1"}) == nil {
				s.wins++
			}
		})
		return true
	}
}

// check looks who acknowledges updates now.
func (s *simulation) check() (twice string) {
	var who []string
	for _, v := range s.vaults {
		if v.gate(context.Background(), true) == nil {
			who = append(who, fmt.Sprintf("%s (%s)", v.name, v.state()))
		}
	}
	s.acks += min(len(who), 1)
	if len(who) > 1 {
		return strings.Join(who, " and ")
	}
	return ""
}

func simulate(t *testing.T, seed uint64, vaults int, hasty bool) (s *simulation, twice string) {
	s = &simulation{t: t, rnd: newRand(seed + uint64(vaults)<<32), hasty: hasty, vaults: make([]*simVault, 0, vaults)}
	folders := make([]string, vaults)
	folder, err := os.MkdirTemp("/dev/shm", "shoal-simulation") // in memory: nothing is killed here but in pretence
	fatal(t, err)
	defer os.RemoveAll(folder)
	for i := range vaults {
		folders[i] = filepath.Join(folder, fmt.Sprint(seed, hasty, i))
		fatal(t, os.Mkdir(folders[i], 0o700))
		s.vaults = append(s.vaults, s.open(nil, fmt.Sprintf("vault%d", i+1), folders[i], i == 0))
	}
	defer func() {
		for _, v := range s.vaults {
			fatal(t, v.store.Close())
		}
	}()
	operators := []func() bool{nil, nil}
	for range 2000 {
		switch n := s.rnd.IntN(100); {
		case n < 8:
			for d, i := time.Duration(s.rnd.IntN(1200))*time.Millisecond, 0; i < vaults; i++ {
				s.vaults[i].clock.Advance(time.Duration(float64(d) * s.vaults[i].speed))
			}
		case n < 42:
			s.renew(s.any())
		case n < 74 && len(s.wire) > 0:
			i := s.rnd.IntN(len(s.wire))
			f := s.wire[i]
			s.wire = slices.Delete(s.wire, i, i+1)
			f()
		case n < 82:
			s.follow(s.any())
		case n < 89:
			if v := s.any(); v.state().Mode == replica.ModeMaster {
				v.leases.look()
			}
		case n < 99:
			i := s.rnd.IntN(len(operators))
			if operators[i] == nil {
				if s.rnd.IntN(25) == 0 {
					operators[i] = s.operator()
				}
			} else if operators[i]() {
				operators[i] = nil
			}
		default:
			i := s.rnd.IntN(vaults)
			old := s.vaults[i]
			fresh := s.open(old, old.name, folders[i], i == 0)
			*old = *fresh // who speaks of it means the new one
		}
		if twice := s.check(); twice != "" {
			return s, twice
		}
	}
	return s, ""
}

// Two masters never acknowledge updates at once, whatever is lost, late, slow or started again. The same simulation finds
// it out when operators do not wait for the grants to pass.
func TestTwoMastersNeverAcknowledge(t *testing.T) {
	acks, wins := 0, 0
	for seed := range uint64(40) {
		s, twice := simulate(t, seed, 3+int(seed%3), false)
		if twice != "" {
			t.Errorf("seed %d: %s", seed, twice)
		}
		acks, wins = acks+s.acks, wins+s.wins
	}
	t.Logf("an update would have been acknowledged after %d steps; %d promotions", acks, wins)
	if acks < 1000 || wins < 10 {
		t.Error("the simulation shows little: hardly anybody was master")
	}
	found := 0
	for seed := range uint64(40) {
		if _, twice := simulate(t, seed, 3+int(seed%3), true); twice != "" {
			found++
		}
	}
	if t.Logf("found with hasty operators: %d of 40", found); found == 0 {
		t.Error("the simulation does not find two masters where operators do not wait")
	}
}

func newRand(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 0)) }

// contextWith is the end of a refresh of a shadow with an agreement.
func contextWith(csns []string, agreement string) *dirstore.Context {
	return &dirstore.Context{CSNs: csns, Cookie: []byte("rid=001,csn=" + strings.Join(csns, ";") + ",content=" + base64.RawURLEncoding.EncodeToString([]byte(agreement)))}
}
