package ldapwire

import "fmt"

// Op is the application tag of a protocol operation (RFC 4511 §4.2 to §4.14).
type Op byte

// Protocol operations.
const (
	OpBindRequest           Op = 0x60
	OpBindResponse          Op = 0x61
	OpUnbindRequest         Op = 0x42
	OpSearchRequest         Op = 0x63
	OpSearchResultEntry     Op = 0x64
	OpSearchResultDone      Op = 0x65
	OpSearchResultReference Op = 0x73
	OpModifyRequest         Op = 0x66
	OpModifyResponse        Op = 0x67
	OpAddRequest            Op = 0x68
	OpAddResponse           Op = 0x69
	OpDelRequest            Op = 0x4a
	OpDelResponse           Op = 0x6b
	OpModifyDNRequest       Op = 0x6c
	OpModifyDNResponse      Op = 0x6d
	OpCompareRequest        Op = 0x6e
	OpCompareResponse       Op = 0x6f
	OpAbandonRequest        Op = 0x50
	OpExtendedRequest       Op = 0x77
	OpExtendedResponse      Op = 0x78
	OpIntermediateResponse  Op = 0x79
)

var opNames = map[Op]string{
	OpBindRequest: "bind", OpUnbindRequest: "unbind", OpSearchRequest: "search",
	OpModifyRequest: "modify", OpAddRequest: "add", OpDelRequest: "delete",
	OpModifyDNRequest: "modifyDN", OpCompareRequest: "compare", OpAbandonRequest: "abandon",
	OpExtendedRequest: "extended",
}

// String names a request as RFC 4511 does.
func (o Op) String() string {
	if n, ok := opNames[o]; ok {
		return n
	}
	return fmt.Sprintf("op 0x%02x", byte(o))
}

// Response gives the tag of the response that ends an operation, 0 where none follows (unbind,
// abandon) and for an unknown request.
func (o Op) Response() Op {
	switch o {
	case OpBindRequest:
		return OpBindResponse
	case OpSearchRequest:
		return OpSearchResultDone
	case OpModifyRequest:
		return OpModifyResponse
	case OpAddRequest:
		return OpAddResponse
	case OpDelRequest:
		return OpDelResponse
	case OpModifyDNRequest:
		return OpModifyDNResponse
	case OpCompareRequest:
		return OpCompareResponse
	case OpExtendedRequest:
		return OpExtendedResponse
	}
	return 0
}

// Limits bound what one request may ask the parser to keep. The zero value of a field means its
// default, which DefaultLimits shows.
type Limits struct {
	FilterTerms int // terms of a filter, inner ones included
	FilterDepth int // nesting of and, or, not
	Controls    int // controls of one message
	Attributes  int // attributes of an add, changes of a modify, attributes asked of a search
	Values      int // values of one request, all attributes together
}

// DefaultLimits are the bounds that Limits' zero fields stand for.
var DefaultLimits = Limits{FilterTerms: 1024, FilterDepth: 32, Controls: 16, Attributes: 1024, Values: 65536}

func (l Limits) orDefault() Limits {
	d := DefaultLimits
	if l.FilterTerms > 0 {
		d.FilterTerms = l.FilterTerms
	}
	if l.FilterDepth > 0 {
		d.FilterDepth = l.FilterDepth
	}
	if l.Controls > 0 {
		d.Controls = l.Controls
	}
	if l.Attributes > 0 {
		d.Attributes = l.Attributes
	}
	if l.Values > 0 {
		d.Values = l.Values
	}
	return d
}

// Control is a control of RFC 4511 §4.1.11. HasValue tells an absent value from an empty one.
type Control struct {
	Type     []byte
	Critical bool
	HasValue bool
	Value    []byte
}

// Message is one LDAPMessage whose operation is not parsed yet.
type Message struct {
	ID       int32
	Op       Op
	Body     []byte // content of the protocol operation
	Controls []Control
}

// Parse reads the envelope of a whole frame: id, tag of the operation, controls. An error before
// the id is known leaves ID at 0: the answer is then a notice of disconnection.
func (m *Message) Parse(frame []byte, lim Limits) error {
	*m = Message{Controls: m.Controls[:0]}
	body, rest, err := expect(frame, tagSequence)
	if err != nil {
		return err
	}
	if len(rest) != 0 {
		return fmt.Errorf("%w: %d bytes after the message", ErrBER, len(rest))
	}
	id, body, err := takeInteger(body, tagInteger)
	if err != nil {
		return err
	}
	if id < 0 {
		return fmt.Errorf("%w: negative message id", ErrBER)
	}
	tag, op, body, err := element(body)
	if err != nil {
		return err
	}
	m.ID, m.Op, m.Body = id, Op(tag), op
	if len(body) == 0 {
		return nil
	}
	list, rest, err := expect(body, 0xa0)
	if err != nil {
		return err
	}
	if len(rest) != 0 {
		return fmt.Errorf("%w: %d bytes after the controls", ErrBER, len(rest))
	}
	max := lim.orDefault().Controls
	for len(list) > 0 {
		if len(m.Controls) == max {
			return Errorf(AdminLimitExceeded, "more than %d controls", max)
		}
		var c Control
		c, list, err = takeControl(list)
		if err != nil {
			return err
		}
		m.Controls = append(m.Controls, c)
	}
	return nil
}

// Control ::= SEQUENCE { controlType LDAPOID, criticality BOOLEAN DEFAULT FALSE,
//                        controlValue OCTET STRING OPTIONAL }

func takeControl(b []byte) (c Control, rest []byte, err error) {
	seq, rest, err := expect(b, tagSequence)
	if err != nil {
		return c, nil, err
	}
	c.Type, seq, err = expect(seq, tagOctetString)
	if err != nil {
		return c, nil, err
	}
	if len(seq) > 0 && seq[0] == tagBoolean {
		c.Critical, seq, err = takeBoolean(seq, tagBoolean)
		if err != nil {
			return c, nil, err
		}
	}
	if len(seq) > 0 {
		c.HasValue = true
		c.Value, seq, err = expect(seq, tagOctetString)
		if err != nil {
			return c, nil, err
		}
	}
	if len(seq) != 0 {
		return c, nil, ErrBER
	}
	return c, rest, nil
}
