package mailstore

import (
	"context"
	"errors"
	"strings"
	"time"
)

// collectAfter is how old a message file that no record names must be before it is taken for abandoned,
// and how old any other leftover.
const collectAfter = 7 * 24 * time.Hour

const claimPrefix = "c."

// claim is a message file taken out of m/ to be judged: tmp/c.<nonce>.<dir>.<msgid>.
type claim struct {
	path string // where it is now
	dir  uint64
	name string // the message id
}

// collect removes message files that no record names. A writer may be between writing its file and
// committing it for any length of time, so an age proves nothing; therefore two steps: the collector
// claims the file by moving it to a name of its own, then reads the log, and puts the file back if it is
// named now. A writer that was slow looks at its file after its commit (recheckAfter). Each half alone
// would lose mail. Claims left behind by others are taken over in the same way.
func (j *journal) collect(ctx context.Context) error {
	now, err := j.vol.serverNow(ctx)
	if err != nil {
		return err
	}
	known, err := j.filesInUse(ctx)
	if err != nil {
		return err
	}
	var claims []claim
	err = j.vol.do(ctx, func() error {
		claims, err = j.oldClaims(now)
		if err != nil {
			return err
		}
		more, err := j.newClaims(known, now.Add(-collectAfter))
		claims = append(claims, more...)
		return err
	})
	if len(claims) == 0 {
		return err
	}
	// Whatever stopped the claiming, those that were made are judged.
	known, e := j.filesInUse(ctx)
	if e != nil {
		return errors.Join(err, e)
	}
	e = j.vol.do(ctx, func() error {
		for _, c := range claims {
			if known[c.name] {
				home := j.dir + "/" + dirMessages + "/" + string(appendDec(nil, c.dir)) + "/" + c.name
				if err := j.vol.fs.Rename(c.path, home); err != nil && !isNotExist(err) {
					return ioErr("rename", c.path, err)
				}
				if err := j.vol.orderDir(j.dir + "/" + dirMessages + "/" + string(appendDec(nil, c.dir))); err != nil {
					return err
				}
				continue
			}
			if err := j.vol.fs.Unlink(c.path); err != nil && !isNotExist(err) {
				return ioErr("unlink", c.path, err)
			}
			j.store.metrics.removed.Inc()
		}
		return nil
	})
	return errors.Join(err, e)
}

// filesInUse reads the log and returns the names of all message files that it still needs.
func (j *journal) filesInUse(ctx context.Context) (map[string]bool, error) {
	x, err := j.read(ctx)
	if err != nil {
		return nil, err
	}
	s := x.(*State)
	out := make(map[string]bool, s.count+len(s.dead))
	for _, m := range s.All() {
		out[m.ID()] = true
	}
	for i := range s.dead {
		out[s.deadID(&s.dead[i]).String()] = true
	}
	return out, nil
}

func (j *journal) newClaims(known map[string]bool, before time.Time) (claims []claim, err error) {
	m := j.dir + "/" + dirMessages
	dirs, err := j.vol.fs.ReadDir(m, nil)
	if err != nil {
		return nil, ioErr("list", m, err)
	}
	for _, d := range numbersAndZero(dirs) {
		dir := m + "/" + string(appendDec(nil, d))
		names, err := j.vol.fs.ReadDir(dir, nil)
		if err != nil {
			return claims, ioErr("list", dir, err)
		}
		for _, name := range names {
			if known[name] {
				continue
			}
			i, err := j.vol.fs.Lstat(dir + "/" + name)
			if isNotExist(err) || err == nil && i.ModTime.After(before) {
				continue
			}
			if err != nil {
				return claims, ioErr("lstat", dir+"/"+name, err)
			}
			if c, ok := j.claim(dir+"/"+name, d, name); ok {
				claims = append(claims, c)
			}
		}
	}
	return claims, nil
}

func numbersAndZero(names []string) []uint64 {
	out := numbers(names)
	for _, n := range names {
		if n == "0" {
			return append([]uint64{0}, out...)
		}
	}
	return out
}

// claim moves a file to a name of our own. Of two collectors that try, one finds nothing.
func (j *journal) claim(path string, dir uint64, name string) (claim, bool) {
	b := append([]byte(j.dir+"/"+dirTmp+"/"+claimPrefix), j.store.nextNonce().String()...)
	b = append(appendDec(append(b, '.'), dir), '.')
	c := claim{path: string(append(b, name...)), dir: dir, name: name}
	return c, j.vol.fs.Rename(path, c.path) == nil
}

// oldClaims takes over what other collectors left in tmp/, and removes other leftovers.
func (j *journal) oldClaims(now time.Time) (claims []claim, err error) {
	tmp := j.dir + "/" + dirTmp
	names, err := j.vol.fs.ReadDir(tmp, nil)
	if err != nil {
		return nil, ioErr("list", tmp, err)
	}
	for _, name := range names {
		path := tmp + "/" + name
		if rest, ok := strings.CutPrefix(name, claimPrefix); ok {
			// c.<server>.<boot>.<ctr>.<dir>.<msgid>
			p := strings.SplitN(rest, ".", 5)
			if len(p) == 5 {
				if dir, ok := parseDec(p[3]); ok {
					if c, ok := j.claim(path, dir, p[4]); ok {
						claims = append(claims, c)
					}
					continue
				}
			}
		}
		if err := j.vol.removeOld(path, now.Add(-collectAfter)); err != nil {
			return claims, err
		}
	}
	return claims, nil
}

// removeOld removes a leftover that was last changed before a time.
func (v *volume) removeOld(path string, before time.Time) error {
	i, err := v.fs.Lstat(path)
	if isNotExist(err) || err == nil && i.ModTime.After(before) {
		return nil
	}
	if err != nil {
		return ioErr("lstat", path, err)
	}
	return v.removeAll(path)
}
