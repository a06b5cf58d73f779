package ldapwire

import "fmt"

// Object identifiers of controls, and of the operations that belong to them.
const (
	OIDAssertion         = "1.3.6.1.1.12"             // RFC 4528
	OIDPreRead           = "1.3.6.1.1.13.1"           // RFC 4527
	OIDPostRead          = "1.3.6.1.1.13.2"           // RFC 4527
	OIDSubentries        = "1.3.6.1.4.1.4203.1.10.1"  // RFC 3672
	OIDNoOp              = "1.3.6.1.4.1.4203.1.10.2"  // draft-zeilenga-ldap-noop
	OIDNoOpOpenLDAP      = "1.3.6.1.4.1.4203.666.5.2" // the same, as OpenLDAP's clients send it
	OIDDontUseCopy       = "1.3.6.1.1.22"             // RFC 6171
	OIDTreeDelete        = "1.2.840.113556.1.4.805"   // draft-armijo-ldap-treedelete
	OIDProxiedAuth       = "2.16.840.1.113730.3.4.18" // RFC 4370
	OIDMatchedValues     = "1.2.826.0.1.3344810.2.3"  // RFC 3876
	OIDSortRequest       = "1.2.840.113556.1.4.473"   // RFC 2891
	OIDSortResponse      = "1.2.840.113556.1.4.474"   // RFC 2891
	OIDListViewRequest   = "2.16.840.1.113730.3.4.9"  // draft-ietf-ldapext-ldapv3-vlv
	OIDListViewResponse  = "2.16.840.1.113730.3.4.10" // draft-ietf-ldapext-ldapv3-vlv
	OIDTransactionStart  = "1.3.6.1.1.21.1"           // RFC 5805
	OIDTransaction       = "1.3.6.1.1.21.2"           // RFC 5805, the control
	OIDTransactionEnd    = "1.3.6.1.1.21.3"           // RFC 5805
	OIDTransactionNotice = "1.3.6.1.1.21.4"           // RFC 5805
	OIDLanguageTags      = "1.3.6.1.4.1.4203.1.5.4"   // RFC 3866, a feature
	OIDLanguageRanges    = "1.3.6.1.4.1.4203.1.5.5"   // RFC 3866, a feature
	OIDObjectClassAttrs  = "1.3.6.1.4.1.4203.1.5.2"   // RFC 4529, a feature
)

// maxSortKeys bounds the keys of one sort request.
const maxSortKeys = 16

// SortKeyList ::= SEQUENCE SIZE (1..MAX) OF SEQUENCE { attributeType AttributeDescription,
//     orderingRule [0] MatchingRuleId OPTIONAL, reverseOrder [1] BOOLEAN DEFAULT FALSE }

// SortKey is one key of a sort request (RFC 2891 §1.1).
type SortKey struct {
	Attribute []byte
	Rule      []byte // nil: the ordering rule of the attribute
	Reverse   bool
}

// ParseSort reads the value of a sort request.
func ParseSort(value []byte) (keys []SortKey, err error) {
	list, rest, err := expect(value, tagSequence)
	if err != nil {
		return nil, err
	}
	if len(rest) > 0 || len(list) == 0 {
		return nil, ErrBER
	}
	for len(list) > 0 {
		var seq []byte
		if seq, list, err = expect(list, tagSequence); err != nil {
			return nil, err
		}
		var k SortKey
		if k.Attribute, seq, err = expect(seq, tagOctetString); err != nil {
			return nil, err
		}
		if len(seq) > 0 && seq[0] == 0x80 {
			if k.Rule, seq, err = expect(seq, 0x80); err != nil {
				return nil, err
			}
		}
		if len(seq) > 0 && seq[0] == 0x81 {
			if k.Reverse, _, err = takeBoolean(seq, 0x81); err != nil {
				return nil, err
			}
		}
		if len(keys) == maxSortKeys {
			return nil, Errorf(AdminLimitExceeded, "more than %d sort keys", maxSortKeys)
		}
		keys = append(keys, k)
	}
	return keys, nil
}

// SortResult ::= SEQUENCE { sortResult ENUMERATED, attributeType [0] AttributeDescription OPTIONAL }

// AppendSortResult appends the control of a sort response (RFC 2891 §1.2). attribute, if not nil, is the
// first key that is to blame.
func AppendSortResult(dst []byte, code Code, attribute []byte) []byte {
	v := appendInteger(nil, tagEnumerated, int32(code))
	if attribute != nil {
		v = appendString(v, 0x80, attribute)
	}
	return AppendControl(dst, OIDSortResponse, false, wrap(v, 0, tagSequence))
}

// VirtualListViewRequest ::= SEQUENCE { beforeCount INTEGER (0..maxInt), afterCount INTEGER (0..maxInt),
//     target CHOICE { byOffset [0] SEQUENCE { offset INTEGER (1..maxInt), contentCount INTEGER (0..maxInt) },
//                     greaterThanOrEqual [1] AssertionValue },
//     contextID OCTET STRING OPTIONAL }

// ListView is a virtual list view request (draft-ietf-ldapext-ldapv3-vlv-09 §6.1).
type ListView struct {
	Before, After int32
	ByValue       bool
	Offset, Count int32  // not ByValue
	Value         []byte // ByValue
}

