package shoalctl

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/emersion/go-imap/v2"

	"shoal/daemons/internal/mbox"
)

// errTargetExists: an export does not write over anything.
var errTargetExists = errors.New("it exists already, and an export overwrites nothing")

// maildirTarget writes a Maildir++ tree. The name of each message holds UIDVALIDITY and UID, by which another run
// knows it again. While the export is not finished the file shoal-export lies in the tree; it says of what.
type maildirTarget struct {
	path    string
	crlf    bool
	w       *mbox.MaildirWriter
	folder  *mbox.FolderWriter
	current *mailboxView
	there   map[string]bool   // unique parts of the names in the present folder
	names   map[string]string // folder to the mailbox that it is of
	notes   []string
}

// exportIdentity says what is exported; an interrupted export goes on only with the same.
type exportIdentity struct {
	Account string `json:"account"`
	Service string `json:"service"`
	Mailbox string `json:"mailbox"`
}

const exportMark = "shoal-export"

func newMaildirTarget(path string, id exportIdentity, crlf, resume bool) (*maildirTarget, error) {
	text, err := json.Marshal(id)
	if err != nil {
		return nil, err
	}
	text = append(text, '\n')
	mark := filepath.Join(path, exportMark)
	have, err := os.ReadFile(mark)
	switch {
	case err == nil && !resume:
		return nil, fmt.Errorf("%s: %w; it is of an interrupted export, with which --resume goes on", path, errTargetExists)
	case err == nil && !bytes.Equal(have, text):
		return nil, fmt.Errorf("%s: the interrupted export there is another: %s", path, printable(strings.TrimSpace(string(have))))
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return nil, err
	case err != nil && resume:
		return nil, fmt.Errorf("%s: there is no interrupted export to go on with (no file %s)", path, exportMark)
	case err != nil:
		if err := mustBeNew(path); err != nil {
			return nil, err
		}
		if err := os.MkdirAll(path, 0o700); err != nil {
			return nil, err
		}
		if err := os.WriteFile(mark, text, 0o600); err != nil {
			return nil, err
		}
	}
	w, err := mbox.CreateMaildir(path)
	if err != nil {
		return nil, err
	}
	return &maildirTarget{path: path, crlf: crlf, w: w, names: map[string]string{}}, nil
}

// mustBeNew refuses a folder that has anything in it.
func mustBeNew(path string) error {
	entries, err := os.ReadDir(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case len(entries) > 0:
		return fmt.Errorf("%s: %w", path, errTargetExists)
	}
	return nil
}

func (w *maildirTarget) mailbox(name string, m *mailboxView) (string, error) {
	if err := w.closeFolder(); err != nil {
		return "", err
	}
	folder := name
	if strings.ContainsAny(name, ".\x00") || strings.Contains("/"+name+"/", "//") {
		folder = strings.NewReplacer(".", "_", "\x00", "_").Replace(name)
		for strings.Contains("/"+folder+"/", "//") {
			folder = strings.Trim(strings.ReplaceAll("/"+folder+"/", "//", "/_/"), "/")
		}
		w.notes = append(w.notes, fmt.Sprintf("mailbox %q is written as %q: a Maildir has no folder of its name", name, folder))
	}
	if other, taken := w.names[folder]; taken {
		return "", fmt.Errorf("mailboxes %q and %q would be the same folder of a Maildir: export one of them alone", other, name)
	}
	w.names[folder] = name
	f, err := w.w.Folder(folder, m.subscribed)
	if err != nil {
		return "", err
	}
	w.folder, w.current, w.there = f, m, map[string]bool{}
	tree, err := mbox.OpenMaildir(w.path)
	if err != nil {
		return "", err
	}
	folders, err := tree.Folders()
	if err != nil {
		return "", err
	}
	for _, have := range folders {
		if have.Name != folder {
			continue
		}
		err := tree.Messages(have, func(m mbox.MaildirMessage) error {
			if parts := strings.SplitN(m.Base, ".", 3); len(parts) == 3 {
				w.there[parts[1]] = true
			}
			return nil
		})
		return have.Path, err
	}
	return "", fmt.Errorf("mailbox %q: its folder cannot be read again", name)
}

func (w *maildirTarget) unique(uid imap.UID) string {
	return fmt.Sprintf("V%dU%d", w.current.validity, uid)
}

func (w *maildirTarget) has(uid imap.UID) bool { return w.there[w.unique(uid)] }

