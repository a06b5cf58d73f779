package ldapwire

// Result is what LDAPResult carries (RFC 4511 §4.1.9).
type Result struct {
	Code      Code
	Matched   string
	Message   string
	Referrals []string // URIs; only with Code Referral
}

// Object identifiers of operations and features that this directory speaks of.
const (
	OIDNoticeOfDisconnection = "1.3.6.1.4.1.1466.20036" // RFC 4511 §4.4.1
	OIDStartTLS              = "1.3.6.1.4.1.1466.20037" // RFC 4511 §4.14
	OIDWhoAmI                = "1.3.6.1.4.1.4203.1.11.3"
	OIDPasswordModify        = "1.3.6.1.4.1.4203.1.11.1"
	// OIDLease is an extended operation of this service (package replica): a shadow renews the lease of its master.
	OIDLease            = "2.25.24322987064403074951861717892443018913.3.1"
	OIDAgreements       = "2.25.24322987064403074951861717892443018913.3.2" // feature: keeps to agreements about what a shadow gets
	OIDCancel           = "1.3.6.1.1.8"
	OIDPagedResults     = "1.2.840.113556.1.4.319"
	OIDManageDsaIT      = "2.16.840.1.113730.3.4.2"
	OIDSyncRequest      = "1.3.6.1.4.1.4203.1.9.1.1"
	OIDSyncState        = "1.3.6.1.4.1.4203.1.9.1.2"
	OIDSyncDone         = "1.3.6.1.4.1.4203.1.9.1.3"
	OIDSyncInfo         = "1.3.6.1.4.1.4203.1.9.1.4"
	OIDAllOpAttrs       = "1.3.6.1.4.1.4203.1.5.1" // RFC 3673
	OIDTrueFalseFilters = "1.3.6.1.4.1.4203.1.5.3" // RFC 4526
	OIDIncrement        = "1.3.6.1.1.14"           // RFC 4525
)

// AppendResponse appends a whole response message without controls: bind, search done, modify, add,
// delete, modifyDN and compare.
func AppendResponse(dst []byte, id int32, op Op, r *Result) []byte {
	return AppendResponseControls(dst, id, op, r, nil)
}

// AppendResponseControls is AppendResponse with controls, which are the concatenation of what
// AppendControl made; empty means none.
func AppendResponseControls(dst []byte, id int32, op Op, r *Result, controls []byte) []byte {
	n := r.size()
	dst = appendMessageStart(dst, id, op, n, len(controls))
	dst = r.append(dst)
	return appendControls(dst, controls)
}

// AppendExtended appends an extended response; name and value may be empty (RFC 4511 §4.12), controls are the
// concatenation of what AppendControl made.
func AppendExtended(dst []byte, id int32, r *Result, name string, value, controls []byte) []byte {
	n := r.size()
	if name != "" {
		n += elementSize(len(name))
	}
	if value != nil {
		n += elementSize(len(value))
	}
	dst = appendMessageStart(dst, id, OpExtendedResponse, n, len(controls))
	dst = r.append(dst)
	if name != "" {
		dst = appendString(dst, 0x8a, name)
	}
	if value != nil {
		dst = appendString(dst, 0x8b, value)
	}
	return appendControls(dst, controls)
}

// AppendNotice appends a notice of disconnection (RFC 4511 §4.4.1).
func AppendNotice(dst []byte, code Code, message string) []byte {
	return AppendExtended(dst, 0, &Result{Code: code, Message: message}, OIDNoticeOfDisconnection, nil, nil)
}

// AppendIntermediate appends an intermediate response (RFC 4511 §4.13).
func AppendIntermediate(dst []byte, id int32, name string, value []byte) []byte {
	n := elementSize(len(name)) + elementSize(len(value))
	dst = appendMessageStart(dst, id, OpIntermediateResponse, n, 0)
	dst = appendString(dst, 0x80, name)
	return appendString(dst, 0x81, value)
}

// AppendEntryStart begins a SearchResultEntry: the caller appends exactly dnLen bytes of DN, then
// calls AppendEntryAttributes with the same attrsLen, then appends exactly attrsLen bytes of encoded
// attributes, then AppendEntryEnd with exactly controlsLen bytes of controls.
func AppendEntryStart(dst []byte, id int32, dnLen, attrsLen, controlsLen int) []byte {
	n := elementSize(dnLen) + elementSize(attrsLen)
	dst = appendMessageStart(dst, id, OpSearchResultEntry, n, controlsLen)
	return appendHeader(dst, tagOctetString, dnLen)
}

