package ldapwire

// What a client of another directory server says, and what it is told: enough to bind and to follow
// its content. Controls are the concatenation of what AppendControl made; nil means none.

// AppendBindRequest appends a simple bind (RFC 4511 §4.2).
func AppendBindRequest(dst []byte, id int32, name, password string) []byte {
	n := 3 + elementSize(len(name)) + elementSize(len(password))
	dst = appendMessageStart(dst, id, OpBindRequest, n, 0)
	dst = appendInteger(dst, tagInteger, 3)
	dst = appendString(dst, tagOctetString, name)
	return appendString(dst, 0x80, password)
}

// AppendExtendedRequest appends an extended request; a nil value is an absent one (RFC 4511 §4.12).
func AppendExtendedRequest(dst []byte, id int32, name string, value []byte) []byte {
	n := elementSize(len(name))
	if value != nil {
		n += elementSize(len(value))
	}
	dst = appendMessageStart(dst, id, OpExtendedRequest, n, 0)
	dst = appendString(dst, 0x80, name)
	if value != nil {
		dst = appendString(dst, 0x81, value)
	}
	return dst
}

// AppendUnbindRequest appends an unbind request (RFC 4511 §4.3).
func AppendUnbindRequest(dst []byte, id int32) []byte {
	return appendMessageStart(dst, id, OpUnbindRequest, 0, 0)
}

// AppendSearchRequest appends a search for every entry in scope, without limits (RFC 4511 §4.5.1): the
// filter is the presence of objectClass.
func AppendSearchRequest(dst []byte, id int32, base string, scope Scope, attributes []string, controls []byte) []byte {
	var b []byte
	b = appendString(b, tagOctetString, base)
	b = appendInteger(b, tagEnumerated, int32(scope))
	b = appendInteger(b, tagEnumerated, 0)
	b = appendInteger(b, tagInteger, 0)
	b = appendInteger(b, tagInteger, 0)
	b = appendBoolean(b, tagBoolean, false)
	b = appendString(b, 0x87, "objectClass")
	start := len(b)
	for _, a := range attributes {
		b = appendString(b, tagOctetString, a)
	}
	b = wrap(b, start, tagSequence)
	dst = appendMessageStart(dst, id, OpSearchRequest, len(b), len(controls))
	return appendControls(append(dst, b...), controls)
}

// Parse reads the body of a response that is an LDAPResult, or begins with one (RFC 4511 §4.1.9).
func (r *Result) Parse(body []byte) error {
	*r = Result{}
	code, body, err := takeInteger(body, tagEnumerated)
	if err != nil {
		return err
	}
	matched, body, err := expect(body, tagOctetString)
	if err != nil {
		return err
	}
	message, body, err := expect(body, tagOctetString)
	if err != nil {
		return err
	}
	r.Code, r.Matched, r.Message = Code(code), string(matched), string(message)
	if len(body) == 0 || body[0] != 0xa3 {
		return nil
	}
	list, _, err := expect(body, 0xa3)
	if err != nil {
		return err
	}
	uris, err := takeStrings(nil, list, 64)
	for _, u := range uris {
		r.Referrals = append(r.Referrals, string(u))
	}
	return err
}

// ExtendedValue finds the value in the body of an OpExtendedResponse (RFC 4511 §4.12); nil if there is none.
func ExtendedValue(body []byte) []byte {
	for len(body) > 0 {
		tag := body[0]
		value, rest, err := expect(body, tag)
		if err != nil {
			return nil
		}
		if tag == 0x8b {
			return value
		}
		body = rest
	}
	return nil
}

// Err is nil for success, otherwise the result as an error.
func (r *Result) Err() error {
	if r.Code == Success {
		return nil
	}
	return &Error{Code: r.Code, Message: r.Message, Matched: r.Matched}
}

// Entry is a parsed SearchResultEntry, or an Add without its bounds: both have the same form.
type Entry = Add

// ParseEntry reads the body of an OpSearchResultEntry into r, reusing its slices. Attributes may be
// without values (typesOnly).
func ParseEntry(r *Entry, body []byte, lim Limits) (err error) {
	*r = Add{Attributes: r.Attributes[:0], values: values{all: r.values.all[:0], max: lim.orDefault().Values}}
	if r.DN, body, err = expect(body, tagOctetString); err != nil {
		return err
	}
	list, _, err := expect(body, tagSequence)
	if err != nil {
		return err
	}
	for len(list) > 0 {
		if len(r.Attributes) == lim.orDefault().Attributes {
			return Errorf(AdminLimitExceeded, "more than %d attributes", lim.orDefault().Attributes)
		}
		var a Attribute
		if a, list, err = r.values.attribute(list); err != nil {
			return err
		}
		r.Attributes = append(r.Attributes, a)
	}
	return nil
}

// ParseIntermediate reads the body of an OpIntermediateResponse (RFC 4511 §4.13).
func ParseIntermediate(body []byte) (name, value []byte, err error) {
	if len(body) > 0 && body[0] == 0x80 {
		if name, body, err = expect(body, 0x80); err != nil {
			return nil, nil, err
		}
	}
	if len(body) > 0 {
		value, _, err = expect(body, 0x81)
	}
	return name, value, err
}

// PasswdModifyRequestValue ::= SEQUENCE { userIdentity [0] OCTET STRING OPTIONAL,
//     oldPasswd [1] OCTET STRING OPTIONAL, newPasswd [2] OCTET STRING OPTIONAL }

// PasswordModify is the value of a password modify request (RFC 3062). What is absent is nil.
type PasswordModify struct {
	Identity, Old, New []byte
}

// Parse reads the value; none at all is like an empty one.
func (r *PasswordModify) Parse(value []byte, has bool) error {
	*r = PasswordModify{}
	if !has {
		return nil
	}
	seq, _, err := expect(value, tagSequence)
	if err != nil {
		return err
	}
	for _, f := range []struct {
		tag byte
		to  *[]byte
	}{{0x80, &r.Identity}, {0x81, &r.Old}, {0x82, &r.New}} {
		if len(seq) > 0 && seq[0] == f.tag {
			if *f.to, seq, err = expect(seq, f.tag); err != nil {
				return err
			}
			if *f.to == nil {
				*f.to = []byte{}
			}
		}
	}
	return nil
}

// AppendPasswordModified appends the value of the response that tells a password made by the server.
func AppendPasswordModified(dst []byte, password []byte) []byte {
	start := len(dst)
	return wrap(appendString(dst, 0x80, password), start, tagSequence)
}
