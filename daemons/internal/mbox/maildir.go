package mbox

import (
	"bufio"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// ErrNotMaildir says that a directory has not the folders of a Maildir.
var ErrNotMaildir = errors.New("not a Maildir: it has no cur and new folders")

// Maildir is a Maildir++ tree that is read.
type Maildir struct {
	path string
}

// OpenMaildir opens the tree at path. ErrNotMaildir where it has no cur and new folders.
func OpenMaildir(path string) (*Maildir, error) {
	if _, err := os.Stat(path); err != nil {
		return nil, fmt.Errorf("open Maildir: %w", err)
	}
	if !isMaildir(path) {
		return nil, fmt.Errorf("%s: %w", path, ErrNotMaildir)
	}
	return &Maildir{path: path}, nil
}

func isMaildir(path string) bool {
	for _, sub := range []string{"cur", "new"} {
		if st, err := os.Stat(filepath.Join(path, sub)); err != nil || !st.IsDir() {
			return false
		}
	}
	return true
}

// Folder is one folder of a Maildir++ tree.
type Folder struct {
	Name       string // UTF-8, levels separated by "/"; "INBOX" for the tree itself
	Path       string // its directory
	Subscribed bool
}

// Folders lists the folders, INBOX first and the others by name. INBOX counts as subscribed.
func (m *Maildir) Folders() ([]Folder, error) {
	entries, err := os.ReadDir(m.path)
	if err != nil {
		return nil, fmt.Errorf("list Maildir: %w", err)
	}
	subscribed, err := m.subscriptions()
	if err != nil {
		return nil, err
	}
	folders := []Folder{{Name: inbox, Path: m.path, Subscribed: true}}
	for _, e := range entries {
		name := e.Name()
		if len(name) < 2 || name[0] != '.' || name == ".." {
			continue
		}
		path := filepath.Join(m.path, name)
		if !isMaildir(path) {
			continue
		}
		folders = append(folders, Folder{Name: folderName(name[1:]), Path: path, Subscribed: subscribed[folderName(name[1:])]})
	}
	slices.SortFunc(folders[1:], func(a, b Folder) int { return strings.Compare(a.Name, b.Name) })
	return folders, nil
}

const inbox = "INBOX"

// folderName turns the name of a directory, without its first dot, into that of the folder. A slash that a
// level has in it would be taken for a separator.
func folderName(dir string) string {
	levels := strings.Split(dir, ".")
	for i, l := range levels {
		levels[i] = strings.ReplaceAll(DecodeUTF7(l), "/", "_")
	}
	return strings.Join(levels, "/")
}

// subscriptions reads the file of Dovecot, of either version, or that of Courier.
//
//	subscriptions            name per line, levels separated by "." or "/"
//	                         or first "V" TAB "2", an empty line, then levels separated by TAB
//	courierimapsubscribed    "INBOX." name per line
func (m *Maildir) subscriptions() (map[string]bool, error) {
	names := map[string]bool{}
	for _, file := range []string{"subscriptions", "courierimapsubscribed"} {
		f, err := os.Open(filepath.Join(m.path, file))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read subscriptions: %w", err)
		}
		lines := bufio.NewScanner(f)
		tabs := false
		for n := 0; lines.Scan(); n++ {
			line := strings.TrimRight(lines.Text(), "\r")
			if n == 0 && strings.HasPrefix(line, "V\t") {
				tabs = true
				continue
			}
			if tabs {
				line = strings.ReplaceAll(line, "\t", ".")
			} else {
				line = strings.ReplaceAll(line, "/", ".")
			}
			if file == "courierimapsubscribed" {
				line = strings.TrimPrefix(line, inbox+".")
			}
			if line != "" {
				names[folderName(line)] = true
			}
		}
		err = errors.Join(lines.Err(), f.Close())
		if err != nil {
			return nil, fmt.Errorf("read subscriptions: %w", err)
		}
	}
	return names, nil
}

// MaildirMessage is one message file.
type MaildirMessage struct {
	Path     string
	Base     string    // file name without its info: the same as long as the message is kept
	Flags    []string  // IMAP's names: \Answered \Deleted \Draft \Flagged \Seen $Forwarded
	Keywords []string  // by the folder's dovecot-keywords
	Date     time.Time // modification time of the file: the internal date
	Size     int64
}

// maildirBatch is how many names of a directory are read at once.
const maildirBatch = 256

