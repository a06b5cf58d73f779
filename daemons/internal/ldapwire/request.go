package ldapwire

import "fmt"

// SEQUENCE components after the last known one are ignored: RFC 4511 §4 implies extensibility.

// BindRequest ::= [APPLICATION 0] SEQUENCE { version INTEGER (1 .. 127), name LDAPDN,
//     authentication CHOICE { simple [0] OCTET STRING,
//                             sasl   [3] SEQUENCE { mechanism, credentials OPTIONAL } } }

// Bind is a parsed bind request. Simple is false for SASL.
type Bind struct {
	Version        int32
	Name           []byte
	Simple         bool
	Password       []byte
	Mechanism      []byte
	HasCredentials bool
	Credentials    []byte
}

// Parse reads the body of an OpBindRequest. An authentication choice that RFC 4511 does not know
// is AuthMethodNotSupported.
func (r *Bind) Parse(body []byte) (err error) {
	*r = Bind{}
	if r.Version, body, err = takeInteger(body, tagInteger); err != nil {
		return err
	}
	if r.Name, body, err = expect(body, tagOctetString); err != nil {
		return err
	}
	tag, c, _, err := element(body)
	if err != nil {
		return err
	}
	switch tag {
	case 0x80:
		r.Simple, r.Password = true, c
		return nil
	case 0xa3:
		if r.Mechanism, c, err = expect(c, tagOctetString); err != nil {
			return err
		}
		if len(c) > 0 {
			r.HasCredentials = true
			r.Credentials, _, err = expect(c, tagOctetString)
		}
		return err
	}
	return Errorf(AuthMethodNotSupported, "authentication choice 0x%02x", tag)
}

// Scope of a search (RFC 4511 §4.5.1.2).
type Scope int32

// Scopes.
const (
	BaseObject   Scope = 0
	SingleLevel  Scope = 1
	WholeSubtree Scope = 2
	Subordinates Scope = 3 // draft-sermersheim-ldap-subordinate-scope; OpenLDAP's "children"
)

// SearchRequest ::= [APPLICATION 3] SEQUENCE { baseObject LDAPDN, scope ENUMERATED,
//     derefAliases ENUMERATED, sizeLimit INTEGER, timeLimit INTEGER, typesOnly BOOLEAN,
//     filter Filter, attributes SEQUENCE OF LDAPString }

// Search is a parsed search request. RawAttributes is the encoded list that Attributes came from:
// equal bytes mean an equal selection, so it serves as a key.
type Search struct {
	Base          []byte
	Scope         Scope
	Deref         int32
	SizeLimit     int32 // entries; 0 is no limit
	TimeLimit     int32 // seconds; 0 is no limit
	TypesOnly     bool
	Filter        Filter
	Attributes    [][]byte
	RawAttributes []byte
}

// Parse reads the body of an OpSearchRequest into r, reusing its slices.
func (r *Search) Parse(body []byte, lim Limits) (err error) {
	lim = lim.orDefault()
	*r = Search{Filter: r.Filter, Attributes: r.Attributes[:0]}
	r.Filter.reset()
	if r.Base, body, err = expect(body, tagOctetString); err != nil {
		return err
	}
	var scope int32
	if scope, body, err = takeInteger(body, tagEnumerated); err != nil {
		return err
	}
	if scope < 0 || scope > int32(Subordinates) {
		return Errorf(ProtocolError, "scope %d", scope)
	}
	r.Scope = Scope(scope)
	if r.Deref, body, err = takeInteger(body, tagEnumerated); err != nil {
		return err
	}
	if r.Deref < 0 || r.Deref > 3 {
		return Errorf(ProtocolError, "derefAliases %d", r.Deref)
	}
	if r.SizeLimit, body, err = takeInteger(body, tagInteger); err != nil {
		return err
	}
	if r.TimeLimit, body, err = takeInteger(body, tagInteger); err != nil {
		return err
	}
	if r.SizeLimit < 0 || r.TimeLimit < 0 {
		return Errorf(ProtocolError, "negative limit")
	}
	if r.TypesOnly, body, err = takeBoolean(body, tagBoolean); err != nil {
		return err
	}
	if body, err = r.Filter.parse(body, lim.FilterDepth, lim.FilterTerms); err != nil {
		return err
	}
	if r.RawAttributes, _, err = expect(body, tagSequence); err != nil {
		return err
	}
	r.Attributes, err = takeStrings(r.Attributes, r.RawAttributes, lim.Attributes)
	return err
}