// Parse reads the value of the control. The context id is not used: nothing is kept between requests.
func (v *ListView) Parse(value []byte) error {
	*v = ListView{}
	seq, rest, err := expect(value, tagSequence)
	if err != nil {
		return err
	}
	if len(rest) > 0 {
		return ErrBER
	}
	if v.Before, seq, err = takeInteger(seq, tagInteger); err != nil {
		return err
	}
	if v.After, seq, err = takeInteger(seq, tagInteger); err != nil {
		return err
	}
	tag, c, _, err := element(seq)
	if err != nil {
		return err
	}
	switch tag {
	case 0xa0:
		if v.Offset, c, err = takeInteger(c, tagInteger); err != nil {
			return err
		}
		if v.Count, _, err = takeInteger(c, tagInteger); err != nil {
			return err
		}
	case 0x81:
		v.ByValue, v.Value = true, c
	default:
		return fmt.Errorf("%w: target of a list view 0x%02x", ErrBER, tag)
	}
	if v.Before < 0 || v.After < 0 || v.Offset < 0 || v.Count < 0 {
		return Errorf(ProtocolError, "negative count")
	}
	return nil
}

// VirtualListViewResponse ::= SEQUENCE { targetPosition INTEGER (0..maxInt), contentCount INTEGER (0..maxInt),
//     virtualListViewResult ENUMERATED, contextID OCTET STRING OPTIONAL }

// AppendListView appends the control of a virtual list view response.
func AppendListView(dst []byte, position, count int32, code Code) []byte {
	v := appendInteger(nil, tagInteger, position)
	v = appendInteger(v, tagInteger, count)
	v = appendInteger(v, tagEnumerated, int32(code))
	return AppendControl(dst, OIDListViewResponse, false, wrap(v, 0, tagSequence))
}

// ParseValues reads a ValuesReturnFilter (RFC 3876 §2) into f: a flat list of terms, none of them and, or,
// not.
//
//	ValuesReturnFilter ::= SEQUENCE OF SimpleFilterItem
func (f *Filter) ParseValues(value []byte, lim Limits) error {
	lim = lim.orDefault()
	f.reset()
	list, rest, err := expect(value, tagSequence)
	if err != nil {
		return err
	}
	if len(rest) > 0 {
		return ErrBER
	}
	for len(list) > 0 {
		if list[0] >= 0xa0 && list[0] <= 0xa2 {
			return Errorf(ProtocolError, "and, or, not in a filter of values")
		}
		if list, err = f.parse(list, 1, lim.FilterTerms); err != nil {
			return err
		}
	}
	return nil
}

// ParseSelection reads an AttributeSelection (RFC 4527 §3): the list, and its encoded form.
func ParseSelection(value []byte, lim Limits) (raw []byte, list [][]byte, err error) {
	raw, rest, err := expect(value, tagSequence)
	if err == nil && len(rest) > 0 {
		err = ErrBER
	}
	if err != nil {
		return nil, nil, err
	}
	list, err = takeStrings(nil, raw, lim.orDefault().Attributes)
	return raw, list, err
}

// AppendReadEntry appends the control of a pre-read or post-read response. entry is the content of a
// SearchResultEntry.
func AppendReadEntry(dst []byte, oid string, entry []byte) []byte {
	return AppendControl(dst, oid, false, appendString(nil, byte(OpSearchResultEntry), entry))
}

// ParseVisibility reads the value of a subentries control: a BOOLEAN (RFC 3672 §3).
func ParseVisibility(value []byte) (bool, error) {
	v, rest, err := takeBoolean(value, tagBoolean)
	if err == nil && len(rest) > 0 {
		err = ErrBER
	}
	return v, err
}

// txnEndReq ::= SEQUENCE { commit BOOLEAN DEFAULT TRUE, identifier OCTET STRING }

// ParseTransactionEnd reads the value of an end-transaction request (RFC 5805 §2.5).
func ParseTransactionEnd(value []byte) (commit bool, id []byte, err error) {
	seq, _, err := expect(value, tagSequence)
	if err != nil {
		return false, nil, err
	}
	commit = true
	if len(seq) > 0 && seq[0] == tagBoolean {
		if commit, seq, err = takeBoolean(seq, tagBoolean); err != nil {
			return false, nil, err
		}
	}
	id, _, err = expect(seq, tagOctetString)
	return commit, id, err
}

// txnEndRes ::= SEQUENCE { messageID MessageID OPTIONAL,
//     updatesControls SEQUENCE OF SEQUENCE { messageID MessageID, controls Controls } OPTIONAL }

// UpdateControls are the response controls of one update of a transaction.
type UpdateControls struct {
	ID       int32
	Controls []byte // what AppendControl made
}

// AppendTransactionEnd appends the value of an end-transaction response; failed is the message id of the
// update that failed, 0 for none. Nothing is appended where there is nothing to say.
func AppendTransactionEnd(dst []byte, failed int32, controls []UpdateControls) []byte {
	start := len(dst)
	if failed != 0 {
		dst = appendInteger(dst, tagInteger, failed)
	}
	list := len(dst)
	for _, c := range controls {
		if len(c.Controls) == 0 {
			continue
		}
		one := len(dst)
		dst = appendInteger(dst, tagInteger, c.ID)
		dst = appendString(dst, 0xa0, c.Controls)
		dst = wrap(dst, one, tagSequence)
	}
	if len(dst) > list {
		dst = wrap(dst, list, tagSequence)
	}
	if len(dst) == start {
		return dst
	}
	return wrap(dst, start, tagSequence)
}