func (w *maildirTarget) write(m storedMessage, content io.Reader) (exact bool, err error) {
	var flags, keywords []string
	for _, flag := range m.flags {
		if strings.HasPrefix(flag, `\`) {
			flags = append(flags, flag)
		} else {
			keywords = append(keywords, flag)
		}
	}
	ends := &lineEnds{src: content, keep: w.crlf}
	if err := w.folder.WriteAs(w.unique(m.uid), ends, flags, keywords, m.date); err != nil {
		return false, err
	}
	return w.crlf || ends.odd == 0, nil
}

func (w *maildirTarget) closeFolder() error {
	if w.folder == nil {
		return nil
	}
	lost, err := w.folder.Close()
	if len(lost) > 0 {
		w.notes = append(w.notes, fmt.Sprintf("mailbox %q has more keywords than the 26 of a Maildir folder; left out: %s", w.current.name, strings.Join(lost, " ")))
	}
	w.folder = nil
	return err
}

func (w *maildirTarget) finish(whole bool) ([]string, error) {
	err := errors.Join(w.closeFolder(), w.w.Close())
	if err == nil && whole {
		err = os.Remove(filepath.Join(w.path, exportMark))
	}
	return w.notes, err
}

// mboxTarget writes mbox files: each beside its place, which it gets when it is whole.
type mboxTarget struct {
	place func(name string) (string, error) // of a mailbox
	path  string
	tmp   *os.File
	w     *mbox.Writer
}

// newMboxFile writes one mailbox into one file.
func newMboxFile(path string) (*mboxTarget, error) {
	if _, err := os.Lstat(path); err == nil {
		return nil, fmt.Errorf("%s: %w", path, errTargetExists)
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return &mboxTarget{place: func(string) (string, error) { return path, nil }}, nil
}

// newMboxFolder writes <mailbox>.mbox files into a folder; levels of names become folders.
func newMboxFolder(path string) (*mboxTarget, error) {
	if err := mustBeNew(path); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, err
	}
	return &mboxTarget{place: func(name string) (string, error) {
		levels := strings.Split(name, "/")
		if slices.ContainsFunc(levels, func(l string) bool { return l == "" || l[0] == '.' || strings.ContainsRune(l, 0) || len(l) > 240 }) {
			return "", fmt.Errorf("mailbox %q cannot be the name of a file: export it alone with --mailbox", name)
		}
		file := filepath.Join(append([]string{path}, levels...)...) + ".mbox"
		return file, os.MkdirAll(filepath.Dir(file), 0o700)
	}}, nil
}

func (w *mboxTarget) mailbox(name string, _ *mailboxView) (string, error) {
	if err := w.closeFile(); err != nil {
		return "", err
	}
	var err error
	if w.path, err = w.place(name); err != nil {
		return "", err
	}
	if w.tmp, err = os.CreateTemp(filepath.Dir(w.path), ".shoal-export-*"); err != nil {
		return "", err
	}
	w.w = mbox.NewWriter(w.tmp)
	return w.path, nil
}

func (w *mboxTarget) has(imap.UID) bool { return false }

func (w *mboxTarget) write(m storedMessage, content io.Reader) (exact bool, err error) {
	ends := &lineEnds{src: content, keep: true} // the writer converts
	r := bufio.NewReaderSize(ends, 8<<10)
	start, err := r.Peek(4 << 10)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, bufio.ErrBufferFull) {
		return false, err
	}
	if err := w.w.Write(returnPath(start), m.date, r); err != nil {
		return false, err
	}
	return ends.odd == 0 && ends.last[1] == '\n', nil
}

// returnPath is the sender that a delivery noted at the top of a message, for the from-line.
func returnPath(start []byte) string {
	for line := range bytes.Lines(start) {
		line = bytes.TrimRight(line, "\r\n")
		name, value, ok := bytes.Cut(line, []byte(":"))
		switch {
		case len(line) == 0 || !ok && line[0] != ' ' && line[0] != '\t':
			return ""
		case strings.EqualFold(string(name), "Return-Path"):
			return printable(strings.Trim(strings.TrimSpace(string(value)), "<>"))
		}
	}
	return ""
}

// closeFile gives a file its name, unless somebody else took it meanwhile.
func (w *mboxTarget) closeFile() error {
	if w.tmp == nil {
		return nil
	}
	tmp := w.tmp
	w.tmp = nil
	defer os.Remove(tmp.Name())
	if err := errors.Join(tmp.Sync(), tmp.Close()); err != nil {
		return fmt.Errorf("write %s: %w", w.path, err)
	}
	if err := os.Link(tmp.Name(), w.path); err != nil {
		if errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("%s: %w", w.path, errTargetExists)
		}
		return err
	}
	dir, err := os.Open(filepath.Dir(w.path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

func (w *mboxTarget) finish(whole bool) ([]string, error) {
	if whole {
		return nil, w.closeFile()
	}
	if w.tmp != nil {
		return nil, errors.Join(w.tmp.Close(), os.Remove(w.tmp.Name()))
	}
	return nil, nil
}

// lineEnds makes CRLF to LF, unless keep, and counts the odd ends of lines, which cannot be told from others
// afterwards: an LF without a CR, and one with two of them.
type lineEnds struct {
	src  io.Reader
	keep bool
	odd  int
	last [2]byte // the last that was read from src

	buf [32 << 10]byte
	out []byte // converted, not yet given
	cr  bool   // a CR is held back
	err error
}

func (l *lineEnds) Read(p []byte) (int, error) {
	for len(l.out) == 0 {
		if l.err != nil {
			return 0, l.err
		}
		var n int
		n, l.err = l.src.Read(l.buf[:len(l.buf)/2]) // the other half: room for the CR held back
		l.convert(l.buf[:n])
	}
	n := copy(p, l.out)
	l.out = l.out[n:]
	return n, nil
}

func (l *lineEnds) convert(in []byte) {
	out := l.buf[len(l.buf)/2:][:0]
	for _, c := range in {
		if c == '\n' && (l.last[1] != '\r' || l.last[0] == '\r') {
			l.odd++
		}
		l.last = [2]byte{l.last[1], c}
	}
	if l.keep {
		l.out = in
		return
	}
	for _, c := range in {
		if l.cr && c != '\n' {
			out = append(out, '\r')
		}
		if l.cr = c == '\r'; !l.cr {
			out = append(out, c)
		}
	}
	if l.err != nil && l.cr {
		out, l.cr = append(out, '\r'), false
	}
	l.out = out
}
