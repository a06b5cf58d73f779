package authn

import (
	"crypto/sha256"
	"encoding/hex"
	"time"
)

// Peers tells the other servers that a login failed or, with known, that a user whom somebody guesses at has logged in from an address. user and
// address are keys: see Keys; "-" is none. Tell must not block.
type Peers interface {
	Tell(user, address string, known bool)
}

// Keys are hashes of a user and a client address: what servers tell each other says nothing about either to whom it should not.
func Keys(user, address string) (userKey, addressKey string) {
	return hashed("user", user), hashed("address", address)
}

func hashed(kind, s string) string {
	if s == "" {
		return "-"
	}
	sum := sha256.Sum256([]byte(kind + "\x00" + s))
	return hex.EncodeToString(sum[:16])
}

// tell tells the other servers.
func (a *authenticator) tell(user, address string, known bool) {
	if a.peers != nil {
		a.peers.Tell(user, address, known)
	}
}

// Heard takes a report of another server, by the keys that it sent ("-": none).
func (a *Authenticator) Heard(user, address string, known bool) {
	a.metrics.heard.Inc()
	a.mu.Lock()
	defer a.mu.Unlock()
	now := a.clock.Boot()
	pair := pairKey(user, address)
	if known {
		if user != "-" && address != "-" {
			a.known.put(pair, now)
		}
		return
	}
	if user != "-" {
		a.users.heard(user, 1, now)
	}
	if address != "-" {
		a.addresses.heard(address, 1, now)
		a.pairs.put(pair, now)
	}
}

// pairLife is how long an address from which a user failed is taken for a guesser's.
const pairLife = 10 * time.Minute
