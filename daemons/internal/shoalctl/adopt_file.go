package shoalctl

import (
	"bufio"
	"bytes"
	"compress/bzip2"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync"

	"shoal/daemons/internal/maildir"
	"shoal/daemons/internal/mailstore"
)

// magic are what files begin with that hold no message as it is.
var magic = []struct {
	text   string
	what   string
	unpack func(io.Reader) (io.Reader, error) // nil: cannot be read here
}{
	{"\x1f\x8b", "gzip", func(r io.Reader) (io.Reader, error) { return gzip.NewReader(r) }},
	{"BZh", "bzip2", func(r io.Reader) (io.Reader, error) { return bzip2.NewReader(r), nil }},
	{"\xfd7zXZ\x00", "xz", nil},
	{"\x28\xb5\x2f\xfd", "zstd", nil},
	{"Dovecot-LZ4\r\x2a\x9b\xc5", "lz4", nil},
	{"CRYPTED\x03\x07", "mail_crypt", nil},
}

// errPacked: a file is compressed or encrypted in a way that is not read here.
var errPacked = errors.New("have the old server store it plainly first (doveadm copies a folder, with its plugins)")

// measure looks at the file of a message. Not there any more: nil, fs.ErrNotExist.
func measure(ctx context.Context, s *mailstore.Store, m *maildir.Message) (*mailstore.AdoptMessage, error) {
	f, err := os.Open(m.Path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	i, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !i.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is no regular file", m.Path)
	}
	a := &mailstore.AdoptMessage{Path: m.Path, UID: m.UID, Flags: adoptedFlags(m.Letters), Keywords: m.Keywords, InternalDate: i.ModTime()}
	r := bufio.NewReaderSize(f, 64<<10)
	head, err := r.Peek(16)
	if err != nil && err != io.EOF {
		return nil, err
	}
	for _, k := range magic {
		if !bytes.HasPrefix(head, []byte(k.text)) {
			continue
		}
		if k.unpack == nil {
			return nil, fmt.Errorf("%s is packed with %s: %w", m.Path, k.what, errPacked)
		}
		plain, err := k.unpack(r)
		if err == nil {
			a.Copied, err = s.Stage(ctx, adoptVolume, mailstore.CRLFReader(plain), 0)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: unpack: %w", m.Path, err)
		}
		a.Content.ContentID = a.Copied.Content()
		return a, nil
	}
	if a.Content, err = mailstore.Measure(r); err != nil {
		return nil, fmt.Errorf("read %s: %w", m.Path, err)
	}
	return a, nil
}

// measureAtOnce is how many files are read at once.
const measureAtOnce = 4

// measureAll looks at many files. Those that are gone are left out: their names have changed, and the next run finds them.
func measureAll(ctx context.Context, s *mailstore.Store, msgs []maildir.Message) ([]mailstore.AdoptMessage, error) {
	found := make([]*mailstore.AdoptMessage, len(msgs))
	errs := make([]error, len(msgs))
	var all sync.WaitGroup
	slots := make(chan struct{}, measureAtOnce)
	for i := range msgs {
		slots <- struct{}{}
		all.Go(func() {
			defer func() { <-slots }()
			if errs[i] = ctx.Err(); errs[i] == nil {
				found[i], errs[i] = measure(ctx, s, &msgs[i])
			}
		})
	}
	all.Wait()
	out := make([]mailstore.AdoptMessage, 0, len(msgs))
	var failed error
	for i := range found {
		switch {
		case found[i] != nil:
			out = append(out, *found[i])
		case failed == nil && !errors.Is(errs[i], fs.ErrNotExist):
			failed = errs[i]
		}
	}
	if failed != nil {
		release(out)
		return nil, failed
	}
	return out, nil
}

func release(msgs []mailstore.AdoptMessage) {
	for i := range msgs {
		if msgs[i].Copied != nil {
			_ = msgs[i].Copied.Close() // memory, or a file that the store's background work finds
		}
	}
}

// flagLetters are the letters of a Maildir that are flags of IMAP. P (passed on) is none for Dovecot and Courier.
var flagLetters = []struct {
	letter byte
	flag   mailstore.Flags
}{{'D', mailstore.FlagDraft}, {'F', mailstore.FlagFlagged}, {'R', mailstore.FlagAnswered}, {'S', mailstore.FlagSeen}, {'T', mailstore.FlagDeleted}}

func adoptedFlags(letters string) (f mailstore.Flags) {
	for i := 0; i < len(letters); i++ {
		for _, l := range flagLetters {
			if letters[i] == l.letter {
				f |= l.flag
			}
		}
	}
	return f
}