func takeStrings(dst [][]byte, b []byte, max int) ([][]byte, error) {
	for len(b) > 0 {
		s, rest, err := expect(b, tagOctetString)
		if err != nil {
			return dst, err
		}
		if len(dst) == max {
			return dst, Errorf(AdminLimitExceeded, "more than %d elements in a list", max)
		}
		dst, b = append(dst, s), rest
	}
	return dst, nil
}

// Attribute ::= SEQUENCE { type AttributeDescription, vals SET OF AttributeValue }

// Attribute is an attribute description with its values.
type Attribute struct {
	Type   []byte
	Values [][]byte
}

// values holds the values of all attributes of one request in one slice, so that reuse is simple.
type values struct {
	all [][]byte
	max int
}

func (v *values) attribute(b []byte) (a Attribute, rest []byte, err error) {
	seq, rest, err := expect(b, tagSequence)
	if err != nil {
		return a, nil, err
	}
	if a.Type, seq, err = expect(seq, tagOctetString); err != nil {
		return a, nil, err
	}
	set, _, err := expect(seq, tagSet)
	if err != nil {
		return a, nil, err
	}
	start := len(v.all)
	if v.all, err = takeStrings(v.all, set, v.max); err != nil {
		return a, nil, err
	}
	a.Values = v.all[start:len(v.all):len(v.all)]
	return a, rest, nil
}

// AddRequest ::= [APPLICATION 8] SEQUENCE { entry LDAPDN, attributes SEQUENCE OF Attribute }

// Add is a parsed add request.
type Add struct {
	DN         []byte
	Attributes []Attribute
	values     values
}

// Parse reads the body of an OpAddRequest into r, reusing its slices.
func (r *Add) Parse(body []byte, lim Limits) (err error) {
	lim = lim.orDefault()
	*r = Add{Attributes: r.Attributes[:0], values: values{all: r.values.all[:0], max: lim.Values}}
	if r.DN, body, err = expect(body, tagOctetString); err != nil {
		return err
	}
	list, _, err := expect(body, tagSequence)
	if err != nil {
		return err
	}
	for len(list) > 0 {
		if len(r.Attributes) == lim.Attributes {
			return Errorf(AdminLimitExceeded, "more than %d attributes", lim.Attributes)
		}
		var a Attribute
		if a, list, err = r.values.attribute(list); err != nil {
			return err
		}
		if len(a.Values) == 0 {
			return Errorf(ProtocolError, "attribute %q without a value", a.Type)
		}
		r.Attributes = append(r.Attributes, a)
	}
	return nil
}

// ChangeOp says what one change of a modify does.
type ChangeOp int32

// Changes of RFC 4511 §4.6 and RFC 4525.
const (
	ChangeAdd       ChangeOp = 0
	ChangeDelete    ChangeOp = 1
	ChangeReplace   ChangeOp = 2
	ChangeIncrement ChangeOp = 3
)

// Change is one change of a modify.
type Change struct {
	Op ChangeOp
	Attribute
}

// ModifyRequest ::= [APPLICATION 6] SEQUENCE { object LDAPDN,
//     changes SEQUENCE OF SEQUENCE { operation ENUMERATED, modification Attribute } }

// Modify is a parsed modify request.
type Modify struct {
	DN      []byte
	Changes []Change
	values  values
}

