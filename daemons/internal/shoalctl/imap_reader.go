package shoalctl

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"
	"github.com/emersion/go-sasl"
)

// imapReader reads an account's mail over IMAP and changes nothing there: mailboxes are opened by EXAMINE,
// contents taken by BODY.PEEK[].
type imapReader struct {
	c      *imapclient.Client
	broken bool // a content was left unread
}

// mailboxView is a mailbox as the reader found it.
type mailboxView struct {
	name       string // UTF-8, levels separated by "/"
	raw        string // as the server writes it
	subscribed bool
	validity   uint32
	next       imap.UID
	messages   int64
	size       int64 // bytes of all messages; -1: the server does not tell
}

// storedMessage is one message of a mailbox.
type storedMessage struct {
	uid   imap.UID
	size  int64
	date  time.Time
	flags []string
}

// readBatch is how many messages are asked for with one command.
const readBatch = 500

// imapTLS is how the certificate of the IMAP service is verified.
func imapTLS(c *IMAP) (*tls.Config, error) {
	config := &tls.Config{}
	if c.CAFile == "" {
		return config, nil
	}
	text, err := os.ReadFile(c.CAFile)
	if err != nil {
		return nil, err
	}
	config.RootCAs = x509.NewCertPool()
	if !config.RootCAs.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("%s holds no certificate", c.CAFile)
	}
	return config, nil
}

// openIMAP connects over TLS and logs in.
func openIMAP(c *IMAP, user, password string) (*imapReader, error) {
	config, err := imapTLS(c)
	if err != nil {
		return nil, err
	}
	client, err := imapclient.DialTLS(c.Address, &imapclient.Options{TLSConfig: config, Dialer: &net.Dialer{Timeout: 10 * time.Second}})
	if err != nil {
		return nil, fmt.Errorf("%w: IMAP at %s: %w", errUnreachable, c.Address, err)
	}
	if err := client.Authenticate(sasl.NewPlainClient("", user, password)); err != nil {
		client.Close()
		return nil, fmt.Errorf("IMAP at %s: login of %s: %w", c.Address, user, err)
	}
	return &imapReader{c: client}, nil
}

// close says goodbye, unless a content was left unread: then the connection is only cut, which must not be waited
// for because the client's own reader may still stand at that content.
func (r *imapReader) close() {
	if r.broken {
		go func() { _ = r.c.Close() }()
		return
	}
	_ = r.c.Logout().Wait()
	_ = r.c.Close()
}

// mailboxes lists the account's mailboxes, INBOX first, the others by name, without those that only hold others.
func (r *imapReader) mailboxes() ([]mailboxView, error) {
	list := func(options *imap.ListOptions) ([]*imap.ListData, error) {
		return r.c.List("", "*", options).Collect()
	}
	all, err := list(nil)
	if err != nil {
		return nil, fmt.Errorf("list mailboxes: %w", err)
	}
	subscribed := map[string]bool{}
	if names, err := list(&imap.ListOptions{SelectSubscribed: true}); err == nil { // without LIST-EXTENDED: unknown
		for _, d := range names {
			subscribed[d.Mailbox] = true
		}
	}
	var views []mailboxView
	for _, d := range all {
		if slices.Contains(d.Attrs, imap.MailboxAttrNoSelect) || slices.Contains(d.Attrs, imap.MailboxAttrNonExistent) {
			continue
		}
		views = append(views, mailboxView{name: slashed(d.Mailbox, d.Delim), raw: d.Mailbox, subscribed: subscribed[d.Mailbox]})
	}
	slices.SortFunc(views, func(a, b mailboxView) int { return folderOrder(a.name, b.name) })
	return views, nil
}

// slashed writes a mailbox name with "/" between levels.
func slashed(name string, delimiter rune) string {
	if strings.EqualFold(name, "INBOX") {
		return "INBOX"
	}
	if delimiter == 0 || delimiter == '/' {
		return name
	}
	return strings.ReplaceAll(strings.ReplaceAll(name, "/", "_"), string(delimiter), "/")
}

// open opens a mailbox for reading and fills its view.
func (r *imapReader) open(m *mailboxView) error {
	data, err := r.c.Select(m.raw, &imap.SelectOptions{ReadOnly: true}).Wait()
	if err != nil {
		return fmt.Errorf("mailbox %s: %w", m.name, err)
	}
	m.validity, m.messages = data.UIDValidity, int64(data.NumMessages)
	return nil
}

