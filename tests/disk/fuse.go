package disk

import (
	"encoding/binary"
	"errors"

	"golang.org/x/sys/unix"
)

// The FUSE protocol as far as one regular file needs it (include/uapi/linux/fuse.h, fuse(4)): a request is a header of 40
// bytes (length, opcode, unique number, node ...) and its arguments, a reply is a header of 16 (length, error, unique number) and
// its results. The file is the root of the file system, node 1.
const (
	fuseForget      = 2
	fuseGetattr     = 3
	fuseSetattr     = 4
	fuseOpen        = 14
	fuseRead        = 15
	fuseWrite       = 16
	fuseStatfs      = 17
	fuseRelease     = 18
	fuseFsync       = 20
	fuseFlush       = 25
	fuseInit        = 26
	fuseInterrupt   = 36
	fuseDestroy     = 38
	fuseBatchForget = 42

	fuseRequestHeader = 40
	fuseReplyHeader   = 16
	fuseMaxWrite      = 1 << 20
	fuseBigWrites     = 1 << 5
	fuseMaxPages      = 1 << 22
	fuseDirectIO      = 1
)

var le = binary.LittleEndian

// serve answers requests until the file is unmounted.
func (d *Disk) serve() {
	defer close(d.done)
	buf := make([]byte, fuseMaxWrite+pageSize)
	for {
		n, err := unix.Read(d.fd, buf)
		switch {
		case errors.Is(err, unix.EINTR), errors.Is(err, unix.ENOENT), errors.Is(err, unix.EAGAIN):
			continue
		case err != nil || n < fuseRequestHeader:
			return
		}
		d.mu.Lock()
		for d.hung {
			d.gate.Wait()
		}
		reply, errno, silent := d.handle(le.Uint32(buf[4:]), buf[fuseRequestHeader:n])
		d.mu.Unlock()
		if silent {
			continue
		}
		out := make([]byte, fuseReplyHeader, fuseReplyHeader+len(reply))
		le.PutUint32(out, uint32(fuseReplyHeader+len(reply)))
		le.PutUint32(out[4:], uint32(-int32(errno)))
		copy(out[8:16], buf[8:16])
		if _, err := unix.Write(d.fd, append(out, reply...)); err != nil && !errors.Is(err, unix.ENOENT) {
			return
		}
	}
}

// handle carries out a request. The caller holds mu.
func (d *Disk) handle(op uint32, in []byte) (out []byte, errno unix.Errno, silent bool) {
	switch op {
	case fuseInit:
		out = make([]byte, 64)
		le.PutUint32(out, 7)
		le.PutUint32(out[4:], 31)
		le.PutUint32(out[12:], fuseBigWrites|fuseMaxPages)
		le.PutUint16(out[16:], 64)
		le.PutUint16(out[18:], 48)
		le.PutUint32(out[20:], fuseMaxWrite)
		le.PutUint16(out[28:], fuseMaxWrite/pageSize)
	case fuseGetattr, fuseSetattr:
		out = make([]byte, 104)
		le.PutUint64(out, 3600)
		attr := out[16:]
		le.PutUint64(attr, 1)
		le.PutUint64(attr[8:], uint64(d.size))
		le.PutUint64(attr[16:], uint64(d.size/512))
		le.PutUint32(attr[60:], unix.S_IFREG|0o600)
		le.PutUint32(attr[64:], 1)
		le.PutUint32(attr[80:], pageSize)
	case fuseOpen:
		out = make([]byte, 16)
		le.PutUint32(out[8:], fuseDirectIO)
	case fuseRead:
		if len(in) < 20 {
			return nil, unix.EINVAL, false
		}
		return d.read(int64(le.Uint64(in[8:])), int(le.Uint32(in[16:]))), 0, false
	case fuseWrite:
		if len(in) < 40 {
			return nil, unix.EINVAL, false
		}
		off, data := int64(le.Uint64(in[8:])), in[40:]
		if off < 0 || off+int64(len(data)) > d.size {
			return nil, unix.ENOSPC, false
		}
		r := record{off, append(make([]byte, 0, len(data)), data...)}
		d.log = append(d.log, r)
		d.change(r)
		out = make([]byte, 8)
		le.PutUint32(out, uint32(len(data)))
	case fuseFsync:
		d.log = append(d.log, record{})
		d.flushes++
	case fuseStatfs:
		out = make([]byte, 80)
	case fuseFlush, fuseRelease, fuseDestroy:
	case fuseForget, fuseBatchForget, fuseInterrupt:
		return nil, 0, true
	default:
		return nil, unix.ENOSYS, false
	}
	return out, 0, false
}

func (d *Disk) read(off int64, n int) []byte {
	if off < 0 || off >= d.size {
		return nil
	}
	out := make([]byte, min(int64(n), d.size-off))
	for done := 0; done < len(out); {
		at := (off + int64(done)) &^ (pageSize - 1)
		skip := int(off + int64(done) - at)
		step := min(pageSize-skip, len(out)-done)
		if p := d.now[at]; p != nil {
			copy(out[done:done+step], p[skip:])
		}
		done += step
	}
	return out
}

// change makes a write visible. Pages of the base are copied first: images begin with them.
func (d *Disk) change(r record) {
	for b, off := r.data, r.off; len(b) > 0; {
		at := off &^ (pageSize - 1)
		p := d.now[at]
		if p == nil || p == d.base[at] {
			fresh := new(page)
			if p != nil {
				*fresh = *p
			}
			p = fresh
			d.now[at] = p
		}
		n := copy(p[off-at:], b)
		b, off = b[n:], off+int64(n)
	}
}