// AppendEntryAttributes begins the attribute list of a SearchResultEntry.
func AppendEntryAttributes(dst []byte, attrsLen int) []byte {
	return appendHeader(dst, tagSequence, attrsLen)
}

// AppendEntryEnd ends a SearchResultEntry.
func AppendEntryEnd(dst, controls []byte) []byte { return appendControls(dst, controls) }

// AppendAttribute appends one PartialAttribute in the form that a SearchResultEntry holds.
func AppendAttribute[S ~string](dst []byte, typ S, values [][]byte) []byte {
	n := 0
	for _, v := range values {
		n += elementSize(len(v))
	}
	dst = appendHeader(dst, tagSequence, elementSize(len(typ))+elementSize(n))
	dst = appendString(dst, tagOctetString, typ)
	dst = appendHeader(dst, tagSet, n)
	for _, v := range values {
		dst = appendString(dst, tagOctetString, v)
	}
	return dst
}

// SplitAttribute reads the first attribute that AppendAttribute made: its type, the encoded values
// for NextValue, and what follows.
func SplitAttribute(b []byte) (typ, vals, rest []byte, err error) {
	seq, rest, err := expect(b, tagSequence)
	if err != nil {
		return nil, nil, nil, err
	}
	if typ, seq, err = expect(seq, tagOctetString); err != nil {
		return nil, nil, nil, err
	}
	vals, _, err = expect(seq, tagSet)
	return typ, vals, rest, err
}

// NextValue takes the first value off the encoded values of an attribute. ok is false at their end.
func NextValue(vals []byte) (v, rest []byte, ok bool) {
	if len(vals) == 0 {
		return nil, nil, false
	}
	tag, v, rest, err := element(vals)
	if err != nil || tag != tagOctetString {
		return nil, nil, false
	}
	return v, rest, true
}

// AppendReference appends a SearchResultReference (RFC 4511 §4.5.3).
func AppendReference(dst []byte, id int32, uris []string) []byte {
	n := 0
	for _, u := range uris {
		n += elementSize(len(u))
	}
	dst = appendMessageStart(dst, id, OpSearchResultReference, n, 0)
	for _, u := range uris {
		dst = appendString(dst, tagOctetString, u)
	}
	return dst
}

// AppendControl appends one control; a nil value is an absent one.
func AppendControl(dst []byte, oid string, critical bool, value []byte) []byte {
	n := elementSize(len(oid))
	if critical {
		n += 3
	}
	if value != nil {
		n += elementSize(len(value))
	}
	dst = appendHeader(dst, tagSequence, n)
	dst = appendString(dst, tagOctetString, oid)
	if critical {
		dst = appendBoolean(dst, tagBoolean, true)
	}
	if value != nil {
		dst = appendString(dst, tagOctetString, value)
	}
	return dst
}

func appendMessageStart(dst []byte, id int32, op Op, n, controlsLen int) []byte {
	total := 2 + integerSize(id) + elementSize(n)
	if controlsLen > 0 {
		total += elementSize(controlsLen)
	}
	dst = appendHeader(dst, tagSequence, total)
	dst = appendInteger(dst, tagInteger, id)
	return appendHeader(dst, byte(op), n)
}

func appendControls(dst, controls []byte) []byte {
	if len(controls) == 0 {
		return dst
	}
	return appendString(dst, 0xa0, controls)
}

func (r *Result) referralSize() int {
	n := 0
	for _, u := range r.Referrals {
		n += elementSize(len(u))
	}
	return n
}

func (r *Result) size() int {
	n := 2 + integerSize(int32(r.Code)) + elementSize(len(r.Matched)) + elementSize(len(r.Message))
	if len(r.Referrals) > 0 {
		n += elementSize(r.referralSize())
	}
	return n
}

func (r *Result) append(dst []byte) []byte {
	dst = appendInteger(dst, tagEnumerated, int32(r.Code))
	dst = appendString(dst, tagOctetString, r.Matched)
	dst = appendString(dst, tagOctetString, r.Message)
	if len(r.Referrals) > 0 {
		dst = appendHeader(dst, 0xa3, r.referralSize())
		for _, u := range r.Referrals {
			dst = appendString(dst, tagOctetString, u)
		}
	}
	return dst
}
