package ldapsession

import (
	"errors"
	"net"
	"sync"
	"sync/atomic"
)

// highWater is how many octets may wait for a client before whoever makes more has to wait, too.
const highWater = 256 << 10

var errCut = errors.New("connection cut off")

// output sends answers. Whoever finds nobody sending sends, for the others as well: there is no
// goroutine for it, and nothing is written while the lock is held.
type output struct {
	conn  net.Conn
	clock *atomic.Int64 // coarse time

	mu      sync.Mutex
	room    sync.Cond
	buf     []byte
	spare   []byte
	sending bool
	err     error

	since atomic.Int64 // coarse time since which one Write is under way; 0 for none
}

func (o *output) init(c net.Conn, clock *atomic.Int64) {
	o.conn, o.clock = c, clock
	o.room.L = &o.mu
}

// send sends b, whole messages, and returns when b may be used again. It waits while too much waits.
func (o *output) send(b []byte) error {
	if len(b) == 0 {
		return nil
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	for o.err == nil && o.sending && len(o.buf) > highWater {
		o.room.Wait()
	}
	if o.err != nil {
		return o.err
	}
	if o.sending {
		o.buf = append(o.buf, b...)
		return nil
	}
	o.sending = true
	o.write(b)
	for o.err == nil && len(o.buf) > 0 {
		out := o.buf
		o.buf, o.spare = o.spare[:0], nil
		o.write(out)
		if cap(out) <= 2*highWater {
			o.spare = out
		}
		o.room.Broadcast()
	}
	o.buf, o.spare = nil, nil // an idle connection holds no buffers
	o.sending = false
	o.room.Broadcast()
	return o.err
}

// write writes without the lock, and takes it again.
func (o *output) write(b []byte) {
	o.mu.Unlock()
	o.since.Store(o.clock.Load())
	_, err := o.conn.Write(b)
	o.since.Store(0)
	o.mu.Lock()
	if err != nil && o.err == nil {
		o.err = err
	}
}

// fail ends the output: everybody who waits is told.
func (o *output) fail(err error) {
	o.mu.Lock()
	if o.err == nil {
		o.err = err
	}
	o.room.Broadcast()
	o.mu.Unlock()
}

// swap puts another connection in the place of the first, for StartTLS.
func (o *output) swap(c net.Conn) {
	o.mu.Lock()
	o.conn = c
	o.mu.Unlock()
}
