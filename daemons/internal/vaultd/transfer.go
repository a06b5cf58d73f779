package vaultd

import (
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"shoal/daemons/internal/conf"
)

// What the control API takes and gives whole, an import, a restore, a backup or an export, lasts as long as it takes.
// While it does, an import refuses updates and a backup keeps the database from using space again: so a client that
// neither sends nor takes anything for a while ends it, and what is sent has a bound.

// transferSilence is for how long the other side of a transfer may do nothing.
const transferSilence = time.Minute

// incoming is the body of a request. It bounds the octets and each wait for more.
type incoming struct {
	from    io.Reader
	c       *http.ResponseController
	limit   conf.Size
	got     int64
	silence time.Duration
}

func (in *incoming) Read(p []byte) (int, error) {
	if err := in.c.SetReadDeadline(time.Now().Add(in.silence)); err != nil {
		return 0, err
	}
	n, err := in.from.Read(p)
	_ = in.c.SetReadDeadline(time.Time{}) // what is done with it now may take longer
	in.got += int64(n)
	switch {
	case in.got > int64(in.limit):
		err = tooLarge(in.limit)
	case errors.Is(err, os.ErrDeadlineExceeded):
		err = fmt.Errorf("nothing came for %s, after %d octets: %w", in.silence, in.got, err)
	}
	return n, err
}

func tooLarge(limit conf.Size) error {
	return fmt.Errorf("it is larger than %s: raise content in the block limits of vaultd's configuration, and start it again", limit)
}

// outgoing is the body of an answer. It bounds each wait for the client.
type outgoing struct {
	to      io.Writer
	c       *http.ResponseController
	silence time.Duration
}

func (out *outgoing) Write(p []byte) (int, error) {
	if err := out.c.SetWriteDeadline(time.Now().Add(out.silence)); err != nil {
		return 0, err
	}
	defer func() { _ = out.c.SetWriteDeadline(time.Time{}) }() // HTTP/2 would end an answer that has a pause
	return out.to.Write(p)
}

// flush sends what was written. A client that went away is seen by its context.
func (out *outgoing) flush() {
	_ = out.c.SetWriteDeadline(time.Now().Add(out.silence))
	_ = out.c.Flush()
	_ = out.c.SetWriteDeadline(time.Time{})
}

// whole is a size for an operator to read.
func whole(octets int64) conf.Size {
	const mebibyte = 1 << 20
	if octets < mebibyte {
		return conf.Size(octets)
	}
	return conf.Size(octets / mebibyte * mebibyte)
}

// roomFor says whether the disk of a folder has room for so much more.
func roomFor(folder string, octets int64) error {
	var st unix.Statfs_t
	if err := unix.Statfs(folder, &st); err != nil {
		return fmt.Errorf("free space of %s: %w", folder, err)
	}
	free := int64(min(st.Bavail*uint64(st.Bsize), math.MaxInt64))
	if octets > free {
		return fmt.Errorf("it needs %s on the disk of %s, which has %s free", whole(octets), folder, whole(free))
	}
	return nil
}
