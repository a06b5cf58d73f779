package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math/rand"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// An ldapLoad sends equality searches on mail over several connections, depth of them in flight on each.
// Requests are encoded by hand, so that the generator costs little and both servers see the same bytes.
type ldapLoad struct {
	addr         string
	bindDN, pass string
	base         string
	connections  int
	depth        int
	entries      int
	attributes   []string
}

func ber(tag byte, parts ...[]byte) []byte {
	n := 0
	for _, p := range parts {
		n += len(p)
	}
	out := []byte{tag}
	switch {
	case n < 128:
		out = append(out, byte(n))
	case n < 256:
		out = append(out, 0x81, byte(n))
	default:
		out = append(out, 0x82, byte(n>>8), byte(n))
	}
	for _, p := range parts {
		out = append(out, p...)
	}
	return out
}

func berInt(tag byte, n int) []byte {
	return ber(tag, []byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)})
}

// readBER reads one whole element; it returns the LDAP operation's tag and its content.
func readBER(r *bufio.Reader) (op byte, content []byte, err error) {
	element := func() (byte, []byte, error) {
		tag, err := r.ReadByte()
		if err != nil {
			return 0, nil, err
		}
		l, err := r.ReadByte()
		if err != nil {
			return 0, nil, err
		}
		n := int(l)
		if l&0x80 != 0 {
			n = 0
			for range int(l & 0x7f) {
				b, err := r.ReadByte()
				if err != nil {
					return 0, nil, err
				}
				n = n<<8 | int(b)
			}
		}
		buf := make([]byte, n)
		_, err = io.ReadFull(r, buf)
		return tag, buf, err
	}
	_, msg, err := element()
	if err != nil {
		return 0, nil, err
	}
	if len(msg) < 3 || msg[0] != 0x02 {
		return 0, nil, errors.New("not an LDAP message")
	}
	rest := msg[2+int(msg[1]):]
	if len(rest) < 2 {
		return 0, nil, errors.New("not an LDAP message")
	}
	return rest[0], rest[1:], nil
}

func (l ldapLoad) search(id, n int) []byte {
	attrs := [][]byte{}
	for _, a := range l.attributes {
		attrs = append(attrs, ber(0x04, []byte(a)))
	}
	return ber(0x30, berInt(0x02, id), ber(0x63,
		ber(0x04, []byte(l.base)),
		ber(0x0a, []byte{2}), ber(0x0a, []byte{0}),
		ber(0x02, []byte{0}), ber(0x02, []byte{0}), ber(0x01, []byte{0}),
		ber(0xa3, ber(0x04, []byte("mail")), ber(0x04, []byte(fmt.Sprintf("user%d@bench.test", n)))),
		ber(0x30, attrs...)))
}

// An ldapConn is one connection of the load, bound.
type ldapConn struct {
	net.Conn
	r *bufio.Reader
}

// open connects and binds, which is not part of what is measured.
func (l ldapLoad) open() ([]ldapConn, error) {
	var out []ldapConn
	for range l.connections {
		c, err := net.DialTimeout("tcp", l.addr, 10*time.Second)
		if err != nil {
			return out, err
		}
		_ = c.SetDeadline(time.Now().Add(5 * time.Minute))
		out = append(out, ldapConn{c, bufio.NewReaderSize(c, 64<<10)})
		if _, err := c.Write(ber(0x30, berInt(0x02, 1), ber(0x60, ber(0x02, []byte{3}), ber(0x04, []byte(l.bindDN)), ber(0x80, []byte(l.pass))))); err != nil {
			return out, err
		}
		op, content, err := readBER(out[len(out)-1].r)
		if err != nil {
			return out, err
		}
		if op != 0x61 || len(content) < 4 || content[3] != 0 {
			return out, fmt.Errorf("bind as %s failed: % x", l.bindDN, content)
		}
	}
	return out, nil
}

// run makes the given number of searches over the connections.
func (l ldapLoad) run(conns []ldapConn, searches int) error {
	var left atomic.Int64
	left.Store(int64(searches))
	var wg sync.WaitGroup
	errs := make(chan error, len(conns))
	for i, c := range conns {
		wg.Add(1)
		go func() {
			defer wg.Done()
			if err := l.searchOn(c, &left, rand.New(rand.NewSource(int64(i)))); err != nil {
				errs <- err
			}
		}()
	}
	wg.Wait()
	close(errs)
	return <-errs
}

func (l ldapLoad) searchOn(c ldapConn, left *atomic.Int64, rnd *rand.Rand) error {
	for id := 2; ; {
		batch := 0
		var out []byte
		for batch < l.depth && left.Add(-1) >= 0 {
			out = append(out, l.search(id, rnd.Intn(l.entries))...)
			id++
			batch++
		}
		if batch == 0 {
			return nil
		}
		if _, err := c.Write(out); err != nil {
			return err
		}
		found := 0
		for done := 0; done < batch; {
			op, content, err := readBER(c.r)
			if err != nil {
				return err
			}
			switch op {
			case 0x64:
				found++
			case 0x65:
				done++
				if len(content) < 4 || content[3] != 0 {
					return fmt.Errorf("search failed: % x", content)
				}
			}
		}
		if found != batch {
			return fmt.Errorf("%d entries for %d searches", found, batch)
		}
	}
}
