package imapsession

import (
	"context"
	"io"
	"path"

	"github.com/emersion/go-imap/v2"

	"shoal/daemons/internal/imapwire"
	"shoal/daemons/internal/mailstore"
	"shoal/daemons/internal/message"
	"shoal/daemons/internal/sharing"
)

// catenation reads a message that is put together by APPEND CATENATE (RFC 4469): from literals of the command, and from messages
// that URLs name. Neither is ever held whole.
//
//	append-data = "CATENATE" SP "(" cat-part *(SP cat-part) ")"
//	cat-part    = "TEXT" SP (literal / literal8) / "URL" SP astring
type catenation struct {
	s     *session
	fits  func(total int64) error // may refuse the message, by the size that it has so far
	most  int64
	total int64

	begun, ended bool
	part         io.Reader
	close        func() error // ends the part
}

func (c *catenation) Read(p []byte) (int, error) {
	for {
		if c.part == nil {
			if err := c.next(); err != nil {
				return 0, err
			}
		}
		n, err := c.part.Read(p)
		if n > 0 || err == nil {
			return n, nil
		}
		if err != io.EOF {
			return 0, err
		}
		if err := c.end(); err != nil {
			return 0, err
		}
	}
}

// end lets go of the part that is read.
func (c *catenation) end() error {
	end := c.close
	c.part, c.close = nil, nil
	if end == nil {
		return nil
	}
	return end()
}

// next takes the next part of the command; io.EOF behind the last one.
func (c *catenation) next() error {
	if c.ended {
		return io.EOF
	}
	d := &c.s.dec
	if c.begun {
		if d.Accept(')') {
			c.ended = true
			return io.EOF
		}
		if err := d.SP(); err != nil {
			return err
		}
	}
	c.begun = true
	switch {
	case d.AcceptWord("TEXT"):
		if err := d.SP(); err != nil {
			return err
		}
		n, _, err := d.OpenLiteral(c.most-c.total, c.add)
		if err != nil {
			return err
		}
		c.total += n
		c.part, c.close = d.LiteralReader(), d.CloseLiteral
		return nil
	case d.AcceptWord("URL"):
		if err := d.SP(); err != nil {
			return err
		}
		text, err := d.AString()
		if err != nil {
			return err
		}
		return c.url(text)
	}
	return badf("TEXT or URL expected at: %s", d.Rest())
}

func (c *catenation) add(n int64) error { return c.fits(c.total + n) }

func (c *catenation) url(text string) error {
	ctx, cancel := c.s.context()
	defer cancel()
	u, err := imapwire.ParseURL(text)
	if err != nil || u.Host != "" {
		return badURL(text) // RFC 4469 §3: relative URLs only
	}
	part, err := c.s.openURL(ctx, c.s.acc, u)
	if err != nil {
		if answer, report := answerTo(err); report || answer.bad {
			return err
		}
		return badURL(text)
	}
	if n := part.Size(); n > c.most-c.total {
		part.close()
		return &imapwire.TooBigError{Size: c.total + n, Max: c.most}
	} else if err := c.add(n); err != nil {
		part.close()
		return err
	} else {
		c.total += n
	}
	c.part, c.close = part, part.close
	return nil
}

// badURL refuses a URL (RFC 4469 §4.1).
func badURL(text string) error {
	const most = 500
	shown := []byte(text[:min(len(text), most)])
	for i, b := range shown {
		if b < 0x20 || b >= 0x7f || b == ']' || b == '{' || b == '}' {
			shown[i] = '?'
		}
	}
	return no("BADURL "+string(shown), "That URL names nothing here that can be taken")
}

// urlPart is what a URL names, open for reading.
type urlPart struct {
	*io.SectionReader
	file *mailstore.MessageFile
	text io.ReaderAt // the message
	root *message.Part
}

func (p *urlPart) close() error { return p.file.Close() }

// errNoURL says that what a URL names is not there.
var errNoURL = no("BADURL", "The URL names nothing")

// openURL opens what a URL names in an account. A relative one is seen from the selected mailbox.
func (s *session) openURL(ctx context.Context, acc *mailstore.Account, u *imapwire.URL) (*urlPart, error) {
	mb, err := s.urlMailbox(ctx, acc, u)
	if err != nil {
		return nil, err
	}
	st, err := mb.State(ctx)
	if err != nil {
		return nil, err
	}
	if u.Validity != 0 && u.Validity != st.UIDValidity() {
		return nil, errNoURL
	}
	file, err := mb.OpenMessage(ctx, u.UID)
	if err != nil {
		return nil, err
	}
	p, err := newURLPart(file, &u.Item)
	if err != nil {
		file.Close()
		return nil, err
	}
	return p, nil
}

func (s *session) urlMailbox(ctx context.Context, acc *mailstore.Account, u *imapwire.URL) (*mailstore.Mailbox, error) {
	name := u.Mailbox
	switch {
	case name == "" && s.box == nil:
		return nil, errNoURL
	case name == "":
		return s.box.mb, nil
	case acc != s.acc: // a URL of its owner
		return acc.Open(ctx, name)
	case !u.Rooted && s.box != nil:
		name = path.Join(path.Dir("/"+s.box.name), name)[1:]
	}
	_, mb, err := s.open(ctx, name, sharing.Read)
	return mb, err
}

// newURLPart finds the section.
func newURLPart(file *mailstore.MessageFile, item *imapwire.FetchItem) (*urlPart, error) {
	p := &urlPart{file: file}
	text, size, err := message.Textual(file, file.Size(), false)
	if err != nil {
		return nil, err
	}
	p.text = text
	if p.root, err = message.Parse(text, size, message.Limits{}); err != nil {
		return nil, err
	}
	if item.Text == imapwire.SectionWhole && len(item.Part) == 0 {
		c := &content{text: text, size: size}
		p.SectionReader = c.whole(item)
		return p, nil
	}
	if part := p.root.Find(item.Part); len(item.Part) > 0 && part == nil {
		return nil, errNoURL
	}
	want := wantedSection(item)
	p.SectionReader, err = p.root.Section(text, &want)
	if err != nil {
		return nil, errNoURL
	}
	return p, nil
}

// wantedSection is an item as package message takes it.
func wantedSection(item *imapwire.FetchItem) imap.FetchItemBodySection {
	want := imap.FetchItemBodySection{Specifier: sectionSpecifiers[item.Text], Part: item.Part}
	switch item.Text {
	case imapwire.SectionHeaderFields:
		want.HeaderFields = item.Fields
	case imapwire.SectionHeaderFieldsNot:
		want.HeaderFieldsNot = item.Fields
	}
	if item.Partial {
		want.Partial = &imap.SectionPartial{Offset: int64(item.Offset), Size: int64(item.Length)}
	}
	return want
}

// takeCatenation takes the parts of a message and stages it.
func (s *session) takeCatenation(most int64, fits func(int64) error) (*mailstore.Staged, error) {
	if err := s.dec.SP(); err != nil {
		return nil, err
	}
	if err := s.dec.Expect('('); err != nil {
		return nil, err
	}
	c := &catenation{s: s, fits: fits, most: most}
	m, err := s.srv.opt.Store.Stage(s.srv.ctx, s.user.Volume, c, most)
	if p, ok := c.part.(*urlPart); ok {
		p.close()
	}
	switch {
	case err != nil:
		return nil, err
	case m.Size() == 0:
		m.Close()
		return nil, no("", "An empty message is not kept")
	}
	return m, nil
}
