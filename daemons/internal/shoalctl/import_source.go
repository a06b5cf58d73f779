package shoalctl

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/mail"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"shoal/daemons/internal/mbox"
)

// item is one message to import.
type item struct {
	mailbox string // "INBOX", or a folder of a Maildir with levels separated by "/"
	name    string // for messages about it: the file, with the offset in an mbox
	date    time.Time
	flags   []string
	content []byte // lines end in CRLF
	err     error  // it cannot be imported, and why; content is nil
	done    int64  // bytes of the whole source up to its end
	box     *importBox
	print   fingerprint
}

// source is what is imported: mbox files and Maildirs, in the order in which they were named.
type source struct {
	paths   []string
	format  mbox.Format
	maxSize int64
	total   int64 // bytes
}

var formats = map[string]mbox.Format{
	"auto": mbox.Detect, "mboxo": mbox.MboxO, "mboxrd": mbox.MboxRD, "git": mbox.Git,
}

// newSource looks at the paths: each is an mbox file or the folder of a Maildir.
func newSource(paths []string, format string, maxSize int64) (*source, error) {
	f, ok := formats[format]
	if !ok {
		return nil, usageError{fmt.Errorf("--format %q: it is auto, mboxo, mboxrd or git", format)}
	}
	s := &source{paths: paths, format: f, maxSize: maxSize}
	for _, path := range paths {
		info, err := os.Stat(path)
		if err != nil {
			return nil, fmt.Errorf("import: %w", err)
		}
		if !info.IsDir() {
			s.total += info.Size()
			continue
		}
		err = eachMaildirFile(path, func(_ string, m mbox.MaildirMessage) error {
			s.total += m.Size
			return nil
		})
		if err != nil {
			return nil, fmt.Errorf("import %s: %w", path, err)
		}
	}
	return s, nil
}

func eachMaildirFile(path string, f func(folder string, m mbox.MaildirMessage) error) error {
	maildir, err := mbox.OpenMaildir(path)
	if err != nil {
		return err
	}
	folders, err := maildir.Folders()
	if err != nil {
		return err
	}
	for _, folder := range folders {
		err := maildir.Messages(folder, func(m mbox.MaildirMessage) error { return f(folder.Name, m) })
		if err != nil {
			return fmt.Errorf("folder %s: %w", folder.Name, err)
		}
	}
	return nil
}

// each gives one message after the other to f, until f fails.
func (s *source) each(ctx context.Context, f func(item) error) error {
	var done int64
	give := func(it item) error {
		it.done = done
		if err := ctx.Err(); err != nil {
			return err
		}
		return f(it)
	}
	for _, path := range s.paths {
		info, err := os.Stat(path)
		if err != nil {
			return err
		}
		if info.IsDir() {
			err = s.eachOfMaildir(path, &done, give)
		} else {
			err = s.eachOfMbox(path, &done, give)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
	}
	return nil
}

func (s *source) eachOfMbox(path string, done *int64, give func(item) error) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	counted := &countingReader{r: f}
	before := *done
	r := mbox.NewReader(bufio.NewReaderSize(counted, 1<<20), mbox.Options{Format: s.format})
	for {
		m, err := r.Next()
		if errors.Is(err, io.EOF) {
			*done = before + counted.n
			return nil
		}
		if err != nil {
			return err
		}
		it := item{mailbox: "INBOX", name: fmt.Sprintf("%s at byte %d", path, m.Offset), date: m.Date}
		it.content, it.err, err = s.read(m)
		if err != nil {
			return err
		}
		fromHeader(&it, r.Format() == mbox.Git)
		*done = before + min(counted.n, m.Offset+int64(len(it.content)))
		if err := give(it); err != nil {
			return err
		}
	}
}

func (s *source) eachOfMaildir(path string, done *int64, give func(item) error) error {
	type entry struct {
		folder string
		m      mbox.MaildirMessage
	}
	var entries []entry
	err := eachMaildirFile(path, func(folder string, m mbox.MaildirMessage) error {
		entries = append(entries, entry{folder, m})
		return nil
	})
	if err != nil {
		return err
	}
	slices.SortStableFunc(entries, func(a, b entry) int {
		return cmp.Or(folderOrder(a.folder, b.folder), cmp.Compare(arrival(a.m.Base), arrival(b.m.Base)), strings.Compare(a.m.Base, b.m.Base))
	})
	for _, e := range entries {
		it := item{
			mailbox: e.folder, name: e.m.Path, date: e.m.Date,
			flags: append(slices.Clone(e.m.Flags), e.m.Keywords...),
		}
		f, err := os.Open(e.m.Path)
		if err != nil {
			it.err = err // a mail program may have moved it meanwhile
		} else {
			it.content, it.err, err = s.read(f)
			f.Close()
			if err != nil {
				it.err = err
			}
		}
		*done += e.m.Size
		if err := give(it); err != nil {
			return err
		}
	}
	return nil
}

// folderOrder puts INBOX first, the others by name.
func folderOrder(a, b string) int {
	rank := func(s string) int {
		if s == "INBOX" {
			return 0
		}
		return 1
	}
	return cmp.Or(rank(a)-rank(b), strings.Compare(a, b))
}

// arrival is the time in seconds with which the name of a Maildir file begins.
func arrival(base string) int64 {
	seconds, _, _ := strings.Cut(filepath.Base(base), ".")
	n, err := strconv.ParseInt(seconds, 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// read takes a whole message into memory, its line ends made CRLF. problem is of the message, err of the file.
func (s *source) read(r io.Reader) (content []byte, problem, err error) {
	content, err = io.ReadAll(io.LimitReader(mbox.CRLFReader(r), s.maxSize+1))
	switch {
	case err != nil:
		return nil, nil, err
	case int64(len(content)) > s.maxSize:
		return nil, fmt.Errorf("it is larger than %s", bytesText(s.maxSize)), nil
	case len(content) == 0:
		return nil, errors.New("it is empty"), nil
	}
	return content, nil, nil
}

// fromHeader takes from the header what an mbox file keeps there: flags (Status and X-Status, as mutt and
// others write them), and the date where the from-line has none worth having.
func fromHeader(it *item, ignoreDate bool) {
	end := bytes.Index(it.content, []byte("\r\n\r\n"))
	if end < 0 {
		return
	}
	header, err := mail.ReadMessage(bytes.NewReader(it.content[:end+4]))
	if err != nil {
		return
	}
	for _, c := range header.Header.Get("Status") + header.Header.Get("X-Status") {
		if flag, ok := statusFlags[c]; ok && !slices.Contains(it.flags, flag) {
			it.flags = append(it.flags, flag)
		}
	}
	if it.date.IsZero() || ignoreDate {
		if date, err := header.Header.Date(); err == nil {
			it.date = date
		} else if ignoreDate {
			it.date = time.Time{}
		}
	}
}

var statusFlags = map[rune]string{'R': `\Seen`, 'A': `\Answered`, 'F': `\Flagged`, 'T': `\Draft`, 'D': `\Deleted`}

type countingReader struct {
	r io.Reader
	n int64
}

func (c *countingReader) Read(b []byte) (int, error) {
	n, err := c.r.Read(b)
	c.n += int64(n)
	return n, err
}
