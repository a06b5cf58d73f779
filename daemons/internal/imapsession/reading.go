package imapsession

import (
	"context"
	"io"
	"slices"
	"sync"

	"shoal/daemons/internal/imapwire"
	"shoal/daemons/internal/mailstore"
	"shoal/daemons/internal/message"
)

// reading is how one command reads the content of messages. What it can it takes from their summaries, which the store
// keeps; a message is opened for the rest, or because there is no summary of it yet. Then one is made.
type reading struct {
	sections message.Sections // what summaries are to give
	file     need             // what is needed of the message's file besides, if its summary gives the sections
	need     need             // what is needed of it without a summary
	preview  bool
	dateOnly bool // of the envelope no more than the date is looked at
	kept     []keptItem

	derived *mailstore.Derived
	view    message.View
	content content
	dated   message.Envelope // with dateOnly
	buf     []byte
}

// need says what of a message's content is needed.
type need uint8

const (
	needNothing   need = iota
	needBytes          // the bytes, without looking at their structure
	needHeader         // the header of the message
	needStructure      // all parts
)

var readings = sync.Pool{New: func() any { return new(reading) }}

func newReading() *reading { return readings.Get().(*reading) }

// plan takes an item of FETCH into account.
func (r *reading) plan(item *imapwire.FetchItem) {
	switch item.Kind {
	case imapwire.FetchEnvelope:
		r.want(message.SectionEnvelope)
	case imapwire.FetchBody, imapwire.FetchStructure:
		r.want(message.SectionStructure)
	case imapwire.FetchPreview:
		r.want(message.SectionPreview)
	case imapwire.FetchRFC822Header, imapwire.FetchRFC822Text:
		r.open(needHeader)
	case imapwire.FetchRFC822:
		r.open(needBytes)
	case imapwire.FetchBinary, imapwire.FetchBinarySize:
		r.want(message.SectionStructure)
		r.open(needBytes)
	case imapwire.FetchSection:
		set, kept := keptFields(item)
		switch {
		case kept:
			r.kept = append(r.kept, keptItem{item.SectionTag, set})
			r.want(message.SectionFields)
		case len(item.Part) > 0:
			r.want(message.SectionStructure)
			r.open(needBytes)
		case item.Text == imapwire.SectionWhole:
			r.open(needBytes)
		default:
			r.open(needHeader)
		}
	}
}

// want asks for a section of the summary.
func (r *reading) want(s message.Sections) {
	r.sections |= s
	if s == message.SectionPreview {
		r.preview = true
	}
	if s&(message.SectionStructure|message.SectionPreview) != 0 {
		r.need = needStructure
	}
	r.need = max(r.need, needHeader)
}

// open asks for the message's file.
func (r *reading) open(n need) {
	r.file = max(r.file, n)
	r.need = max(r.need, n)
}

// begin prepares for about n messages.
func (r *reading) begin(b *selected, n int) {
	if r.sections == 0 || n == 0 {
		return
	}
	if r.file != needNothing {
		n = 0 // the files are read in any case: no calls for summaries
	}
	r.derived = b.mb.Derived(n)
}

// end lets go of everything.
func (r *reading) end() {
	r.derived.Close()
	r.view.Reset()
	*r = reading{view: r.view, buf: r.buf, kept: r.kept[:0]}
	readings.Put(r)
}

// content is what is at hand of one message, as the reading asked for; valid until the next message is opened.
type content struct {
	file     *mailstore.MessageFile // nil where the summary says all
	text     io.ReaderAt            // the file, or its view as text (message.Textual); size is what there is of it
	size     int64
	root     *message.Part // all parts, or the header only
	envelope *message.Envelope
	fields   *message.View // where the kept header fields are taken from the summary
	preview  string
}

func (c *content) close() {
	if c.file != nil {
		c.file.Close()
	}
}

