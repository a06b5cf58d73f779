// Package maildir reads the trees of mail folders that Dovecot and Courier keep, with everything that their clients have cached: UIDVALIDITY,
// UIDs, POP3 unique-ids, flags, keywords, subscriptions; and writes such a tree for Dovecot. Package mbox has the plain Maildir,
// which knows no UIDs.
//
// # On disk
//
//	cur/ new/ tmp/              INBOX; a message is cur/<base>[:2,<letters>] or new/<base>
//	.Lists.Go/{cur,new,tmp}     Maildir++: a folder "Lists/Go"; LAYOUT=fs has Lists/Go/{cur,new,tmp}
//	dovecot-uidlist             Dovecot, in each folder: UIDVALIDITY, UIDNEXT, UIDs by base
//	dovecot-keywords            what the letters a to z mean in this folder
//	subscriptions               Dovecot, in the root
//	courierimapuiddb, courierimapkeywords/, courierpop3dsizelist, courierimapsubscribed     Courier's
//
// The grammars stand above their parsers. Names of folders are in modified UTF-7 or in UTF-8: a tree that has a name with a byte above
// 0x7f is in UTF-8.
//
// # Invariants
//
//   - Nothing is changed by reading. What a running server changes meanwhile (a file renamed, a list half written) makes a message
//     be missing from the result, or come without UID: another look finds it.
//   - Messages come in ascending order of UID; those that have none follow, oldest first.
//   - Every read is bounded.
//
// Left out on purpose: Dovecot's index files. What is only there (keywords beyond the 26 that file names can have, modification
// sequences, special uses set by clients) is not seen. Files with Dovecot's mail_crypt are not read.
package maildir

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"shoal/daemons/internal/mbox"
)

// Server is whose files tell the UIDs.
type Server string

// The servers.
const (
	Dovecot Server = "dovecot"
	Courier Server = "courier"
	None    Server = "none" // nobody's: messages have no UIDs
)

// ErrNotMaildir: the folder has no cur and new.
var ErrNotMaildir = errors.New("not a Maildir")

// Options of Open. The zero value finds out.
type Options struct {
	Control string // where Dovecot keeps its lists if not in the folders (CONTROL=): laid out as the tree
	Server  Server
}

// Tree is the mail of one user.
type Tree struct {
	Root   string
	Server Server
	FS     bool // LAYOUT=fs: levels are folders
	UTF8   bool // names are in UTF-8

	control string
	folders []Folder
}

// Folder is one folder of a tree.
type Folder struct {
	Name    string // levels separated by "/"; INBOX is the root
	Dir     string
	control string
	server  Server
}

// Message is one message of a folder.
type Message struct {
	UID      uint32 // 0: none yet
	Path     string
	Base     string // its name without letters
	Letters  string // upper case: DFPRST
	Keywords []string
	UIDL     string // POP3 unique-id that the server keeps for it; empty: none of its own
	Size     int64  // of the file, in bytes
}

// Mailbox is what is known of a folder.
type Mailbox struct {
	UIDValidity uint32 // 0: none
	UIDNext     uint32
	Messages    []Message
	Gone        []uint32 // UIDs in the list whose files are not there
}

// maxLevels bounds the depth of a tree.
const maxLevels = 64

// Open looks at a tree.
func Open(root string, o Options) (*Tree, error) {
	root = filepath.Clean(root)
	t := &Tree{Root: root, Server: o.Server, control: root}
	if o.Control != "" {
		t.control = filepath.Clean(o.Control)
	}
	if _, err := os.Lstat(filepath.Join(root, "cur")); errors.Is(err, fs.ErrPermission) {
		return nil, err
	}
	if !isFolder(root) {
		return nil, fmt.Errorf("%s: %w: it has no folders cur and new", root, ErrNotMaildir)
	}
	if t.Server == "" {
		switch {
		case exists(filepath.Join(t.control, uidList)):
			t.Server = Dovecot
		case exists(filepath.Join(root, courierUIDs)):
			t.Server = Courier
		default:
			t.Server = None
		}
	}
	t.folders = []Folder{t.folder("INBOX", "")}
	names, err := subfolders(root)
	if err != nil {
		return nil, err
	}
	for _, n := range names {
		if n[0] == '.' && isFolder(filepath.Join(root, n)) {
			t.folders = append(t.folders, t.folder("", n))
		}
	}
	if len(t.folders) == 1 {
		if err := t.walk("", names, 0); err != nil {
			return nil, err
		}
		t.FS = len(t.folders) > 1
	}
	for _, f := range t.folders {
		t.UTF8 = t.UTF8 || !isASCII(f.Dir[len(root):])
	}
	taken := map[string]string{}
	for i := range t.folders {
		f := &t.folders[i]
		if i > 0 {
			f.Name = t.name(strings.TrimPrefix(f.Dir[len(root):], "/"))
		}
		if other, ok := taken[f.Name]; ok {
			return nil, fmt.Errorf("%s and %s would both be folder %q", other, f.Dir, f.Name)
		}
		taken[f.Name] = f.Dir
	}
	slices.SortFunc(t.folders[1:], func(a, b Folder) int { return cmp.Compare(a.Name, b.Name) })
	return t, nil
}

// walk finds the folders of LAYOUT=fs.
func (t *Tree) walk(rel string, names []string, level int) error {
	if level > maxLevels {
		return fmt.Errorf("%s: more than %d levels", filepath.Join(t.Root, rel), maxLevels)
	}
	for _, n := range names {
		if n == "cur" || n == "new" || n == "tmp" || n[0] == '.' {
			continue
		}
		at := filepath.Join(rel, n)
		if isFolder(filepath.Join(t.Root, at)) {
			t.folders = append(t.folders, t.folder("", at))
		}
		below, err := subfolders(filepath.Join(t.Root, at))
		if err != nil {
			return err
		}
		if err := t.walk(at, below, level+1); err != nil {
			return err
		}
	}
	return nil
}

