package shoalctl

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/emersion/go-imap/v2"
	"golang.org/x/sys/unix"
)

// importState is what is known of an import that is not finished: which messages the server has acknowledged. It
// is a file of its own for each import (account, service, paths, mailbox), to which one line is added for each
// acknowledgement, so that an import that was killed at any moment can go on.
//
//	state   = "shoal-import 1 " json LF *( line LF )   json: what is imported where, for people
//	line    = "box " number SP uidvalidity SP uidnext SP name    before the first message goes there; number from 0
//	        / "got " number SP uid SP fingerprint                this message is stored durably in that mailbox
//	        / "end"                                              nothing is under way: the run ended in order
//
// A message is known by its fingerprint (of mailbox and content), not by its place in the source: files may be
// renamed and mail may come to the source between two runs.
//
// What was under way when a run was killed may be stored without a line. So the next run first looks at what came
// into these mailboxes since uidnext and has no line: a message of the source that is among it byte for byte is
// not sent again. Mail that others put into the mailbox meanwhile does no harm.
type importState struct {
	f       *os.File
	boxes   map[string]*importBox // by name
	count   int                   // of boxes that have a line
	resumed bool                  // there were messages before
	clean   bool                  // the last run ended in order
}

// importBox is a mailbox that is imported into.
type importBox struct {
	number   int
	name     string
	validity uint32
	next     imap.UID                   // before the first message was sent
	stored   map[fingerprint]int        // messages that lines tell of: how often
	uids     map[imap.UID]bool          // of them
	strays   map[fingerprint][]imap.UID // what came without a line
}

type fingerprint [16]byte

func fingerprintOf(content []byte) fingerprint {
	sum := sha256.Sum256(content)
	return fingerprint(sum[:16])
}

// importIdentity says which import this is. Its text is the first line of the state.
type importIdentity struct {
	Account string   `json:"account"`
	Service string   `json:"service"`
	Mailbox string   `json:"mailbox"`
	Paths   []string `json:"paths"`
}

const stateHead = "shoal-import 1 "

// errImportRuns: another process works at the same import.
var errImportRuns = errors.New("the same import is running already")

// stateFolder is where the states lie.
func stateFolder() (string, error) {
	base := os.Getenv("XDG_STATE_HOME")
	if !filepath.IsAbs(base) {
		home, err := os.UserHomeDir()
		if err != nil {
			return "", fmt.Errorf("no folder for the import's state: %w: name one with XDG_STATE_HOME", err)
		}
		base = filepath.Join(home, ".local", "state")
	}
	return filepath.Join(base, "shoal", "import"), nil
}

// openState opens the state of an import in folder, or begins one. restart forgets what is there.
func openState(folder string, id importIdentity, restart bool) (*importState, error) {
	for i, path := range id.Paths {
		abs, err := filepath.Abs(path)
		if err != nil {
			return nil, err
		}
		id.Paths[i] = abs
	}
	text, err := json.Marshal(id)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return nil, fmt.Errorf("the import's state: %w", err)
	}
	sum := sha256.Sum256(text)
	path := filepath.Join(folder, hex.EncodeToString(sum[:8]))
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("the import's state: %w", err)
	}
	s := &importState{f: f, boxes: map[string]*importBox{}}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("%w (%s)", errImportRuns, path)
	}
	if restart {
		if err := f.Truncate(0); err != nil {
			f.Close()
			return nil, fmt.Errorf("the import's state: %w", err)
		}
	}
	if err := s.read(stateHead + string(text)); err != nil {
		f.Close()
		return nil, fmt.Errorf("the import's state %s: %w", path, err)
	}
	return s, nil
}

// read takes in what earlier runs wrote. A last line without an end was being written when a run was killed: it is
// cut off.
func (s *importState) read(head string) error {
	r := bufio.NewReaderSize(s.f, 64<<10)
	var whole int64
	var byNumber []*importBox
	for n := 0; ; n++ {
		line, err := r.ReadString('\n')
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		whole += int64(len(line))
		line = strings.TrimSuffix(line, "\n")
		if n == 0 {
			if line != head {
				return fmt.Errorf("it begins with %q: another version wrote it; import anew with --restart", printable(line))
			}
			continue
		}
		if err := s.take(line, &byNumber); err != nil {
			return fmt.Errorf("line %d: %w; import anew with --restart", n+1, err)
		}
	}
	s.count = len(byNumber)
	if err := s.f.Truncate(whole); err != nil {
		return err
	}
	if whole == 0 {
		return s.add(head)
	}
	return nil
}

func (s *importState) take(line string, byNumber *[]*importBox) error {
	fields := strings.SplitN(line, " ", 5)
	number := func(i int) (uint32, error) {
		if i >= len(fields) {
			return 0, fmt.Errorf("%q is too short", printable(line))
		}
		n, err := strconv.ParseUint(fields[i], 10, 32)
		return uint32(n), err
	}
	s.clean = fields[0] == "end"
	if s.clean {
		return nil
	}
	n, err := number(1)
	if err != nil {
		return err
	}
	switch {
	case fields[0] == "box" && len(fields) == 5 && int(n) == len(*byNumber):
		validity, err := number(2)
		if err != nil {
			return err
		}
		next, err := number(3)
		if err != nil {
			return err
		}
		name, err := strconv.Unquote(fields[4])
		if err != nil {
			return fmt.Errorf("%q is no name", printable(fields[4]))
		}
		box := newBox(int(n), name, validity, imap.UID(next))
		*byNumber = append(*byNumber, box)
		s.boxes[box.name] = box // a later one of the same name: the mailbox was made anew
		return nil
	case fields[0] == "got" && len(fields) == 4 && int(n) < len(*byNumber):
		uid, err := number(2)
		if err != nil {
			return err
		}
		raw, err := hex.DecodeString(fields[3])
		if err != nil || len(raw) != len(fingerprint{}) {
			return fmt.Errorf("%q is no fingerprint", printable(fields[3]))
		}
		(*byNumber)[n].got(imap.UID(uid), fingerprint(raw))
		s.resumed = true
		return nil
	}
	return fmt.Errorf("%q is not understood", printable(line))
}

