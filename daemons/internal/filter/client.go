package filter

import (
	"bytes"
	"io"
	"net/netip"
	"strings"
)

// client gives the name and the address of the client that the switch had the message from, for environment (RFC 5183 §4.1): by the first
// Received field, which is the switch's own. Empty: not known.
//
//	Received: from <name> ([<address>]) ...          address as in RFC 5321 §4.1.3: IPv6 has "IPv6:" in front
func client(r io.ReaderAt) (name, ip string) {
	b := make([]byte, 4<<10)
	n, err := r.ReadAt(b, 0)
	if err != nil && err != io.EOF {
		return "", ""
	}
	for line := range bytes.Lines(b[:n]) {
		text := strings.TrimRight(string(line), "\r\n")
		if text == "" {
			return "", ""
		}
		const field = "received: from "
		if len(text) < len(field) || !strings.EqualFold(text[:len(field)], field) {
			if len(text) > 9 && strings.EqualFold(text[:9], "received:") {
				return "", ""
			}
			continue
		}
		name, rest, ok := strings.Cut(text[len(field):], " ([")
		literal, _, end := strings.Cut(rest, "])")
		address, err := netip.ParseAddr(strings.TrimPrefix(literal, "IPv6:"))
		if !ok || !end || err != nil {
			return "", ""
		}
		return name, address.String()
	}
	return "", ""
}
