package maildir

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"shoal/daemons/internal/mbox"
)

// Writer writes a Maildir++ tree as Dovecot keeps it, from message files that are on the same file system: they get a second name
// in it. The tree is written beside its place and put there by Close, whole.
type Writer struct {
	root, tmp string
	chown     func(path string) error // nil: owners stay as they are
	folders   map[string]string
	subs      []string
	Copied    int // messages that could not be linked
}

// Outgoing is a message to write.
type Outgoing struct {
	Path     string // its file
	UID      uint32
	Letters  string // upper case
	Keywords []string
	Date     time.Time
	File     int64 // bytes of the file
	Size     int64 // with CRLF
	UIDL     string
}

// Create begins a tree at root, which must not exist. Chown, if not nil, is called for each file and directory of it.
func Create(root string, chown func(path string) error) (*Writer, error) {
	root = filepath.Clean(root)
	if exists(root) {
		return nil, fmt.Errorf("%s: %w", root, os.ErrExist)
	}
	w := &Writer{root: root, tmp: root + ".new", chown: chown, folders: map[string]string{}}
	if err := os.RemoveAll(w.tmp); err != nil { // of a run that was killed: names of files that others have, and lists
		return nil, err
	}
	return w, w.mkdir(w.tmp)
}

func (w *Writer) mkdir(path string) error {
	if err := os.Mkdir(path, 0o700); err != nil {
		return err
	}
	return w.own(path)
}

func (w *Writer) own(path string) error {
	if w.chown == nil {
		return nil
	}
	return w.chown(path)
}

func (w *Writer) write(path string, text []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	if _, err = f.Write(text); err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return w.own(path)
}

// Subscribe notes a subscription.
func (w *Writer) Subscribe(name string) { w.subs = append(w.subs, name) }

// Folder writes a folder with its messages, which come in ascending order of UID. lost are keywords that had no letter left: a folder has
// 26. Its error names the message.
func (w *Writer) Folder(name string, validity, next uint32, messages func(yield func(Outgoing) bool)) (lost []string, err error) {
	dir := w.tmp
	if name != "INBOX" {
		levels := strings.Split(name, "/")
		for i, l := range levels {
			if levels[i] = mbox.EncodeUTF7(l); strings.Contains(l, ".") || l == "" {
				return nil, fmt.Errorf("folder %q: a Maildir++ tree has no place for a level with a dot: rename it first", name)
			}
		}
		dir = filepath.Join(w.tmp, "."+strings.Join(levels, "."))
		if err := w.mkdir(dir); err != nil {
			return nil, err
		}
		if err := w.write(filepath.Join(dir, "maildirfolder"), nil); err != nil {
			return nil, err
		}
	}
	if other, taken := w.folders[dir]; taken {
		return nil, fmt.Errorf("folders %q and %q would be the same directory", other, name)
	}
	w.folders[dir] = name
	for _, sub := range []string{"cur", "new", "tmp"} {
		if err := w.mkdir(filepath.Join(dir, sub)); err != nil {
			return nil, err
		}
	}
	var keywords []string
	list := fmt.Appendf(nil, "3 V%d N%d\n", validity, next)
	for m := range messages {
		letters := []byte(m.Letters)
		for _, k := range m.Keywords {
			i := slices.Index(keywords, k)
			if i < 0 && len(keywords) < 26 {
				i, keywords = len(keywords), append(keywords, k)
			}
			if i >= 0 {
				letters = append(letters, 'a'+byte(i))
			} else if !slices.Contains(lost, k) {
				lost = append(lost, k)
			}
		}
		slices.Sort(letters)
		base := fmt.Sprintf("%d.V%dU%d.shoal,S=%d,W=%d", m.Date.Unix(), validity, m.UID, m.File, m.Size)
		if err := w.place(m, filepath.Join(dir, "cur", base+":2,"+string(letters))); err != nil {
			return nil, fmt.Errorf("message %d: %w", m.UID, err)
		}
		list = fmt.Appendf(list, "%d ", m.UID)
		if m.UIDL != "" && !strings.ContainsAny(m.UIDL, " \r\n") {
			list = append(append(append(list, 'P'), m.UIDL...), ' ')
		}
		list = append(append(append(list, ':'), base...), '\n')
	}
	if err := w.write(filepath.Join(dir, uidList), list); err != nil {
		return nil, err
	}
	if len(keywords) > 0 {
		var text []byte
		for i, k := range keywords {
			text = fmt.Appendf(text, "%d %s\n", i, k)
		}
		if err := w.write(filepath.Join(dir, keywordsFile), text); err != nil {
			return nil, err
		}
	}
	return lost, syncDirs(filepath.Join(dir, "cur"), dir)
}

// place gives a file its name. Its time is the message's internal date, by which Dovecot goes.
func (w *Writer) place(m Outgoing, path string) error {
	err := os.Link(m.Path, path)
	if errors.Is(err, syscall.EXDEV) || errors.Is(err, syscall.EMLINK) {
		w.Copied++
		err = copyFile(m.Path, path)
	}
	if err != nil {
		return err
	}
	if i, err := os.Stat(path); err != nil || i.ModTime().Unix() != m.Date.Unix() {
		if err == nil {
			err = os.Chtimes(path, m.Date, m.Date)
		}
		if err != nil {
			return err
		}
	}
	return w.own(path)
}

func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	b := bufio.NewWriterSize(out, 256<<10)
	if _, err = io.Copy(b, in); err == nil {
		err = b.Flush()
	}
	if err == nil {
		err = out.Sync()
	}
	if cerr := out.Close(); err == nil {
		err = cerr
	}
	return err
}

// Close writes the subscriptions and puts the tree into its place.
func (w *Writer) Close() error {
	text := []byte("V\t2\n\n")
	escape := strings.NewReplacer("\x01", "\x011", "\t", "\x01t", "\n", "\x01n", "\r", "\x01r")
	for _, s := range w.subs {
		levels := strings.Split(s, "/")
		for i := range levels {
			levels[i] = escape.Replace(mbox.EncodeUTF7(levels[i]))
		}
		text = append(append(text, strings.Join(levels, "\t")...), '\n')
	}
	if err := w.write(filepath.Join(w.tmp, "subscriptions"), text); err != nil {
		return err
	}
	if err := syncDirs(w.tmp); err != nil {
		return err
	}
	if err := os.Rename(w.tmp, w.root); err != nil {
		return err
	}
	return syncDirs(filepath.Dir(w.root))
}

// Abort removes what was written. The messages have their other names.
func (w *Writer) Abort() error { return os.RemoveAll(w.tmp) }

func syncDirs(dirs ...string) error {
	for _, dir := range dirs {
		f, err := os.Open(dir)
		if err != nil {
			return err
		}
		err = f.Sync()
		f.Close()
		if err != nil {
			return fmt.Errorf("sync %s: %w", dir, err)
		}
	}
	return nil
}