func (t *Tree) folder(name, rel string) Folder {
	return Folder{Name: name, Dir: filepath.Join(t.Root, rel), control: filepath.Join(t.control, rel), server: t.Server}
}

// name reads the name of a folder's directory.
func (t *Tree) name(rel string) string {
	if !t.FS {
		rel = strings.ReplaceAll(strings.TrimPrefix(rel, "."), ".", "/")
	}
	return t.text(rel)
}

// text reads a name as it is written in this tree.
func (t *Tree) text(s string) string {
	if t.UTF8 {
		return strings.ToValidUTF8(s, "\ufffd")
	}
	return mbox.DecodeUTF7(s)
}

// Folders are the folders: INBOX first, then by name.
func (t *Tree) Folders() []Folder { return t.folders }

// Subscriptions lists the subscribed folders, in the order of the file, INBOX as "INBOX".
func (t *Tree) Subscriptions() ([]string, error) {
	file, parse := filepath.Join(t.control, "subscriptions"), parseDovecotSubscriptions
	if t.Server == Courier {
		file, parse = filepath.Join(t.Root, "courierimapsubscribed"), parseCourierSubscribed
	}
	b, err := readFile(file, maxList)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var out []string
	for _, levels := range parse(b) {
		if t.FS && t.Server == Dovecot && len(levels) == 1 {
			levels = strings.Split(levels[0], "/") // version 1 of the file
		}
		for i := range levels {
			levels[i] = t.text(levels[i])
		}
		if name := strings.Join(levels, "/"); name != "" && !slices.Contains(out, name) {
			out = append(out, name)
		}
	}
	return out, nil
}

// Read lists the messages of a folder.
func (f *Folder) Read() (*Mailbox, error) {
	m := &Mailbox{}
	var uids []uidEntry
	var keywords func(base, letters string) []string
	var err error
	switch f.server {
	case Dovecot:
		uids, keywords, err = f.readDovecot(m)
	case Courier:
		uids, keywords, err = f.readCourier(m)
	}
	if err != nil {
		return nil, err
	}
	files, times, err := f.list()
	if err != nil {
		return nil, err
	}
	seen := make(map[string]bool, len(uids))
	for i := range uids {
		u := &uids[i]
		if seen[u.base] {
			continue // listed again: the first UID is what clients know
		}
		msg, ok := files[u.base]
		if !ok {
			m.Gone = append(m.Gone, u.uid)
			continue
		}
		seen[u.base] = true
		msg.UID, msg.UIDL = u.uid, u.uidl
		m.Messages = append(m.Messages, msg)
	}
	slices.SortFunc(m.Messages, func(a, b Message) int { return cmp.Compare(a.UID, b.UID) })
	var fresh []Message
	for base, msg := range files {
		if !seen[base] {
			fresh = append(fresh, msg)
		}
	}
	slices.SortFunc(fresh, func(a, b Message) int {
		if c := times[a.Base].Compare(times[b.Base]); c != 0 {
			return c
		}
		return cmp.Compare(a.Base, b.Base)
	})
	m.Messages = append(m.Messages, fresh...)
	for i := range m.Messages {
		msg := &m.Messages[i]
		letters := msg.Letters
		msg.Letters = upper(letters)
		if keywords != nil {
			msg.Keywords = keywords(msg.Base, letters)
		}
		m.UIDNext = max(m.UIDNext, msg.UID+1)
	}
	return m, nil
}

// list gives the files of a folder by base, and when those in new arrived.
func (f *Folder) list() (map[string]Message, map[string]time.Time, error) {
	files, times := map[string]Message{}, map[string]time.Time{}
	for _, sub := range []string{"new", "cur"} { // a file that is moved from new to cur between the two is found
		dir := filepath.Join(f.Dir, sub)
		entries, err := os.ReadDir(dir)
		if err != nil {
			return nil, nil, err
		}
		for _, e := range entries {
			if e.Name()[0] == '.' || e.IsDir() {
				continue
			}
			base, info, _ := strings.Cut(e.Name(), ":")
			letters := ""
			if l, ok := strings.CutPrefix(info, "2,"); ok {
				letters, _, _ = strings.Cut(l, ",")
			}
			if sub == "new" {
				letters = ""
			}
			var size int64
			if i, err := e.Info(); err == nil {
				times[base], size = i.ModTime(), i.Size()
			}
			files[base] = Message{Path: filepath.Join(dir, e.Name()), Base: base, Letters: letters, Size: size}
		}
	}
	return files, times, nil
}

func upper(letters string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'A' && r <= 'Z' {
			return r
		}
		return -1
	}, letters)
}

func subfolders(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if e.IsDir() {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

func isFolder(dir string) bool {
	return isDir(filepath.Join(dir, "cur")) && isDir(filepath.Join(dir, "new"))
}

func isDir(path string) bool {
	i, err := os.Lstat(path)
	return err == nil && i.IsDir()
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

func isASCII(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

// maxList bounds a list file, in bytes.
const maxList = 1 << 30

func readFile(path string, limit int64) ([]byte, error) {
	i, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if i.Size() > limit {
		return nil, fmt.Errorf("%s: %d bytes, at most %d expected", path, i.Size(), limit)
	}
	return os.ReadFile(path)
}
