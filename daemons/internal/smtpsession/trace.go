package smtpsession

import (
	"encoding/base32"
	"encoding/binary"
	"hash/fnv"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"time"

	"shoal/daemons/internal/clock"
)

// Traces makes the ids that follow a message across the servers: in Received, as ENVID to the box, in every log
// line about it.
//
//	trace = base32hex of ( 6 octets of ms since 1970, 3 octets of a counter, 4 octets of a hash of the server's name )
//
// 21 characters in lower case, which sort by time. The counter begins at random, so that a server that starts
// twice in a millisecond repeats none.
type Traces struct {
	clock   clock.Clock
	server  uint32
	counter atomic.Uint32
}

// NewTraces makes the source of a server's ids.
func NewTraces(server string, c clock.Clock) *Traces {
	h := fnv.New32a()
	h.Write([]byte(server))
	t := &Traces{clock: c, server: h.Sum32()}
	t.counter.Store(rand.Uint32())
	return t
}

var traceEncoding = base32.HexEncoding.WithPadding(base32.NoPadding)

// Next makes one id.
func (t *Traces) Next() string {
	var b [13]byte
	var ms, n [8]byte
	binary.BigEndian.PutUint64(ms[:], uint64(t.clock.Now().UnixMilli()))
	binary.BigEndian.PutUint32(n[:], t.counter.Add(1))
	copy(b[0:6], ms[2:8])
	copy(b[6:9], n[1:4])
	binary.BigEndian.PutUint32(b[9:], t.server)
	return strings.ToLower(traceEncoding.EncodeToString(b[:]))
}

// TraceTime reads the time back out of an id; ok is false for what is none.
func TraceTime(id string) (t time.Time, ok bool) {
	b, err := traceEncoding.DecodeString(strings.ToUpper(id))
	if err != nil || len(b) != 13 {
		return time.Time{}, false
	}
	return time.UnixMilli(int64(binary.BigEndian.Uint64(append([]byte{0, 0}, b[:6]...)))), true
}
