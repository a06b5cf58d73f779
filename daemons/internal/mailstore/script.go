package mailstore

import (
	"context"
	"errors"
	"fmt"
	"sort"
	"strings"
	"syscall"
	"time"
	"unicode/utf8"
)

// An account's Sieve scripts. The text of each is an immutable file, and the account's attributes say what there is:
//
//	sieve/<file>                 file = nonce "." size "." crc, as a msgid
//	attribute script:<name>      the file of a script
//	attribute script-active      the name of the script that runs; absent, or a script that is not there: none
//
// So a script is stored, replaced or activated by one record of the account's log, and any server reads the same. A file is
// removed by whoever replaced it, or by the background work once it is a day old and belongs to no script.
const (
	dirScripts       = "sieve"
	attrScript       = "script:"
	attrScriptActive = "script-active"
)

// MaxScriptName bounds the name of a script, in bytes (RFC 5804 §1.6 asks for at least 128 characters).
const MaxScriptName = 512

// maxScript bounds what is read of a script; sessions have limits of their own below it.
const maxScript = 16 << 20

// ErrNoScript: the account has no script of that name. ErrScriptActive: the script is the active one.
// ErrScriptExists: the name is taken. ErrScriptName: not a name that a script can have.
var (
	ErrNoScript     = errors.New("no such script")
	ErrScriptActive = errors.New("the script is active")
	ErrScriptExists = errors.New("there is a script of that name")
	ErrScriptName   = errors.New("invalid script name")
)

// ScriptInfo describes a script. File changes whenever its text does.
type ScriptInfo struct {
	Name   string
	File   string
	Size   int64
	Active bool
}

func checkScriptName(name string) error {
	if name == "" || len(name) > MaxScriptName || !utf8.ValidString(name) {
		return fmt.Errorf("%.60q: %w: want 1 to %d bytes of UTF-8", name, ErrScriptName, MaxScriptName)
	}
	for _, r := range name { // RFC 5804 §1.6, and what could be taken for a path
		if r < ' ' || r >= 0x7f && r < 0xa0 || r == 0x2028 || r == 0x2029 || r == '/' {
			return fmt.Errorf("%.60q: %w: it holds %q", name, ErrScriptName, r)
		}
	}
	return nil
}

func parseScriptFile(file string) (msgID, bool) {
	id, ok := parseMsgID(file, "")
	return id, ok && file[0] != '.'
}

func (s *acctState) script(name string) (ScriptInfo, bool) {
	file := s.attrs[attrScript+name]
	if file == "" {
		return ScriptInfo{}, false
	}
	i := ScriptInfo{Name: name, File: file, Active: s.attrs[attrScriptActive] == name}
	if id, ok := parseScriptFile(file); ok {
		i.Size = int64(id.size)
	}
	return i, true
}

// Scripts lists the account's scripts, sorted by name.
func (a *Account) Scripts(ctx context.Context) ([]ScriptInfo, error) {
	st, err := a.fresh(ctx)
	if err != nil {
		return nil, err
	}
	var list []ScriptInfo
	for key := range st.attrs {
		if name, ok := strings.CutPrefix(key, attrScript); ok {
			if i, ok := st.script(name); ok {
				list = append(list, i)
			}
		}
	}
	sort.Slice(list, func(i, j int) bool { return list[i].Name < list[j].Name })
	return list, nil
}

// ActiveScript is the script that runs when mail is delivered, as this server knew it no longer than age ago; ok is false
// where there is none. It costs one look at the account's log when that is older.
func (a *Account) ActiveScript(ctx context.Context, age time.Duration) (i ScriptInfo, ok bool, err error) {
	st := a.known()
	if st == nil || a.vol.clk.Boot()-time.Duration(a.j.current.Load()) > age {
		if st, err = a.fresh(ctx); err != nil {
			return ScriptInfo{}, false, err
		}
	}
	name := st.attrs[attrScriptActive]
	if name == "" {
		return ScriptInfo{}, false, nil
	}
	i, ok = st.script(name)
	return i, ok, nil
}

// Script reads a script. ErrNoScript; ErrCorrupt when its text is not what was stored.
func (a *Account) Script(ctx context.Context, name string) ([]byte, ScriptInfo, error) {
	for try := 0; ; try++ {
		st, err := a.fresh(ctx)
		if err != nil {
			return nil, ScriptInfo{}, err
		}
		i, ok := st.script(name)
		if !ok {
			return nil, ScriptInfo{}, fmt.Errorf("%.60q: %w", name, ErrNoScript)
		}
		text, err := a.scriptFile(ctx, i.File)
		if isNotExist(err) && try < 3 {
			continue // replaced meanwhile
		}
		if isNotExist(err) {
			err = fmt.Errorf("script %.60q: %w: its file %s is missing", name, ErrCorrupt, i.File)
		}
		return text, i, err
	}
}

func (a *Account) scriptFile(ctx context.Context, file string) (text []byte, err error) {
	id, ok := parseScriptFile(file)
	if !ok {
		return nil, fmt.Errorf("script file %.60q: %w", file, ErrCorrupt)
	}
	path := a.dir + "/" + dirScripts + "/" + file
	err = a.vol.do(ctx, func() (err error) {
		text, err = readFile(a.vol.fs, path, maxScript)
		if err != nil && !isNotExist(err) {
			err = ioErr("read", path, err)
		}
		return err
	})
	if err == nil && (uint64(len(text)) != id.size || checksum(text) != id.crc) {
		return nil, fmt.Errorf("%s: %w: not what was stored", path, ErrCorrupt)
	}
	return text, err
}

