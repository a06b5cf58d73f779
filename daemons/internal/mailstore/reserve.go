package mailstore

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strconv"
	"syscall"
	"time"

	"shoal/daemons/internal/clock"
	"shoal/daemons/internal/vfs"
)

// What makes room on a volume needs room itself: an expunge is a record, and the files go only after a snapshot. So each
// server keeps a reserve on each volume, reserve/<server>/<number>: files of no meaning, with blocks and inodes. When
// something that stores no message meets a full file system or quota, one of them goes and it is tried again. From then on,
// and also when the file system is nearly full, messages are refused by this server (ErrNoSpace), so that what was freed is not taken by them;
// the reserve is made whole again as soon as there is room, and only then are messages taken again.

const (
	dirReserve   = "reserve"
	reserveFiles = 64
	// reserveEvery is how often the room on a volume is looked at.
	reserveEvery = 5 * time.Second
)

// lowWater is the free space below which no more messages are taken.
func lowWater(total uint64) uint64 { return min(max(total/200, 1<<20), 64<<20) }

// reserveSize is the size of one file of the reserve: 64 KiB, on tiny volumes less.
func reserveSize(total uint64) uint64 { return min(max(total>>12&^4095, 4<<10), 64<<10) }

// lowFiles is the number of free inodes below which no more messages are taken, where they are counted.
const lowFiles = 256

func (v *volume) reserveDir() string { return v.root + "/" + dirReserve + "/" + v.store.o.Server }

// room refuses what stores messages while the volume is short of space.
func (v *volume) room() error {
	if v.low.Load() {
		return fmt.Errorf("volume %s: %w: what is left is kept for expunges", v.name, ErrNoSpace)
	}
	return nil
}

// essential runs fn, and again each time that a part of the reserve has made room for it. fn must have had no effect when it
// returns ErrNoSpace.
func (v *volume) essential(fn func() error) error {
	for {
		err := fn()
		if !errors.Is(err, ErrNoSpace) || isUnknown(err) || !v.giveWay() {
			return err
		}
	}
}

// giveWay removes a part of the reserve, and tells whether there was one.
func (v *volume) giveWay() bool {
	dir := v.reserveDir()
	names, err := v.fs.ReadDir(dir, nil)
	if err != nil {
		return false
	}
	for _, name := range names {
		if err := v.fs.Unlink(dir + "/" + name); err == nil {
			v.whole.Store(false)
			if !v.low.Swap(true) {
				v.store.log.Warn("volume is full: messages are refused, and the reserve is used for what makes room", "volume", v.name, "path", v.root)
			}
			// Freed blocks may be used once the journal has been written.
			if !v.network {
				_ = v.fs.SyncDir(dir)
			}
			return true
		}
	}
	return false
}

// keepReserves looks after the room on all volumes until ctx is done.
func (s *Store) keepReserves(ctx context.Context) {
	for {
		for _, v := range s.allVolumes() {
			if err := v.do(ctx, v.refill); err != nil && ctx.Err() == nil && !errors.Is(err, ErrUnavailable) {
				s.log.Warn("reserve not made", "volume", v.name, "err", err)
			}
		}
		if clock.Sleep(ctx, s.clk, reserveEvery) != nil {
			return
		}
	}
}

// refill makes the missing parts of the reserve if there is room for more than that, and says whether messages are taken.
func (v *volume) refill() error {
	st, err := v.fs.Statfs(v.root)
	if err != nil {
		return ioErr("statfs", v.root, err)
	}
	full := st.Free < lowWater(st.Total) || st.Files > 0 && st.FilesFree < lowFiles
	if !full && (!v.whole.Load() || v.low.Load()) {
		err := v.makeReserve(st)
		if full = errors.Is(err, ErrNoSpace); err != nil && !full {
			return err
		}
		v.whole.Store(!full)
	}
	if v.low.Swap(full) != full {
		if full {
			v.store.log.Warn("volume is nearly full: messages are refused", "volume", v.name, "path", v.root, "free", st.Free, "files_free", st.FilesFree)
		} else {
			v.store.log.Info("volume has room again", "volume", v.name, "path", v.root, "free", st.Free)
		}
	}
	return nil
}

// makeReserveDir makes the server's own directory. The one above it has been there since the volume was made, so that nothing
// is written into the mount point of a volume that is not mounted; volumes of old lack it.
func (v *volume) makeReserveDir(dir string) error {
	err := v.fs.Mkdir(dir)
	if isNotExist(err) {
		if err := v.mounted(); err != nil {
			return err
		}
		if err := v.fs.Mkdir(v.root + "/" + dirReserve); err != nil && !errors.Is(err, syscall.EEXIST) {
			return err
		}
		err = v.fs.Mkdir(dir)
	}
	if errors.Is(err, syscall.EEXIST) {
		return nil
	}
	return err
}

func (v *volume) makeReserve(st vfs.StatFS) error {
	dir := v.reserveDir()
	names, err := v.fs.ReadDir(dir, nil)
	if isNotExist(err) {
		err = v.makeReserveDir(dir)
	}
	if err != nil {
		return ioErr("list", dir, err)
	}
	have := map[string]bool{}
	for _, name := range names {
		have[name] = true
	}
	if missing := uint64(reserveFiles - len(have)); len(have) < reserveFiles && st.Free < missing*reserveSize(st.Total)+lowWater(st.Total) {
		return fmt.Errorf("%s: %w: %d bytes are free", v.root, ErrNoSpace, st.Free)
	}
	var content []byte
	for i := range reserveFiles {
		name := strconv.Itoa(i)
		if have[name] {
			continue
		}
		if content == nil { // not to be compressed away
			content = make([]byte, reserveSize(st.Total))
			_, _ = rand.Read(content)
		}
		if err := v.writeFile(dir+"/"+name, content); err != nil {
			return ioErr("write", dir+"/"+name, err)
		}
	}
	return nil
}