// openContent gets what the command needs of a message.
func (s *session) openContent(ctx context.Context, m *mailstore.Message, r *reading) (*content, error) {
	c := &r.content
	*c = content{}
	known := r.sections != 0 && r.summary(ctx, m, c)
	if known && r.file == needNothing {
		return c, nil
	}
	file, err := s.box.mb.OpenMessage(ctx, m.UID)
	if err != nil {
		return nil, err
	}
	c.file = file
	n := r.need
	if c.text, c.size, err = message.Textual(file, file.Size(), known && r.file == needHeader || !known && n == needHeader); err != nil {
		file.Close()
		return nil, err
	}
	viewed := c.text != io.ReaderAt(file)
	if viewed { // no summary is kept of what is shown otherwise than it is stored
		known, c.root, c.envelope, c.fields = false, nil, nil, nil
	}
	if known {
		if n = r.file; c.root != nil {
			n = needBytes
		}
	} else if r.sections != 0 && r.derived != nil && file.Bytes() != nil && !viewed {
		n = needStructure // costs little now, and will be asked for
	}
	switch n {
	case needHeader:
		c.root, err = message.ParseHeader(c.text, c.size, message.Limits{})
	case needStructure:
		c.root, err = message.Parse(c.text, c.size, message.Limits{})
	}
	if err == nil && !known {
		err = r.derive(m, c, n)
	}
	if err != nil {
		file.Close()
		return nil, err
	}
	return c, nil
}

// summary fills c from the message's summary, if there is one that says enough.
func (r *reading) summary(ctx context.Context, m *mailstore.Message, c *content) bool {
	v := &r.view
	v.Reset()
	packed, ok := r.derived.Get(ctx, m)
	if !ok || v.Open(packed, m.Size) != nil || !v.Has(r.sections) {
		return false
	}
	var err error
	switch {
	case r.sections&message.SectionStructure != 0:
		if c.root, err = v.Structure(); err == nil {
			c.envelope = c.root.Envelope
		}
	case r.dateOnly:
		c.envelope = &r.dated
		r.dated.Date, err = v.Date()
	case r.sections&message.SectionEnvelope != 0:
		c.envelope, err = v.Envelope()
	}
	if err != nil {
		v.Reset()
		*c = content{}
		return false
	}
	c.preview = v.Preview()
	if v.Has(message.SectionFields) {
		c.fields = v
	}
	return true
}

// derive completes c from the message, which was parsed as far as n, and keeps its summary.
func (r *reading) derive(m *mailstore.Message, c *content, n need) (err error) {
	if c.root == nil {
		return nil
	}
	c.envelope = c.root.Envelope
	if r.preview {
		if c.preview, err = message.Preview(c.text, c.root, previewLength); err != nil {
			return err
		}
	}
	// What was left out for its size would be again.
	if c.text != io.ReaderAt(c.file) || r.derived == nil || r.sections == 0 || r.view.Omitted() && (!r.preview || r.view.Has(message.SectionPreview)) || !c.file.Intact(m) {
		return nil
	}
	sum, err := message.Summarize(c.file, m.Size, c.root, n == needStructure)
	if err != nil {
		return err
	}
	if sum.Preview, sum.HasPreview = c.preview, r.preview; !r.preview && r.view.Has(message.SectionPreview) {
		sum.Preview, sum.HasPreview = r.view.Preview(), true
	}
	r.buf = sum.Pack(r.buf[:0])
	r.derived.Put(m, r.buf)
	return nil
}

// keptItem is an item that summaries can answer.
type keptItem struct {
	tag string
	set message.FieldSet
}

// keptFields tells whether an item is a choice of header fields that summaries keep, and which.
func keptFields(item *imapwire.FetchItem) (message.FieldSet, bool) {
	if item.Kind != imapwire.FetchSection || item.Text != imapwire.SectionHeaderFields || len(item.Part) > 0 {
		return 0, false
	}
	return message.KeptFields(item.Fields)
}

// fetchKept writes BODY[HEADER.FIELDS (...)] from a summary, if it has all of the fields.
func (s *session) fetchKept(f *fetch, item *imapwire.FetchItem, c *content) bool {
	r := f.reading
	i := slices.IndexFunc(r.kept, func(k keptItem) bool { return k.tag == item.SectionTag })
	if i < 0 || c.fields == nil {
		return false
	}
	b := c.fields.AppendFields(r.buf[:0], r.kept[i].set)
	r.buf = b
	if item.Partial {
		b = b[min(item.Offset, uint64(len(b))):]
		b = b[:min(item.Length, uint64(len(b)))]
	}
	s.enc.Raw(item.SectionTag).SP().LiteralHeader(int64(len(b)), false).RawBytes(b)
	return true
}
