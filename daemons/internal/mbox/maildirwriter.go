package mbox

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// MaildirWriter makes a Maildir++ tree.
type MaildirWriter struct {
	path       string
	run        string // tells the files of this writer from all others
	count      int
	subscribed []string
}

// CreateMaildir makes a tree at path, or goes on with the one that is there.
func CreateMaildir(path string) (*MaildirWriter, error) {
	var id [8]byte
	if _, err := rand.Read(id[:]); err != nil {
		return nil, fmt.Errorf("make Maildir: %w", err)
	}
	w := &MaildirWriter{path: path, run: hex.EncodeToString(id[:])}
	return w, makeFolders(path)
}

func makeFolders(path string) error {
	for _, sub := range []string{"tmp", "new", "cur"} {
		if err := os.MkdirAll(filepath.Join(path, sub), 0o700); err != nil {
			return fmt.Errorf("make Maildir folder: %w", err)
		}
	}
	return nil
}

// FolderWriter writes the messages of one folder.
type FolderWriter struct {
	w        *MaildirWriter
	path     string
	keywords []string
	changed  bool
	lost     []string
}

// ErrFolderName says that a folder's name has no form in Maildir++: a level is empty or has a dot in it
// that would separate.
var ErrFolderName = errors.New("the name cannot be that of a Maildir++ folder")

// Folder makes the folder of a name in UTF-8, with "/" between levels; "INBOX" is the tree itself. ErrFolderName
// where the name has no form.
func (w *MaildirWriter) Folder(name string, subscribed bool) (*FolderWriter, error) {
	f := &FolderWriter{w: w, path: w.path}
	if !strings.EqualFold(name, inbox) {
		levels := strings.Split(name, "/")
		for i, l := range levels {
			if l == "" || strings.ContainsAny(l, ".\x00") {
				return nil, fmt.Errorf("%q: %w", name, ErrFolderName)
			}
			levels[i] = EncodeUTF7(l)
		}
		dir := strings.Join(levels, ".")
		f.path = filepath.Join(w.path, "."+dir)
		if err := makeFolders(f.path); err != nil {
			return nil, err
		}
		mark, err := os.OpenFile(filepath.Join(f.path, "maildirfolder"), os.O_CREATE|os.O_WRONLY, 0o600)
		if err != nil {
			return nil, fmt.Errorf("make Maildir folder: %w", err)
		}
		if err := mark.Close(); err != nil {
			return nil, fmt.Errorf("make Maildir folder: %w", err)
		}
		if subscribed && !slices.Contains(w.subscribed, dir) {
			w.subscribed = append(w.subscribed, dir)
		}
	}
	var err error
	f.keywords, err = readKeywords(f.path)
	return f, err
}

// Write writes one message into cur, durably: its bytes are on the device before it has its name.
func (f *FolderWriter) Write(r io.Reader, flags, keywords []string, date time.Time) error {
	f.w.count++
	return f.WriteAs(fmt.Sprintf("%s_%d", f.w.run, f.w.count), r, flags, keywords, date)
}

// WriteAs is Write with a unique part of the name that the caller chooses: a message that was written before is
// known by it again (MaildirMessage.Base begins with the time and a dot, then it follows up to the next dot). It
// must be unique in the folder and hold no dot, comma, colon or slash. What a writer that was killed left in tmp is
// replaced.
func (f *FolderWriter) WriteAs(unique string, r io.Reader, flags, keywords []string, date time.Time) (err error) {
	name := fmt.Sprintf("%d.%s.shoal", date.Unix(), unique)
	tmp := filepath.Join(f.path, "tmp", name)
	info := f.info(flags, keywords)
	if err := f.saveKeywords(); err != nil { // before a name has a letter that nobody could explain
		return err
	}
	if err := os.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("write Maildir message: %w", err)
	}
	file, err := os.OpenFile(tmp, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("write Maildir message: %w", err)
	}
	size, err := io.Copy(file, r)
	if err == nil {
		err = file.Sync()
	}
	err = errors.Join(err, file.Close())
	if err == nil {
		err = os.Chtimes(tmp, date, date)
	}
	if err == nil {
		err = os.Rename(tmp, filepath.Join(f.path, "cur", fmt.Sprintf("%s,S=%d:2,%s", name, size, info)))
	}
	if err != nil {
		return errors.Join(fmt.Errorf("write Maildir message: %w", err), os.Remove(tmp))
	}
	return nil
}

// info writes flags and keywords as letters, in the order of the alphabet.
func (f *FolderWriter) info(flags, keywords []string) string {
	var letters []byte
	for _, m := range maildirFlags {
		if containsFold(flags, m.flag) || containsFold(keywords, m.flag) {
			letters = append(letters, m.letter)
		}
	}
	for _, k := range keywords {
		if strings.EqualFold(k, "$Forwarded") {
			continue
		}
		i := slices.IndexFunc(f.keywords, func(s string) bool { return strings.EqualFold(s, k) })
		if i < 0 {
			if i = len(f.keywords); i == maxKeywords {
				if !containsFold(f.lost, k) {
					f.lost = append(f.lost, k)
				}
				continue
			}
			f.keywords, f.changed = append(f.keywords, k), true
		}
		letters = append(letters, byte('a'+i))
	}
	slices.Sort(letters)
	return string(slices.Compact(letters))
}

func containsFold(list []string, s string) bool {
	return slices.ContainsFunc(list, func(e string) bool { return strings.EqualFold(e, s) })
}

// saveKeywords writes the folder's keywords where one is new.
func (f *FolderWriter) saveKeywords() error {
	if !f.changed {
		return nil
	}
	var b strings.Builder
	for i, k := range f.keywords {
		fmt.Fprintf(&b, "%d %s\n", i, k)
	}
	f.changed = false
	return writeFile(filepath.Join(f.path, keywordsFile), b.String())
}

// Close makes the names of the folder's messages durable. lost are keywords that had no letter left: a Maildir
// folder can have 26.
func (f *FolderWriter) Close() (lost []string, err error) {
	return f.lost, syncDir(filepath.Join(f.path, "cur"))
}

// Close writes the subscriptions.
func (w *MaildirWriter) Close() error {
	if len(w.subscribed) > 0 {
		slices.Sort(w.subscribed)
		if err := writeFile(filepath.Join(w.path, "subscriptions"), strings.Join(w.subscribed, "\n")+"\n"); err != nil {
			return err
		}
	}
	return syncDir(w.path)
}

func writeFile(path, content string) error {
	tmp := path + ".tmp"
	if err := os.WriteFile(tmp, []byte(content), 0o600); err != nil {
		return fmt.Errorf("write Maildir: %w", err)
	}
	if err := os.Rename(tmp, path); err != nil {
		return fmt.Errorf("write Maildir: %w", err)
	}
	return nil
}

func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("sync Maildir folder: %w", err)
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		return fmt.Errorf("sync Maildir folder: %w", err)
	}
	return nil
}
