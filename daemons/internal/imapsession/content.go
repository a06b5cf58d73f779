package imapsession

import (
	"errors"
	"io"

	"github.com/emersion/go-imap/v2"

	"shoal/daemons/internal/imapwire"
	"shoal/daemons/internal/message"
)

// previewLength is the number of characters of a PREVIEW (RFC 8970 §3.1 allows for 200).
const previewLength = 200

// fetchContent writes an item that is made from a message's content.
func (s *session) fetchContent(f *fetch, item *imapwire.FetchItem, c *content) error {
	e := &s.enc
	switch item.Kind {
	case imapwire.FetchEnvelope:
		e.Raw("ENVELOPE ").Append(func(b []byte) []byte {
			return message.AppendEnvelope(b, c.envelope, e.UTF8())
		})
	case imapwire.FetchBody, imapwire.FetchStructure:
		extended := item.Kind == imapwire.FetchStructure
		if extended {
			e.Raw("BODYSTRUCTURE ")
		} else {
			e.Raw("BODY ")
		}
		e.Append(func(b []byte) []byte { return message.AppendStructure(b, c.root, extended, e.UTF8()) })
	case imapwire.FetchPreview:
		e.Raw("PREVIEW ").String(c.preview)
	case imapwire.FetchRFC822:
		e.Raw("RFC822 ")
		s.stream(c.whole(item))
	case imapwire.FetchRFC822Header:
		return s.fetchSection("RFC822.HEADER", &imapwire.FetchItem{Text: imapwire.SectionHeader}, c)
	case imapwire.FetchRFC822Text:
		return s.fetchSection("RFC822.TEXT", &imapwire.FetchItem{Text: imapwire.SectionBodyText}, c)
	case imapwire.FetchSection:
		if s.fetchKept(f, item, c) {
			return nil
		}
		return s.fetchSection(item.SectionTag, item, c)
	case imapwire.FetchBinary:
		return s.fetchBinary(f, item, c)
	case imapwire.FetchBinarySize:
		return s.fetchBinarySize(f, item, c)
	}
	return nil
}

// stream writes a literal.
func (s *session) stream(r *io.SectionReader) {
	s.enc.LiteralHeader(r.Size(), false).Stream(r, r.Size())
}

// whole is the message, or the part of it that a partial item asks for.
func (c *content) whole(item *imapwire.FetchItem) *io.SectionReader {
	size := c.size
	offset, length := int64(0), size
	if item.Partial {
		offset = int64(min(item.Offset, uint64(size)))
		length = int64(min(item.Length, uint64(size-offset)))
	}
	return io.NewSectionReader(c.text, offset, length)
}

var sectionSpecifiers = map[imapwire.SectionText]imap.PartSpecifier{
	imapwire.SectionWhole:           imap.PartSpecifierNone,
	imapwire.SectionHeader:          imap.PartSpecifierHeader,
	imapwire.SectionHeaderFields:    imap.PartSpecifierHeader,
	imapwire.SectionHeaderFieldsNot: imap.PartSpecifierHeader,
	imapwire.SectionBodyText:        imap.PartSpecifierText,
	imapwire.SectionMIME:            imap.PartSpecifierMIME,
}

// fetchSection writes BODY[...] under the name tag: NIL where the message has no such part.
func (s *session) fetchSection(tag string, item *imapwire.FetchItem, c *content) error {
	e := &s.enc
	e.Raw(tag).SP()
	if item.Text == imapwire.SectionWhole && len(item.Part) == 0 {
		s.stream(c.whole(item))
		return nil
	}
	want := wantedSection(item)
	section, err := c.root.Section(c.text, &want)
	if errors.Is(err, message.ErrNoSection) {
		e.Raw("NIL")
		return nil
	}
	if err != nil {
		return streamError(err)
	}
	s.stream(section)
	return nil
}

// streamError makes an error of reading a message fatal: half of the response is on its way already.
func streamError(err error) error {
	return &imapwire.Fatal{Text: "Message cannot be read", Err: err}
}

// unknownCTE refuses to decode (RFC 3516 §4.3).
var unknownCTE = no("UNKNOWN-CTE", "The part has a transfer encoding that cannot be decoded")

// fetchBinary writes BINARY[...]: the decoded content of a part, as a literal8 because it may hold NUL.
func (s *session) fetchBinary(f *fetch, item *imapwire.FetchItem, c *content) error {
	e := &s.enc
	e.Raw(item.SectionTag).SP()
	size, err := c.root.BinarySize(c.text, item.Part)
	if done, err := s.binaryProblem(f, err, "NIL"); done {
		return err
	}
	want := imap.FetchItemBinarySection{Part: item.Part}
	if item.Partial {
		want.Partial = &imap.SectionPartial{Offset: int64(item.Offset), Size: int64(item.Length)}
		size -= min(size, int64(item.Offset))
		size = min(size, int64(item.Length))
	}
	r, err := c.root.Binary(c.text, &want)
	if done, err := s.binaryProblem(f, err, "NIL"); done {
		return err
	}
	e.LiteralHeader(size, true).Stream(r, size)
	return nil
}

func (s *session) fetchBinarySize(f *fetch, item *imapwire.FetchItem, c *content) error {
	s.enc.Raw(item.SectionTag).SP()
	size, err := c.root.BinarySize(c.text, item.Part)
	if done, err := s.binaryProblem(f, err, "0"); done {
		return err
	}
	s.enc.Number(uint64(size))
	return nil
}

// binaryProblem writes instead where a part cannot be decoded or is not there.
func (s *session) binaryProblem(f *fetch, err error, instead string) (done bool, fatal error) {
	switch {
	case err == nil:
		return false, nil
	case errors.Is(err, message.ErrUnknownEncoding):
		f.err = unknownCTE
		f.cte++
	case !errors.Is(err, message.ErrNoSection):
		return true, streamError(err)
	}
	s.enc.Raw(instead)
	return true, nil
}
