package imapsession

import (
	"bytes"
	"compress/flate"
	"errors"
	"io"
	"sync"
	"time"

	"shoal/daemons/internal/inflate"
)

// compression is COMPRESS=DEFLATE (RFC 4978) on a connection, above TLS if there is TLS.
//
// What is sent is compressed by itself, one write after the other: each ends at a byte (a sync flush), and none refers
// to an earlier one. So a connection owns no compressor; the one that a write takes from the pool serves others
// between two writes. Also a secret in one answer does not show in the length of a later one. What is received needs
// the earlier input: its last 32 KiB at most are kept while the session rests, and nothing else.
type compression struct{ in inflate.Reader }

// deflater is a compressor with its output.
type deflater struct {
	w   *flate.Writer
	out bytes.Buffer
}

var deflaters = sync.Pool{New: func() any {
	d := new(deflater)
	d.w, _ = flate.NewWriter(&d.out, flate.BestSpeed) // a level that there is
	return d
}}

var inflateInput = sync.Pool{New: func() any { return new([4096]byte) }}

// cmdCompress is COMPRESS (RFC 4978 §3).
func cmdCompress(s *session, c *call) error {
	if err := s.dec.SP(); err != nil {
		return err
	}
	name, err := s.dec.Keyword()
	if err != nil {
		return err
	}
	if err := s.dec.End(); err != nil {
		return err
	}
	switch {
	case name != "DEFLATE":
		return badf("Only DEFLATE is known")
	case s.t.z != nil:
		return no("COMPRESSIONACTIVE", "Compression is active already")
	case s.dec.Buffered() > 0:
		s.bye("Commands behind COMPRESS were sent before it was answered")
		return errOver
	}
	c.ok("", "DEFLATE active")
	s.tagged(c)
	if err := s.enc.Flush(); err != nil {
		return err
	}
	s.t.z = new(compression)
	s.dec.SetReader((*reader)(s))
	return errAnswered
}

// read gives decompressed input, at least a byte of it or an error; more gets what the client sent.
func (z *compression) read(p []byte, more func([]byte) (int, error)) (int, error) {
	for {
		n, err := z.in.Decode(p)
		if n > 0 || !errors.Is(err, inflate.ErrMore) {
			return n, err
		}
		buf := inflateInput.Get().(*[4096]byte)
		n, err = more(buf[:])
		z.in.Feed(buf[:n])
		inflateInput.Put(buf)
		if n == 0 {
			if err == nil {
				err = io.ErrNoProgress
			}
			return 0, err
		}
	}
}

// readNow reads what is there, and returns errWouldBlock when that is nothing. timeout bounds what TLS
// has to write on this occasion.
func (t *transport) readNow(p []byte, timeout time.Duration) (int, error) {
	if t.z == nil {
		return t.rawNow(p, timeout)
	}
	return t.z.read(p, func(b []byte) (int, error) { return t.rawNow(b, timeout) })
}

// read waits for input until the deadline, which does not move when compressed input comes that says nothing.
func (t *transport) read(p []byte, timeout time.Duration) (int, error) {
	if t.z == nil {
		return t.rawRead(p, timeout)
	}
	deadline := time.Now().Add(timeout)
	return t.z.read(p, func(b []byte) (int, error) { return t.rawRead(b, time.Until(deadline)) })
}

// write sends all of p, or fails when the client has not taken it in time.
func (t *transport) write(p []byte, timeout time.Duration) (int, error) {
	if t.z == nil {
		return t.rawWrite(p, timeout)
	}
	d := deflaters.Get().(*deflater)
	defer deflaters.Put(d)
	d.out.Reset()
	d.w.Reset(&d.out)
	if _, err := d.w.Write(p); err != nil {
		return 0, err
	}
	if err := d.w.Flush(); err != nil {
		return 0, err
	}
	if _, err := t.rawWrite(d.out.Bytes(), timeout); err != nil {
		return 0, err
	}
	return len(p), nil
}

// layered says that input may have arrived that is not to be seen at the socket.
func (t *transport) layered() bool { return t.gate != nil || t.z != nil }

// rest gives back what a parked connection does not need.
func (t *transport) rest() {
	if t.z != nil {
		t.z.in.Rest()
	}
}