// measure asks how much is in a mailbox, without opening it.
func (r *imapReader) measure(m *mailboxView) error {
	caps := r.c.Caps()
	sized := caps.Has(imap.CapStatusSize) || caps.Has(imap.CapIMAP4rev2)
	data, err := r.c.Status(m.raw, &imap.StatusOptions{NumMessages: true, UIDNext: true, UIDValidity: true, Size: sized}).Wait()
	if err != nil {
		return fmt.Errorf("mailbox %s: %w", m.name, err)
	}
	m.size, m.validity, m.next = -1, data.UIDValidity, data.UIDNext
	if data.Size != nil {
		m.size = *data.Size
	}
	if data.NumMessages != nil {
		m.messages = int64(*data.NumMessages)
	}
	return nil
}

// messages gives uid and size of the messages of the open mailbox whose UID is at least first.
func (r *imapReader) messages(first imap.UID) ([]storedMessage, error) {
	var set imap.UIDSet
	set.AddRange(first, 0)
	cmd := r.c.Fetch(set, &imap.FetchOptions{UID: true, RFC822Size: true})
	var all []storedMessage
	for data := cmd.Next(); data != nil; data = cmd.Next() {
		var m storedMessage
		for item := data.Next(); item != nil; item = data.Next() {
			m.take(item)
		}
		if m.uid >= first { // "n:*" names the last message even if it is below n
			all = append(all, m)
		}
	}
	if err := cmd.Close(); err != nil {
		return nil, fmt.Errorf("list messages: %w", err)
	}
	return all, nil
}

func (m *storedMessage) take(item imapclient.FetchItemData) {
	switch item := item.(type) {
	case imapclient.FetchItemDataUID:
		m.uid = item.UID
	case imapclient.FetchItemDataRFC822Size:
		m.size = item.Size
	case imapclient.FetchItemDataInternalDate:
		m.date = item.Time
	case imapclient.FetchItemDataFlags:
		m.flags = nil
		for _, flag := range item.Flags {
			m.flags = append(m.flags, string(flag))
		}
	}
}

// contents gives the messages of these UIDs of the open mailbox to f, each with its content as a stream that is
// valid until f returns. Messages that are gone meanwhile are left out. After an error of f the connection is of
// no more use.
func (r *imapReader) contents(uids []imap.UID, f func(storedMessage, io.Reader) error) error {
	whole := []*imap.FetchItemBodySection{{Peek: true}}
	for batch := range slices.Chunk(uids, readBatch) {
		cmd := r.c.Fetch(imap.UIDSetNum(batch...), &imap.FetchOptions{UID: true, Flags: true, InternalDate: true, RFC822Size: true, BodySection: whole})
		for data := cmd.Next(); data != nil; data = cmd.Next() {
			if err := eachContent(data, f); err != nil {
				r.broken = true
				return err
			}
		}
		if err := cmd.Close(); err != nil {
			return fmt.Errorf("fetch: %w", err)
		}
	}
	return nil
}

// eachContent reads one FETCH answer. The content comes last, as it was asked for.
func eachContent(data *imapclient.FetchMessageData, f func(storedMessage, io.Reader) error) error {
	var m storedMessage
	given := false
	for item := data.Next(); item != nil; item = data.Next() {
		body, ok := item.(imapclient.FetchItemDataBodySection)
		if !ok {
			m.take(item)
			continue
		}
		if body.Literal == nil {
			continue
		}
		if m.uid == 0 || m.date.IsZero() {
			return fmt.Errorf("the server gives the content of message %d before its UID and date", data.SeqNum)
		}
		counted := &countingReader{r: body.Literal}
		if err := f(m, counted); err != nil {
			return err
		}
		if _, err := io.Copy(io.Discard, counted); err != nil {
			return fmt.Errorf("fetch of message %d: %w", m.uid, err)
		}
		if counted.n != m.size {
			return fmt.Errorf("message %d has %d bytes, the server said %d", m.uid, counted.n, m.size)
		}
		given = true
	}
	if m.uid != 0 && !given && m.size > 0 && !m.date.IsZero() {
		return fmt.Errorf("the server does not give the content of message %d", m.uid)
	}
	return nil
}
