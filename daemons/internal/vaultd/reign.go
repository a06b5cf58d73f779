package vaultd

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"shoal/daemons/internal/dirstore"
	"shoal/daemons/internal/ldapwire"
	"shoal/daemons/internal/replica"
)

// reign says who is the master of the directory, as far as this vault knows: the epoch grows with each promotion. What
// a vault has once voted for or followed it never follows less than. It is kept in <database>/reign, which outlives a
// replaced database, and stands in the entry cn=master,ou=config of the directory, which every vault has:
//
//	shoal-reign 1
//	epoch 3
//	master vault2
//	mode shadow
//	lease 10000
//
// Without the file the entry counts, and without the entry the configuration: a vault with shadow { provider } is a
// shadow, any other the master, of epoch 0.
type reign struct {
	Epoch  uint64
	Master string // "" while nobody knows
	Mode   string // of this vault: replica.ModeMaster, ModeShadow, ModeCandidate
	// Promise is the longest lease that this vault has ever granted with this file: after a restart it keeps to it, also
	// when its configuration has a shorter one now.
	Promise time.Duration
}

const (
	reignFile = "reign"
	reignMark = "shoal-reign 1"
)

// sid is the server id in the CSNs of an epoch's master (12 bits).
func (r reign) sid() int { return int(r.Epoch & 0xfff) }

func (r reign) String() string { return fmt.Sprintf("epoch %d, master %s", r.Epoch, r.Master) }

func reignDN(suffix string) string { return "cn=master,ou=config," + suffix }

// loadReign reads the file; ok is false if there is none.
func loadReign(folder string) (r reign, ok bool, err error) {
	name := filepath.Join(folder, reignFile)
	text, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return r, false, nil
	}
	if err != nil {
		return r, false, err
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	if len(lines) == 0 || lines[0] != reignMark {
		return r, false, fmt.Errorf("%s: it does not begin with %q: it is damaged, or of a newer version", name, reignMark)
	}
	for _, line := range lines[1:] {
		key, value, _ := strings.Cut(line, " ")
		switch key {
		case "epoch":
			if r.Epoch, err = strconv.ParseUint(value, 10, 64); err != nil {
				return r, false, fmt.Errorf("%s: epoch %q", name, value)
			}
		case "master":
			r.Master = value
		case "mode":
			r.Mode = value
		case "lease":
			ms, err := strconv.ParseInt(value, 10, 64)
			if err != nil || ms < 0 || ms > int64(time.Hour/time.Millisecond) {
				return r, false, fmt.Errorf("%s: lease %q", name, value)
			}
			r.Promise = time.Duration(ms) * time.Millisecond
		}
	}
	if r.Mode != replica.ModeMaster && r.Mode != replica.ModeShadow && r.Mode != replica.ModeCandidate {
		return r, false, fmt.Errorf("%s: mode %q", name, r.Mode)
	}
	return r, true, nil
}

// save writes the file so that a crash leaves the old one or the new one.
func (r reign) save(folder string) error {
	name := filepath.Join(folder, reignFile)
	f, err := os.OpenFile(name+".new", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(f, "%s\nepoch %d\nmaster %s\nmode %s\nlease %d\n", reignMark, r.Epoch, r.Master, r.Mode, r.Promise.Milliseconds())
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := os.Rename(name+".new", name); err != nil {
		return err
	}
	d, err := os.Open(folder)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// entry finds an entry by its name; ok is false if there is none.
func lookUp(r *dirstore.Reader, s *dirstore.Store, dn string) (f dirstore.Found, ok bool) {
	norm, err := s.CheckDN([]byte(dn))
	if err != nil {
		return f, false
	}
	id, err := r.Resolve(norm)
	if err != nil {
		return f, false
	}
	f, ok, err = r.Get(id)
	return f, ok && err == nil
}

// reignOfEntry reads the entry; ok is false if there is none.
func reignOfEntry(s *dirstore.Store) (g reign, ok bool, err error) {
	r, err := s.Read()
	if err != nil {
		return g, false, err
	}
	defer r.Close()
	f, ok := lookUp(r, s, reignDN(s.Suffix()))
	if !ok {
		return g, false, nil
	}
	g.Master = strings.ToLower(r.Value(&f, "shoalDirectoryMaster"))
	g.Epoch, err = strconv.ParseUint(r.Value(&f, "shoalDirectoryEpoch"), 10, 64)
	return g, err == nil, err
}

// proclaim writes the entry.
func (g reign) proclaim(s *dirstore.Store, by string) error {
	dn, epoch, master := []byte(reignDN(s.Suffix())), []byte(strconv.FormatUint(g.Epoch, 10)), []byte(g.Master)
	one := func(name string, v ...[]byte) ldapwire.Attribute {
		return ldapwire.Attribute{Type: []byte(name), Values: v}
	}
	err := s.Do(by, &dirstore.Add{DN: dn, Attributes: []ldapwire.Attribute{one("objectClass", []byte("shoalDirectoryReign")),
		one("description", []byte("Who takes the updates of the directory; written by vaultd")),
		one("shoalDirectoryEpoch", epoch), one("shoalDirectoryMaster", master)}})
	var e *ldapwire.Error
	if errors.As(err, &e) && e.Code == ldapwire.EntryAlreadyExists {
		err = s.Do(by, &dirstore.Modify{DN: dn, Changes: []ldapwire.Change{
			{Op: ldapwire.ChangeReplace, Attribute: one("shoalDirectoryEpoch", epoch)},
			{Op: ldapwire.ChangeReplace, Attribute: one("shoalDirectoryMaster", master)}}})
	}
	if err != nil {
		return fmt.Errorf("entry %s: %w", dn, err)
	}
	return nil
}