func newBox(number int, name string, validity uint32, next imap.UID) *importBox {
	return &importBox{number: number, name: name, validity: validity, next: next,
		stored: map[fingerprint]int{}, uids: map[imap.UID]bool{}, strays: map[fingerprint][]imap.UID{}}
}

func (b *importBox) got(uid imap.UID, print fingerprint) {
	b.stored[print]++
	b.uids[uid] = true
}

// add writes one line. It survives the end of this process; a power cut may take the last ones, which then count as
// messages without a line.
func (s *importState) add(line string) error {
	if _, err := s.f.WriteString(line + "\n"); err != nil {
		return fmt.Errorf("the import's state: %w", err)
	}
	return nil
}

// begin notes a mailbox before the first message goes there. It is durable when it returns: without it nobody would
// look for messages without a line.
func (s *importState) begin(name string, validity uint32, next imap.UID) (*importBox, error) {
	box := newBox(s.count, name, validity, next)
	s.boxes[name] = box
	s.count++
	if err := s.add(fmt.Sprintf("box %d %d %d %q", box.number, validity, next, name)); err != nil {
		return nil, err
	}
	if err := s.f.Sync(); err != nil {
		return nil, fmt.Errorf("the import's state: %w", err)
	}
	return box, nil
}

// acknowledged notes that the server has stored a message.
func (s *importState) acknowledged(box *importBox, uid imap.UID, print fingerprint) error {
	return s.add(fmt.Sprintf("got %d %d %s", box.number, uid, hex.EncodeToString(print[:])))
}

// close keeps the state for another run, or removes it when all is imported.
func (s *importState) close(finished, clean bool) error {
	defer s.f.Close()
	switch {
	case finished:
		if err := os.Remove(s.f.Name()); err != nil {
			return fmt.Errorf("the import's state: %w", err)
		}
	case clean:
		return s.add("end")
	}
	return nil
}

// A server may still work at what a killed run had sent to it: its work is taken to be done when no mailbox has
// got a new UID for calmFor. It is waited for at most calmWithin, because others may put mail there all the time.
const (
	calmFor    = time.Second
	calmWithin = 30 * time.Second
)

// look compares what earlier runs wrote with the mailboxes: those made anew since then are forgotten, and what came
// without a line is read. separator is that of the server's mailbox names.
func (s *importState) look(ctx context.Context, r *imapReader, separator string) error {
	var views []*mailboxView
	for name, box := range s.boxes {
		m := &mailboxView{name: name, raw: strings.ReplaceAll(name, "/", separator)}
		err := r.measure(m)
		switch {
		case errors.As(err, &refusal{}): // it is gone; if that is not why, creating it fails, too
			delete(s.boxes, name)
		case err != nil:
			return err
		case m.validity != box.validity:
			delete(s.boxes, name)
		default:
			views = append(views, m)
		}
	}
	if s.clean || len(views) == 0 {
		return nil
	}
	if err := calm(ctx, r, views); err != nil {
		return err
	}
	for _, m := range views {
		box := s.boxes[m.name]
		if err := r.open(m); err != nil {
			return err
		}
		all, err := r.messages(box.next)
		if err != nil {
			return err
		}
		var uids []imap.UID
		for _, stored := range all {
			if !box.uids[stored.uid] {
				uids = append(uids, stored.uid)
			}
		}
		err = r.contents(uids, func(m storedMessage, body io.Reader) error {
			sum := sha256.New()
			if _, err := io.Copy(sum, body); err != nil {
				return err
			}
			print := fingerprint(sum.Sum(nil)[:len(fingerprint{})])
			box.strays[print] = append(box.strays[print], m.uid)
			return nil
		})
		if err != nil {
			return fmt.Errorf("mailbox %s: %w", m.name, err)
		}
	}
	return nil
}

func calm(ctx context.Context, r *imapReader, views []*mailboxView) error {
	tick := time.NewTicker(calmFor)
	defer tick.Stop()
	var last uint64
	for range calmWithin / calmFor {
		var sum uint64
		for _, m := range views {
			if err := r.measure(m); err != nil {
				return err
			}
			sum += uint64(m.next)
		}
		if sum == last {
			return nil
		}
		last = sum
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
	return nil
}

// known says whether an earlier run has stored a message, and takes it off the list: what the source holds twice
// is imported twice. uid is not 0 if there was no line of it.
func (b *importBox) known(print fingerprint) (known bool, uid imap.UID) {
	if b.stored[print] > 0 {
		b.stored[print]--
		return true, 0
	}
	if strays := b.strays[print]; len(strays) > 0 {
		b.strays[print] = strays[1:]
		return true, strays[0]
	}
	return false, 0
}
