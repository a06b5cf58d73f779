package smtpguard

import (
	"net"
	"net/netip"
	"sync"
)

// limits counts connections, all together and by address.
type limits struct {
	max, perAddress int

	mu     sync.Mutex
	total  int
	counts map[netip.Prefix]int
}

func (l *limits) init(max, perAddress int) {
	l.max, l.perAddress = max, perAddress
	l.counts = make(map[netip.Prefix]int)
}

// admit counts one connection, unless there are twice as many as the limit: then not even a reply is
// worth the memory. Each admitted connection calls leave once.
func (l *limits) admit() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.total >= 2*l.max {
		return false
	}
	l.total++
	return true
}

// enter says why an admitted connection from addr is to be refused: "total", "address", or "". It is
// asked when the client's address is known, which a PROXY header may delay. Key is for leave.
func (l *limits) enter(addr net.Addr) (key netip.Prefix, reason string) {
	key = prefixOf(addr)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.total > l.max {
		return netip.Prefix{}, "total"
	}
	if l.perAddress > 0 && key.IsValid() {
		if l.counts[key] >= l.perAddress {
			return netip.Prefix{}, "address"
		}
		l.counts[key]++
		return key, ""
	}
	return netip.Prefix{}, ""
}

func (l *limits) leave(key netip.Prefix) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.total--
	if !key.IsValid() {
		return
	}
	if l.counts[key]--; l.counts[key] <= 0 {
		delete(l.counts, key)
	}
}

// prefixOf gives the network that counts as one client: an IPv4 address, an IPv6 /64.
func prefixOf(addr net.Addr) netip.Prefix {
	tcp, ok := addr.(*net.TCPAddr)
	if !ok {
		return netip.Prefix{}
	}
	ip := tcp.AddrPort().Addr().Unmap().WithZone("")
	bits := 64
	if ip.Is4() {
		bits = 32
	}
	p, err := ip.Prefix(bits)
	if err != nil {
		return netip.Prefix{}
	}
	return p
}
