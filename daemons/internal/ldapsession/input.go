package ldapsession

import (
	"errors"
	"io"
	"net"
	"syscall"

	"shoal/daemons/internal/ldapwire"
)

// readBuffer is how much is read at once. Longer requests get a buffer of their own.
const readBuffer = 16 << 10

// input reads requests. It has a buffer only while it holds a part of a request.
type input struct {
	s    *Server
	conn net.Conn
	raw  syscall.RawConn // nil: the connection is read by Read only (TLS)
	one  [1]byte
	buf  *[]byte // nil while nothing is held
	r, w int     // what is held lies in (*buf)[r:w]
}

func (in *input) init(s *Server, c net.Conn) {
	in.s, in.conn, in.raw = s, c, nil
	if n, ok := c.(interface{ NetConn() net.Conn }); ok {
		c = n.NetConn()
	}
	if t, ok := c.(*net.TCPConn); ok {
		in.raw, _ = t.SyscallConn()
	}
}

// more reads what has arrived, and waits for it if nothing has.
func (in *input) more() error {
	if in.buf == nil {
		return in.first()
	}
	b := *in.buf
	if in.r > 0 {
		copy(b, b[in.r:in.w])
		in.r, in.w = 0, in.w-in.r
	}
	n, err := in.conn.Read(b[in.w:])
	in.w += n
	if n > 0 {
		return nil
	}
	return err
}

// first waits without a buffer.
func (in *input) first() error {
	if in.raw == nil {
		n, err := in.conn.Read(in.one[:])
		if n == 0 {
			return err
		}
		in.buf = in.s.buffers.Get().(*[]byte)
		(*in.buf)[0] = in.one[0]
		in.r, in.w = 0, 1
		return nil
	}
	var n int
	var failed error
	err := in.raw.Read(func(fd uintptr) bool {
		buf := in.s.buffers.Get().(*[]byte)
		for {
			n, failed = syscall.Read(int(fd), *buf)
			if !errors.Is(failed, syscall.EINTR) {
				break
			}
		}
		if n > 0 {
			in.buf, in.r, in.w = buf, 0, n
			return true
		}
		in.s.buffers.Put(buf)
		return !errors.Is(failed, syscall.EAGAIN)
	})
	switch {
	case err != nil:
		return err
	case failed != nil:
		return failed
	case n <= 0:
		return io.EOF
	}
	return nil
}

// frame gives the next whole request, nil if it is not there yet. The bytes are valid until more or
// release. Errors are those of ldapwire.Frame.
func (in *input) frame(max int) ([]byte, error) {
	if in.buf == nil {
		return nil, nil
	}
	n, err := ldapwire.Frame((*in.buf)[in.r:in.w], max)
	if err != nil || n == 0 {
		return nil, err
	}
	if n > in.w-in.r {
		if n > len(*in.buf) {
			in.grow(n)
		}
		return nil, nil
	}
	f := (*in.buf)[in.r : in.r+n : in.r+n]
	in.r += n
	return f, nil
}

// grow makes room for a request of n octets, in steps: a claim of a size takes no memory before the
// octets come.
func (in *input) grow(n int) {
	have := in.w - in.r
	size := len(*in.buf)
	if have < size {
		return // there is room to read into, once it is moved to the front
	}
	b := make([]byte, min(n, 2*size))
	copy(b, (*in.buf)[in.r:in.w])
	in.drop()
	in.buf, in.r, in.w = &b, 0, have
}

// held reports whether octets are there that are not taken yet.
func (in *input) held() bool { return in.buf != nil && in.r < in.w }

// release gives the buffer back if nothing is in it.
func (in *input) release() {
	if in.buf != nil && in.r == in.w {
		in.drop()
	}
}

func (in *input) drop() {
	if in.buf != nil && len(*in.buf) == readBuffer {
		in.s.buffers.Put(in.buf)
	}
	in.buf, in.r, in.w = nil, 0, 0
}
