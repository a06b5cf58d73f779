package mailstore

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// What an account's scripts have seen (RFC 5230: whom vacation answered; RFC 7352: duplicates), known to all servers:
//
//	seen/<hh>/<key>.<n>      a link to the Unix time (base 36) until which the key counts as seen
//
// key is hex; hh its first two digits. The link is made exclusively: of two servers that mark the same key at the same time one
// learns that it was not the first. A key that has expired is marked again as n+1; no name is used twice, because a client
// may remember the old link. Links are removed a week after they expired.
const dirSeen = "seen"

// seenKept is how long a link stays after its time, so that its name is not used again while a client remembers it.
const seenKept = 7 * 24 * time.Hour

// Seen says whether a key was marked as seen and has not expired. key: hex digits, at least 8.
func (a *Account) Seen(ctx context.Context, key string) (bool, error) {
	_, alive, err := a.seen(ctx, key)
	return alive, err
}

// seen gives the highest n of a key, -1 where there is none, and whether its time has not come.
func (a *Account) seen(ctx context.Context, key string) (n int64, alive bool, err error) {
	dir, err := a.seenDir(key)
	if err != nil {
		return 0, false, err
	}
	n = -1
	err = a.vol.do(ctx, func() error {
		names, err := a.vol.fs.ReadDir(dir, nil)
		if isNotExist(err) {
			return nil
		}
		if err != nil {
			return ioErr("list", dir, err)
		}
		for _, name := range names {
			if k, m, ok := parseSeen(name); ok && k == key {
				n = max(n, m)
			}
		}
		if n < 0 {
			return nil
		}
		path := dir + "/" + key + "." + strconv.FormatInt(n, 10)
		until, err := a.seenUntil(path)
		if err != nil {
			if isNotExist(err) { // removed since: it had expired long ago
				return nil
			}
			return ioErr("readlink", path, err)
		}
		alive = a.vol.clk.Now().Before(until)
		return nil
	})
	return n, alive, err
}

// MarkSeen marks a key as seen for a time. first is false when it was marked already, by whomever, and has not expired.
func (a *Account) MarkSeen(ctx context.Context, key string, lifetime time.Duration) (first bool, err error) {
	_, first, err = a.Claim(ctx, key, lifetime)
	return first, err
}

// Claim marks a key for a time, as MarkSeen does, and gives the turn that Extend wants: who has it may do what the key stands for until
// then, and nobody else.
func (a *Account) Claim(ctx context.Context, key string, lifetime time.Duration) (turn int64, got bool, err error) {
	n, alive, err := a.seen(ctx, key)
	if err != nil || alive {
		return 0, false, err
	}
	got, err = a.mark(ctx, key, n+1, lifetime)
	return n + 1, got, err
}

// Extend gives a claim another lifetime from now, which may be 0 or less: it ends. got is false when somebody else has it by now.
func (a *Account) Extend(ctx context.Context, key string, turn int64, lifetime time.Duration) (next int64, got bool, err error) {
	got, err = a.mark(ctx, key, turn+1, lifetime)
	return turn + 1, got, err
}

// Remember marks a key for a time from now, whether it was marked or not.
func (a *Account) Remember(ctx context.Context, key string, lifetime time.Duration) error {
	n, _, err := a.seen(ctx, key)
	if err != nil {
		return err
	}
	_, err = a.mark(ctx, key, n+1, lifetime) // somebody else's at the same moment does as well
	return err
}

// mark makes the n-th link of a key, unless somebody has.
func (a *Account) mark(ctx context.Context, key string, n int64, lifetime time.Duration) (first bool, err error) {
	dir, err := a.seenDir(key)
	if err != nil {
		return false, err
	}
	path := dir + "/" + key + "." + strconv.FormatInt(n, 10)
	target := strconv.FormatInt(a.vol.clk.Now().Add(lifetime).Unix(), 36)
	err = a.vol.do(ctx, func() error {
		err := a.vol.fs.Symlink(target, path)
		if isNotExist(err) {
			for _, d := range []string{a.dir + "/" + dirSeen, dir} {
				if err := a.vol.fs.Mkdir(d); err != nil && !errors.Is(err, syscall.EEXIST) {
					return ioErr("mkdir", d, err)
				}
			}
			err = a.vol.fs.Symlink(target, path)
		}
		if errors.Is(err, syscall.EEXIST) {
			return nil
		}
		if err != nil {
			return ioErr("symlink", path, err)
		}
		first = true
		return a.vol.syncDir(dir)
	})
	return first, err
}

func (a *Account) seenDir(key string) (string, error) {
	if len(key) < 8 || len(key) > 64 || strings.Trim(key, "0123456789abcdef") != "" {
		return "", fmt.Errorf("key %.80q: want 8 to 64 hex digits", key)
	}
	return a.dir + "/" + dirSeen + "/" + key[:2], nil
}

func parseSeen(name string) (key string, n int64, ok bool) {
	key, text, ok := strings.Cut(name, ".")
	n, err := strconv.ParseInt(text, 10, 64)
	return key, n, ok && err == nil && n >= 0
}

// seenUntil reads a link. What is no time lies in the distant past.
func (a *Account) seenUntil(path string) (time.Time, error) {
	var buf [32]byte
	n, err := a.vol.fs.Readlink(path, buf[:])
	if err != nil {
		return time.Time{}, err
	}
	seconds, err := strconv.ParseInt(string(buf[:n]), 36, 64)
	if err != nil {
		seconds = 0
	}
	return time.Unix(seconds, 0), nil
}

// dropSeen removes the links that expired long ago.
func (a *Account) dropSeen(ctx context.Context) error {
	before := a.vol.clk.Now().Add(-seenKept)
	top := a.dir + "/" + dirSeen
	return a.vol.do(ctx, func() error {
		slices, err := a.vol.fs.ReadDir(top, nil)
		if isNotExist(err) {
			return nil
		}
		if err != nil {
			return ioErr("list", top, err)
		}
		for _, hh := range slices {
			names, err := a.vol.fs.ReadDir(top+"/"+hh, nil)
			if err != nil {
				return ioErr("list", top+"/"+hh, err)
			}
			for _, name := range names {
				path := top + "/" + hh + "/" + name
				if until, err := a.seenUntil(path); err == nil && until.Before(before) {
					if err := a.vol.fs.Unlink(path); err != nil && !isNotExist(err) {
						return ioErr("unlink", path, err)
					}
				}
			}
		}
		return nil
	})
}
