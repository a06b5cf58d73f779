package ldapsession

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"sync"
	"time"

	"shoal/daemons/internal/clock"
)

// remembered tells which stored passwords were found right a short while ago, so that a client that binds for each search costs
// argon2id once. It keeps no password and no hash: only the HMAC, with a key of this process, of a stored password and the one in
// clear that it was. What was found wrong is not kept: guessing costs the full time.
//
// Each bind reads the entry anew, its stored passwords too: a password that was changed or taken away is another stored
// one, and nothing is remembered of it; locks, expiry and what else the policy or the rights say are looked at as without it.
type remembered struct {
	key   [32]byte
	life  time.Duration
	half  int // so many in each of the two maps
	clock clock.Clock

	mu         sync.Mutex
	fresh, old map[[sha256.Size]byte]time.Duration // until when, since boot
	turned     time.Duration                       // when fresh was begun
}

// Remember makes the pool know again what it found right, for so long and so many at most; 0 of either: it does not. It is for
// construction only.
func (p *Passwords) Remember(life time.Duration, most int, c clock.Clock) {
	if life <= 0 || most <= 0 {
		p.known = nil
		return
	}
	k := &remembered{life: life, half: max(most/2, 1), clock: c, fresh: map[[sha256.Size]byte]time.Duration{}, turned: c.Boot()}
	if _, err := rand.Read(k.key[:]); err != nil {
		panic(err) // the kernel gives random numbers, or the process cannot live
	}
	p.known = k
}

// Known is how many passwords were found right from memory.
func (p *Passwords) Known() uint64 { return p.recalled.Load() }

func (k *remembered) mark(stored, password []byte) (sum [sha256.Size]byte) {
	h := hmac.New(sha256.New, k.key[:])
	var n [8]byte
	binary.BigEndian.PutUint64(n[:], uint64(len(stored)))
	h.Write(n[:])
	h.Write(stored)
	h.Write(password)
	return [sha256.Size]byte(h.Sum(nil))
}

// find looks for the password among the stored ones, -1 for not known. The time it takes depends on the marks only, which nobody can
// make without the key.
func (k *remembered) find(stored [][]byte, password []byte) int {
	if k == nil {
		return -1
	}
	now := k.clock.Boot()
	for i, s := range stored {
		m := k.mark(s, password)
		k.mu.Lock()
		until, ok := k.fresh[m]
		if !ok {
			until, ok = k.old[m]
		}
		k.mu.Unlock()
		if ok && now < until {
			return i
		}
	}
	return -1
}

// keep remembers one.
func (k *remembered) keep(stored, password []byte) {
	if k == nil {
		return
	}
	m, now := k.mark(stored, password), k.clock.Boot()
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.fresh) >= k.half || now-k.turned > k.life {
		k.old, k.fresh, k.turned = k.fresh, map[[sha256.Size]byte]time.Duration{}, now
	}
	k.fresh[m] = now + k.life
}