// Parse reads the body of an OpModifyRequest into r, reusing its slices.
func (r *Modify) Parse(body []byte, lim Limits) (err error) {
	lim = lim.orDefault()
	*r = Modify{Changes: r.Changes[:0], values: values{all: r.values.all[:0], max: lim.Values}}
	if r.DN, body, err = expect(body, tagOctetString); err != nil {
		return err
	}
	list, _, err := expect(body, tagSequence)
	if err != nil {
		return err
	}
	for len(list) > 0 {
		if len(r.Changes) == lim.Attributes {
			return Errorf(AdminLimitExceeded, "more than %d changes", lim.Attributes)
		}
		var seq []byte
		if seq, list, err = expect(list, tagSequence); err != nil {
			return err
		}
		var op int32
		if op, seq, err = takeInteger(seq, tagEnumerated); err != nil {
			return err
		}
		if op < 0 || op > int32(ChangeIncrement) {
			return Errorf(ProtocolError, "modify operation %d", op)
		}
		c := Change{Op: ChangeOp(op)}
		if c.Attribute, _, err = r.values.attribute(seq); err != nil {
			return err
		}
		r.Changes = append(r.Changes, c)
	}
	return nil
}

// ModifyDNRequest ::= [APPLICATION 12] SEQUENCE { entry LDAPDN, newrdn RelativeLDAPDN,
//     deleteoldrdn BOOLEAN, newSuperior [0] LDAPDN OPTIONAL }

// ModifyDN is a parsed modifyDN request.
type ModifyDN struct {
	DN             []byte
	NewRDN         []byte
	DeleteOldRDN   bool
	HasNewSuperior bool
	NewSuperior    []byte
}

// Parse reads the body of an OpModifyDNRequest.
func (r *ModifyDN) Parse(body []byte) (err error) {
	*r = ModifyDN{}
	if r.DN, body, err = expect(body, tagOctetString); err != nil {
		return err
	}
	if r.NewRDN, body, err = expect(body, tagOctetString); err != nil {
		return err
	}
	if r.DeleteOldRDN, body, err = takeBoolean(body, tagBoolean); err != nil {
		return err
	}
	if len(body) > 0 && body[0] == 0x80 {
		r.HasNewSuperior = true
		r.NewSuperior, _, err = expect(body, 0x80)
	}
	return err
}

// CompareRequest ::= [APPLICATION 14] SEQUENCE { entry LDAPDN, ava AttributeValueAssertion }

// Compare is a parsed compare request.
type Compare struct {
	DN, Attribute, Value []byte
}

// Parse reads the body of an OpCompareRequest.
func (r *Compare) Parse(body []byte) (err error) {
	*r = Compare{}
	if r.DN, body, err = expect(body, tagOctetString); err != nil {
		return err
	}
	ava, _, err := expect(body, tagSequence)
	if err != nil {
		return err
	}
	if r.Attribute, ava, err = expect(ava, tagOctetString); err != nil {
		return err
	}
	r.Value, _, err = expect(ava, tagOctetString)
	return err
}

// ExtendedRequest ::= [APPLICATION 23] SEQUENCE { requestName [0] LDAPOID,
//     requestValue [1] OCTET STRING OPTIONAL }

// Extended is a parsed extended request.
type Extended struct {
	Name     []byte
	HasValue bool
	Value    []byte
}

// Parse reads the body of an OpExtendedRequest.
func (r *Extended) Parse(body []byte) (err error) {
	*r = Extended{}
	if r.Name, body, err = expect(body, 0x80); err != nil {
		return err
	}
	if len(body) > 0 && body[0] == 0x81 {
		r.HasValue = true
		r.Value, _, err = expect(body, 0x81)
	}
	return err
}

// ParseAbandon reads the body of an OpAbandonRequest: the id of the operation to give up.
func ParseAbandon(body []byte) (int32, error) {
	id, err := integer(body)
	if err == nil && id < 0 {
		err = fmt.Errorf("%w: negative message id", ErrBER)
	}
	return id, err
}
