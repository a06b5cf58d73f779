package mailstore

import (
	"strings"
	"sync/atomic"
	"time"
)

// nonce identifies one attempt of one server to commit: it is unique for ever.
//
//	nonce  = origin "." ctr
//	origin = server "." boot      one run of one server
//	boot   = base-36 milliseconds since 2026-01-01T00:00:00Z, when the run began
//	ctr    = base-36 number, never used twice in a run
type nonce struct {
	origin string
	ctr    uint64
}

func (n nonce) append(b []byte) []byte {
	b = append(b, n.origin...)
	b = append(b, '.')
	return append36(b, n.ctr)
}

func (n nonce) String() string { return string(n.append(nil)) }

func parseNonce(s string) (nonce, bool) {
	i := strings.LastIndexByte(s, '.')
	if i < 0 {
		return nonce{}, false
	}
	ctr, ok := parse36(s[i+1:])
	if !ok || !validOrigin(s[:i]) {
		return nonce{}, false
	}
	return nonce{s[:i], ctr}, true
}

func validOrigin(s string) bool {
	i := strings.IndexByte(s, '.')
	if i < 0 || !validServer(s[:i]) {
		return false
	}
	_, ok := parse36(s[i+1:])
	return ok
}

// validMailboxID tells whether s can be the id of a mailbox: a nonce.
func validMailboxID(s string) bool {
	_, ok := parseNonce(s)
	return ok
}

// originServer is the server's part of an origin.
func originServer(origin string) string {
	s, _, _ := strings.Cut(origin, ".")
	return s
}

// msgID is the name of a message file.
//
//	msgid = origin "." ctr "." size "." crc      size in bytes, crc = CRC32C of the content, base 36
type msgID struct {
	nonce
	size uint64
	crc  uint32
}

func (m msgID) append(b []byte) []byte {
	b = append(b, m.origin...)
	return m.appendShort(b)
}

// appendShort leaves out the origin: the form used in records of the same origin.
func (m msgID) appendShort(b []byte) []byte {
	b = append(b, '.')
	b = append36(b, m.ctr)
	b = append(b, '.')
	b = append36(b, m.size)
	b = append(b, '.')
	return append36(b, uint64(m.crc))
}

func (m msgID) String() string { return string(m.append(nil)) }

// parseMsgID reads a msgid; one that begins with a dot takes the given origin.
func parseMsgID(s, origin string) (msgID, bool) {
	var m msgID
	i := strings.LastIndexByte(s, '.')
	if i < 0 {
		return m, false
	}
	crc, ok1 := parse36(s[i+1:])
	s = s[:i]
	if i = strings.LastIndexByte(s, '.'); i < 0 {
		return m, false
	}
	size, ok2 := parse36(s[i+1:])
	s = s[:i]
	if i = strings.LastIndexByte(s, '.'); i < 0 {
		return m, false
	}
	ctr, ok3 := parse36(s[i+1:])
	s = s[:i]
	if s == "" {
		s = origin
	} else if s != origin && !validOrigin(s) {
		return m, false
	}
	if !ok1 || !ok2 || !ok3 || crc > 1<<32-1 || size > 1<<32-1 || s == "" {
		return m, false
	}
	return msgID{nonce{s, ctr}, size, uint32(crc)}, true
}

var bootEpoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// lastBoot keeps two stores of one process apart that start within the same millisecond.
var lastBoot atomic.Int64

// newOrigin begins a run.
func newOrigin(server string, now time.Time) string {
	ms := max(now.Sub(bootEpoch).Milliseconds(), 1)
	for {
		last := lastBoot.Load()
		if ms <= last && last-ms < 1000 {
			ms = last + 1
		}
		if lastBoot.CompareAndSwap(last, ms) {
			return server + "." + string(append36(nil, uint64(ms)))
		}
	}
}
