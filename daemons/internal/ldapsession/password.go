package ldapsession

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"

	"golang.org/x/crypto/argon2"

	"shoal/daemons/internal/scram"
)

// A stored password is "{SCHEME}" and what the scheme makes of it (RFC 2307 §5.3):
//
//	{ARGON2}$argon2id$v=19$m=<KiB>,t=<passes>,p=<threads>$<salt>$<hash>    base64 without padding
//
// is what new ones are made with; what other servers made is in schemes.go. Beside it SCRAM verifiers are made
// (RFC 5803), which go to another attribute.

// PasswordParameters are the cost of argon2id.
type PasswordParameters struct {
	Memory  int // KiB
	Passes  int
	Threads int
}

// Bounds of what a stored hash may cost, so that one in the directory cannot take the server down.
const (
	maxArgonMemory = 1 << 20 // KiB
	maxArgonPasses = 100
	maxPassword    = 1024
)

const (
	saltSize = 16
	hashSize = 32
)

// clearScheme marks a password in clear, which only the root DN's may be: it comes from a file. It is
// not a scheme of stored passwords: what an entry has under this name is hashed like any other text,
// and what another server put there is refused.
const clearScheme = "{CLEARTEXT}"

// HashPassword makes the stored form of a password.
func HashPassword(p PasswordParameters, password []byte) string {
	salt := make([]byte, saltSize)
	if _, err := rand.Read(salt); err != nil {
		panic(err) // the kernel gives random numbers, or the process cannot live
	}
	h := argon2.IDKey(password, salt, uint32(p.Passes), uint32(p.Memory), uint8(p.Threads), hashSize)
	return fmt.Sprintf("{ARGON2}$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version, p.Memory, p.Passes, p.Threads,
		base64.RawStdEncoding.EncodeToString(salt), base64.RawStdEncoding.EncodeToString(h))
}

type argonHash struct {
	PasswordParameters
	salt, hash []byte
}

var errHash = errors.New("not a password hash that is understood")

func parseArgon(b []byte) (h argonHash, err error) {
	p := strings.Split(string(b), "$") // "", argon2id, v=19, m=..,t=..,p=.., salt, hash
	if len(p) != 6 || p[0] != "" || p[1] != "argon2id" || p[2] != "v="+strconv.Itoa(argon2.Version) {
		return h, errHash
	}
	if n, err := fmt.Sscanf(p[3], "m=%d,t=%d,p=%d", &h.Memory, &h.Passes, &h.Threads); n != 3 || err != nil {
		return h, errHash
	}
	if h.Memory < 8 || h.Memory > maxArgonMemory || h.Passes < 1 || h.Passes > maxArgonPasses || h.Threads < 1 || h.Threads > 64 {
		return h, errHash
	}
	if h.salt, err = base64.RawStdEncoding.DecodeString(p[4]); err != nil || len(h.salt) < 8 || len(h.salt) > 64 {
		return h, errHash
	}
	if h.hash, err = base64.RawStdEncoding.DecodeString(p[5]); err != nil || len(h.hash) < 16 || len(h.hash) > 64 {
		return h, errHash
	}
	return h, nil
}

// ErrBusy says that too many passwords wait to be verified.
var ErrBusy = errors.New("too many passwords wait to be verified")

// Passwords is the bounded pool in which passwords are hashed and verified.
type Passwords struct {
	param   PasswordParameters
	scram   []*scram.Hash
	rounds  int // of SCRAM
	slots   chan struct{}
	waiting atomic.Int64
	queue   int64
	dummy   []byte

	known    *remembered // nil: nothing is remembered
	recalled atomic.Uint64
}

// NewPasswords makes a pool. workers is how many work at once, 0 for one per processor; queue is how
// many more may wait.
func NewPasswords(p PasswordParameters, workers, queue int) *Passwords {
	if workers == 0 {
		workers = runtime.GOMAXPROCS(0)
	}
	return &Passwords{param: p, slots: make(chan struct{}, workers), queue: int64(queue),
		dummy: []byte(HashPassword(p, []byte("nobody has this password")))}
}

func (p *Passwords) enter(ctx context.Context) error {
	if p.waiting.Add(1) > p.queue+int64(cap(p.slots)) {
		p.waiting.Add(-1)
		return ErrBusy
	}
	select {
	case p.slots <- struct{}{}:
		return nil
	case <-ctx.Done():
		p.waiting.Add(-1)
		return ctx.Err()
	}
}

func (p *Passwords) leave() {
	<-p.slots
	p.waiting.Add(-1)
}

// Waiting is how many passwords are in the pool, at work or waiting.
func (p *Passwords) Waiting() int { return int(p.waiting.Load()) }

// Verify reports whether the password is one of the stored ones. It takes the time of argon2id, unless it knows it again
// (Remember), even when there are none, so that the time does not tell whether a name exists. The error is ErrBusy, or
// that of ctx.
func (p *Passwords) Verify(ctx context.Context, stored [][]byte, password []byte) (bool, error) {
	i, err := p.Find(ctx, stored, password)
	return i >= 0, err
}

// Find is Verify that tells which one of the stored passwords it is, -1 for none.
func (p *Passwords) Find(ctx context.Context, stored [][]byte, password []byte) (int, error) {
	if len(password) > maxPassword {
		return -1, nil
	}
	if i := p.known.find(stored, password); i >= 0 {
		p.recalled.Add(1)
		return i, nil
	}
	if err := p.enter(ctx); err != nil {
		return -1, err
	}
	defer p.leave()
	found, slow := -1, false
	for i, s := range stored {
		m, sl := verify(s, password)
		if m && found < 0 {
			found = i
		}
		slow = slow || sl
	}
	if !slow {
		verify(p.dummy, password)
	}
	if found >= 0 {
		p.known.keep(stored[found], password)
	}
	return found, nil
}

// Hash makes the stored form of a password, and its SCRAM verifiers. The error is ErrBusy, or that of ctx.
func (p *Passwords) Hash(ctx context.Context, password []byte) (stored []byte, verifiers [][]byte, err error) {
	if err := p.enter(ctx); err != nil {
		return nil, nil, err
	}
	defer p.leave()
	for _, h := range p.scram {
		verifiers = append(verifiers, []byte(scram.New(h, string(password), p.rounds).String()))
	}
	return []byte(HashPassword(p.param, password)), verifiers, nil
}

// Scram says which SCRAM verifiers Hash makes, at how many iterations. It is for construction only.
func (p *Passwords) Scram(iterations int, hashes ...*scram.Hash) {
	p.rounds, p.scram = iterations, hashes
}

// current reports whether a stored password, and the verifiers beside it if there is a place for them, are as Hash would
// make them.
func (p *Passwords) current(stored []byte, verifiers [][]byte, place bool) bool {
	scheme, rest, ok := cutScheme(stored)
	if !ok || scheme != "ARGON2" {
		return false
	}
	h, err := parseArgon(rest)
	if err != nil || h.Memory < p.param.Memory || h.Passes < p.param.Passes {
		return false
	}
	for _, h := range p.scram {
		if _, ok := scram.Find(h, verifiers); !ok && place {
			return false
		}
	}
	return true
}