// Messages calls fn for each message of a folder, in no particular order; it ends with the error that fn
// returns. Names are read in batches; what is kept is a few bytes for each message.
//
// The folder may change meanwhile: a mail client renames files as flags change, and moves them from new to
// cur. A listing may miss a file that is renamed while it goes on. So the folder is listed again until
// nothing new comes up. Each message that is there from the beginning to the end is given once.
func (m *Maildir) Messages(f Folder, fn func(MaildirMessage) error) error {
	keywords, err := readKeywords(f.Path)
	if err != nil {
		return err
	}
	w := maildirWalk{keywords: keywords, fn: fn, seed: maphash.MakeSeed(), given: map[uint64]struct{}{}}
	for round := 0; round < maxRounds; round++ {
		w.fresh = false
		if err := w.dir(filepath.Join(f.Path, "new"), true); err != nil {
			return err
		}
		if err := w.dir(filepath.Join(f.Path, "cur"), false); err != nil {
			return err
		}
		if !w.fresh {
			break
		}
	}
	return nil
}

const maxRounds = 10

type maildirWalk struct {
	keywords []string
	fn       func(MaildirMessage) error
	seed     maphash.Seed
	given    map[uint64]struct{} // by the hash of their base
	fresh    bool                // this round has come upon a file that none before has given
}

func (w *maildirWalk) dir(path string, isNew bool) error {
	d, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("list Maildir folder: %w", err)
	}
	defer d.Close()
	for {
		entries, err := d.ReadDir(maildirBatch)
		for _, e := range entries {
			if e.Name()[0] == '.' {
				continue
			}
			if err := w.file(path, e.Name(), isNew); err != nil {
				return err
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("list Maildir folder: %w", err)
		}
	}
}

func (w *maildirWalk) file(dir, name string, isNew bool) error {
	base, info := splitInfo(name)
	key := maphash.String(w.seed, base)
	if _, ok := w.given[key]; ok {
		return nil
	}
	path := filepath.Join(dir, name)
	st, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) { // renamed or deleted since it was listed
		w.fresh = true
		return nil
	}
	if err != nil {
		return fmt.Errorf("read Maildir: %w", err)
	}
	if !st.Mode().IsRegular() {
		return nil
	}
	w.given[key], w.fresh = struct{}{}, true
	msg := MaildirMessage{Path: path, Base: base, Date: st.ModTime(), Size: st.Size()}
	if !isNew {
		msg.Flags, msg.Keywords = flagsOf(info, w.keywords)
	}
	return w.fn(msg)
}

// splitInfo takes a file name apart at its info. File systems that allow no colon have other signs there.
func splitInfo(name string) (base, info string) {
	for i := 0; i+2 < len(name); i++ {
		if c := name[i]; (c == ':' || c == ';' || c == '!') && name[i+1] == '2' && name[i+2] == ',' {
			return name[:i], name[i+3:]
		}
	}
	base, _, _ = strings.Cut(name, ":")
	return base, ""
}

// maildirFlags are the flags of the info, in the order in which they are written.
var maildirFlags = []struct {
	letter byte
	flag   string
}{{'D', `\Draft`}, {'F', `\Flagged`}, {'P', "$Forwarded"}, {'R', `\Answered`}, {'S', `\Seen`}, {'T', `\Deleted`}}

// maxKeywords is how many keywords a folder can have: one for each letter.
const maxKeywords = 26

func flagsOf(info string, names []string) (flags, keywords []string) {
	for _, f := range maildirFlags {
		if strings.IndexByte(info, f.letter) >= 0 {
			flags = append(flags, f.flag)
		}
	}
	for i, name := range names {
		if name != "" && strings.IndexByte(info, byte('a'+i)) >= 0 {
			keywords = append(keywords, name)
		}
	}
	return flags, keywords
}

// readKeywords reads the dovecot-keywords of a folder: lines of a number, a blank and the keyword that the letter
// of this number stands for.
func readKeywords(dir string) ([]string, error) {
	f, err := os.Open(filepath.Join(dir, keywordsFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read keywords: %w", err)
	}
	defer f.Close()
	var names []string
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		num, name, ok := strings.Cut(strings.TrimSpace(lines.Text()), " ")
		n, err := strconv.Atoi(num)
		if !ok || err != nil || n < 0 || n >= maxKeywords {
			continue
		}
		for len(names) <= n {
			names = append(names, "")
		}
		names[n] = name
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("read keywords: %w", err)
	}
	return names, nil
}

const keywordsFile = "dovecot-keywords"