// PutScript stores a script under a name, in place of the one that had it.
func (a *Account) PutScript(ctx context.Context, name string, text []byte) error {
	if err := checkScriptName(name); err != nil {
		return err
	}
	if len(text) > maxScript {
		return fmt.Errorf("script %.60q of %d bytes: %w", name, len(text), ErrTooLarge)
	}
	st, err := a.fresh(ctx)
	if err != nil {
		return err
	}
	id := msgID{nonce: a.s.nextNonce(), size: uint64(len(text)), crc: checksum(text)}
	file := id.String()
	dir := a.dir + "/" + dirScripts
	path := dir + "/" + file
	err = a.vol.do(ctx, func() error {
		err := a.vol.writeFile(path, text)
		if isNotExist(err) {
			if err := a.vol.fs.Mkdir(dir); err != nil && !errors.Is(err, syscall.EEXIST) {
				return ioErr("mkdir", dir, err)
			}
			if err := a.vol.orderDir(a.dir); err != nil {
				return err
			}
			err = a.vol.writeFile(path, text)
		}
		if err != nil {
			return ioErr("write", path, err)
		}
		return a.vol.orderDir(dir)
	})
	if err != nil {
		return err
	}
	if _, _, err = a.commitOp(ctx, acctOp{kind: opAttribute, id: "-", key: attrScript + name, value: file}); err != nil {
		if !isUnknown(err) {
			a.dropScript(ctx, file)
		}
		return err
	}
	a.dropScript(ctx, st.attrs[attrScript+name])
	return nil
}

// dropScript removes the text of a script that has been replaced; what stays is collected later.
func (a *Account) dropScript(ctx context.Context, file string) {
	if _, ok := parseScriptFile(file); ok {
		_ = a.vol.do(ctx, func() error { return a.vol.fs.Unlink(a.dir + "/" + dirScripts + "/" + file) })
	}
}

// DeleteScript deletes a script. ErrNoScript, ErrScriptActive.
func (a *Account) DeleteScript(ctx context.Context, name string) error {
	st, err := a.fresh(ctx)
	if err != nil {
		return err
	}
	i, ok := st.script(name)
	switch {
	case !ok:
		return fmt.Errorf("%.60q: %w", name, ErrNoScript)
	case i.Active:
		return fmt.Errorf("%.60q: %w", name, ErrScriptActive)
	}
	if _, _, err := a.commitOp(ctx, acctOp{kind: opAttribute, id: "-", key: attrScript + name}); err != nil {
		return err
	}
	a.dropScript(ctx, i.File)
	return nil
}

// ActivateScript makes a script the active one; "": none. ErrNoScript.
func (a *Account) ActivateScript(ctx context.Context, name string) error {
	st, err := a.fresh(ctx)
	if err != nil {
		return err
	}
	if name != "" {
		if _, ok := st.script(name); !ok {
			return fmt.Errorf("%.60q: %w", name, ErrNoScript)
		}
	}
	if st.attrs[attrScriptActive] == name {
		return nil
	}
	_, _, err = a.commitOp(ctx, acctOp{kind: opAttribute, id: "-", key: attrScriptActive, value: name})
	return err
}

// RenameScript gives a script another name; the active one stays active. ErrNoScript, ErrScriptExists. A server that dies in
// the middle leaves the script under both names.
func (a *Account) RenameScript(ctx context.Context, from, to string) error {
	if err := checkScriptName(to); err != nil {
		return err
	}
	st, err := a.fresh(ctx)
	if err != nil {
		return err
	}
	i, ok := st.script(from)
	if !ok {
		return fmt.Errorf("%.60q: %w", from, ErrNoScript)
	}
	if _, taken := st.script(to); taken {
		return fmt.Errorf("%.60q: %w", to, ErrScriptExists)
	}
	ops := []acctOp{{kind: opAttribute, id: "-", key: attrScript + to, value: i.File}}
	if i.Active {
		ops = append(ops, acctOp{kind: opAttribute, id: "-", key: attrScriptActive, value: to})
	}
	ops = append(ops, acctOp{kind: opAttribute, id: "-", key: attrScript + from})
	for _, op := range ops {
		if _, _, err := a.commitOp(ctx, op); err != nil {
			return err
		}
	}
	return nil
}

// collectScripts removes the files in sieve/ that belong to no script and are older than a day.
func (a *Account) collectScripts(ctx context.Context, st *acctState, now time.Time) error {
	used := map[string]bool{}
	for key, file := range st.attrs {
		if strings.HasPrefix(key, attrScript) {
			used[file] = true
		}
	}
	dir := a.dir + "/" + dirScripts
	return a.vol.do(ctx, func() error {
		names, err := a.vol.fs.ReadDir(dir, nil)
		if isNotExist(err) {
			return nil
		}
		if err != nil {
			return ioErr("list", dir, err)
		}
		for _, name := range names {
			if _, ok := parseScriptFile(name); ok && !used[name] {
				if err := a.vol.removeOld(dir+"/"+name, now.Add(-24*time.Hour)); err != nil {
					return err
				}
			}
		}
		return nil
	})
}
