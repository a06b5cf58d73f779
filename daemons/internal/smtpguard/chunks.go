package smtpguard

import (
	"errors"
	"io"
	"math"
	"net"
	"strconv"
	"strings"
)

// errAbandoned is what the reader of a message gets when the client went on to something else before the last
// chunk.
var errAbandoned = errors.New("the client gave the message up")

// chunks is the message of a series of BDAT commands (RFC 3030 §2) as the session reads it: the octets of the
// chunks, one behind the other, io.EOF behind the last.
//
//	message = *( "BDAT" SP size CRLF size-octets ) "BDAT" SP size SP "LAST" CRLF size-octets
//
// go-smtp takes it for one DATA command. Its own BDAT lets a connection that ends in the last chunk pass for the
// end of the message, answers once where LMTP wants an answer for each recipient, and lets a message that was
// given up answer for the one after it. So the commands behind the first are read here: each chunk but the last is
// answered when it was read to its end, and RSET, QUIT or a greeting end the message unheard.
type chunks struct {
	c    *Conn
	size int64
	open bool // finish is still to come
	err  error
}

func (c *Conn) openChunks() *chunks {
	b := &chunks{c: c, open: true}
	b.admit()
	return b
}

// admit counts the chunk at hand towards the limit.
func (b *chunks) admit() {
	b.size += b.c.tx.chunk
	if limit := b.c.g.o.MaxMessageBytes; b.size > limit {
		b.err = tooLarge(limit)
	}
}

func (b *chunks) Read(p []byte) (int, error) {
	c := b.c
	for b.err == nil && len(p) > 0 {
		switch {
		case c.tx.chunk > 0:
			n, err := c.readChunk(p)
			if err != nil {
				b.err = err
				break
			}
			return n, nil
		case c.tx.chunkEnd:
			b.err = io.EOF
		default:
			c.reply("250 2.0.0 Go on")
			b.err = b.next()
		}
	}
	return 0, b.err
}

// readChunk reads octets of the chunk at hand.
func (c *Conn) readChunk(p []byte) (n int, err error) {
	if int64(len(p)) > c.tx.chunk {
		p = p[:c.tx.chunk]
	}
	if c.r < c.w {
		n = copy(p, c.in[c.r:c.w])
		c.r += n
	} else if n, err = c.receive(p); err != nil {
		c.kill()
		return 0, io.ErrUnexpectedEOF
	}
	c.tx.chunk -= int64(n)
	return n, nil
}

// discardChunk throws away what is left of the chunk at hand.
func (c *Conn) discardChunk() error {
	var buf [4 << 10]byte
	for c.tx.chunk > 0 {
		if _, err := c.readChunk(buf[:]); err != nil {
			return err
		}
	}
	return nil
}

// next reads commands until there is a further chunk, nil, or the message is over.
func (b *chunks) next() error {
	c := b.c
	for {
		raw, err := c.readLine(MaxCommandLine)
		if err == nil {
			line := strings.TrimRight(string(raw), " \t")
			name, arg, _ := strings.Cut(line, " ")
			switch v := verb(strings.ToUpper(name)); v {
			case verbBDAT:
				if !c.parseChunk(arg) {
					return errAbandoned
				}
				b.admit()
				return b.err
			case verbRSET, verbQUIT, verbHELO, verbEHLO, verbLHLO:
				c.pending = line
				return errAbandoned
			case verbNOOP:
				c.reply("250 2.0.0 Yes?")
			default:
				c.reply(badSequence + "A message is under way: send BDAT or RSET")
				if c.errors >= c.g.o.MaxErrors {
					c.violation("too_many_errors")
					c.reply(tooManyErrors)
					return errAbandoned
				}
			}
			continue
		}
		err = c.lineError(err)
		switch {
		case err == nil: // it was answered
		case errors.Is(err, net.ErrClosed) || c.dead:
			c.kill()
			return io.ErrUnexpectedEOF
		default:
			c.kill()
			return err
		}
	}
}

// finish reads what is left of the chunk at hand and lets go-smtp read an empty message. It returns nil when the
// message was whole. The replies of go-smtp that follow are cut down to what the client waits for: one where the
// chunk was not the last, none where the client gave the message up.
func (b *chunks) finish() error {
	c := b.c
	if b.open {
		b.open = false
		if b.err != nil && b.err != io.EOF && c.tx.chunk > 0 || b.err == nil {
			if err := c.discardChunk(); err != nil {
				b.err = err
			}
		}
		c.quota = allReplies
		switch {
		case errors.Is(b.err, errAbandoned):
			c.quota = 0
		case !c.tx.chunkEnd:
			c.quota = 1
		case b.err == nil:
			b.err = io.EOF // the session did not care to read to the end, and may not have needed to
		}
		c.mode = modeCommand
		c.feed = append(c.line[:0], ".\r\n"...)
	}
	switch b.err {
	case io.EOF:
		return nil
	case nil:
		return io.ErrUnexpectedEOF
	}
	return b.err
}

// parseChunk reads the arguments of BDAT. A command that is malformed leaves it open how many octets follow, so
// the connection ends.
//
//	arguments = size [ SP "LAST" ]
func (c *Conn) parseChunk(arg string) bool {
	fields := strings.Fields(arg)
	size, err := int64(0), errors.New("no size")
	if len(fields) > 0 && strings.Trim(fields[0], "0123456789") == "" {
		size, err = strconv.ParseInt(fields[0], 10, 64)
	}
	last := len(fields) == 2 && strings.EqualFold(fields[1], "LAST")
	switch {
	case err != nil || len(fields) > 2 || len(fields) == 2 && !last:
		c.violation("bdat")
		c.reply(badSyntax + "Write BDAT size [LAST]; closing the connection")
	case size > min(c.g.o.MaxMessageBytes+discardable, math.MaxUint32):
		c.reply("552 5.3.4 The message is too large; closing the connection")
	default:
		c.tx.chunk, c.tx.chunkEnd = size, last
		return true
	}
	c.closing = true
	return false
}
