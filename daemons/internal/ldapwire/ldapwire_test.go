package ldapwire

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	ber "github.com/go-asn1-ber/asn1-ber"
	"github.com/go-ldap/ldap/v3"
)

// message wraps an encoded operation as a client does, with the oracle's encoder.
func message(id int64, op *ber.Packet, controls ...ldap.Control) []byte {
	p := ber.Encode(ber.ClassUniversal, ber.TypeConstructed, ber.TagSequence, nil, "")
	p.AppendChild(ber.NewInteger(ber.ClassUniversal, ber.TypePrimitive, ber.TagInteger, id, ""))
	p.AppendChild(op)
	if len(controls) > 0 {
		c := ber.Encode(ber.ClassContext, ber.TypeConstructed, 0, nil, "")
		for _, x := range controls {
			c.AppendChild(x.Encode())
		}
		p.AppendChild(c)
	}
	return p.Bytes()
}

func parse(t testing.TB, b []byte) *Message {
	t.Helper()
	var m Message
	if err := m.Parse(b, Limits{}); err != nil {
		t.Fatalf("%x: %v", b, err)
	}
	return &m
}

func str(s string) *ber.Packet {
	return ber.NewString(ber.ClassUniversal, ber.TypePrimitive, ber.TagOctetString, s, "")
}

func constructed(class ber.Class, tag ber.Tag, children ...*ber.Packet) *ber.Packet {
	p := ber.Encode(class, ber.TypeConstructed, tag, nil, "")
	for _, c := range children {
		p.AppendChild(c)
	}
	return p
}

func enum(v int64) *ber.Packet {
	return ber.NewInteger(ber.ClassUniversal, ber.TypePrimitive, ber.TagEnumerated, v, "")
}

func num(v int64) *ber.Packet {
	return ber.NewInteger(ber.ClassUniversal, ber.TypePrimitive, ber.TagInteger, v, "")
}

func boolean(v bool) *ber.Packet {
	return ber.NewBoolean(ber.ClassUniversal, ber.TypePrimitive, ber.TagBoolean, v, "")
}

// Requests as the oracle encodes them read back field by field.
func TestRequestsOfTheOracle(t *testing.T) {
	filter, err := ldap.CompileFilter("(&(cn=a*b*c)(!(sn=x))(|(uid>=1)(uid<=2)(mail~=q))(x=*)(cn:dn:caseExactMatch:=v))")
	if err != nil {
		t.Fatal(err)
	}
	op := constructed(ber.ClassApplication, 3, str("o=shoal"), enum(2), enum(3), num(100), num(7), boolean(true), filter,
		constructed(ber.ClassUniversal, ber.TagSequence, str("cn"), str("*")))
	m := parse(t, message(300, op, ldap.NewControlPaging(50), ldap.NewControlManageDsaIT(true)))
	if m.ID != 300 || m.Op != OpSearchRequest || len(m.Controls) != 2 || string(m.Controls[1].Type) != OIDManageDsaIT || !m.Controls[1].Critical {
		t.Fatalf("message %+v", m)
	}
	if size, cookie, err := ParsePaged(m.Controls[0].Value); size != 50 || len(cookie) != 0 || err != nil {
		t.Errorf("paged %d %q %v", size, cookie, err)
	}
	var s Search
	for range 2 { // the second time with the memory of the first
		if err := s.Parse(m.Body, Limits{}); err != nil {
			t.Fatal(err)
		}
		got := fmt.Sprintf("%s %d %d %d %d %v %s %q", s.Base, s.Scope, s.Deref, s.SizeLimit, s.TimeLimit, s.TypesOnly, s.Filter.String(), s.Attributes)
		want := `o=shoal 2 3 100 7 true (&(cn=a*b*c)(!(sn=x))(|(uid>=1)(uid<=2)(mail~=q))(x=*)(cn:dn:caseExactMatch:=v)) ["cn" "*"]`
		if got != want {
			t.Errorf("search\n%s\nwant\n%s", got, want)
		}
	}

	bind := constructed(ber.ClassApplication, 0, num(3), str("cn=a"), ber.NewString(ber.ClassContext, ber.TypePrimitive, 0, "pw", ""))
	var b Bind
	if err := b.Parse(parse(t, message(1, bind)).Body); err != nil || b.Version != 3 || string(b.Name) != "cn=a" || !b.Simple || string(b.Password) != "pw" {
		t.Errorf("bind %+v %v", b, err)
	}
	sasl := constructed(ber.ClassApplication, 0, num(3), str(""), constructed(ber.ClassContext, 3, str("PLAIN"), str("x")))
	if err := b.Parse(parse(t, message(1, sasl)).Body); err != nil || b.Simple || string(b.Mechanism) != "PLAIN" || !b.HasCredentials || string(b.Credentials) != "x" {
		t.Errorf("sasl bind %+v %v", b, err)
	}

	attr := func(typ string, values ...string) *ber.Packet {
		set := ber.Encode(ber.ClassUniversal, ber.TypeConstructed, ber.TagSet, nil, "")
		for _, v := range values {
			set.AppendChild(str(v))
		}
		return constructed(ber.ClassUniversal, ber.TagSequence, str(typ), set)
	}
	var a Add
	add := constructed(ber.ClassApplication, 8, str("cn=a"), constructed(ber.ClassUniversal, ber.TagSequence, attr("cn", "a", "b"), attr("sn", "")))
	if err := a.Parse(parse(t, message(1, add)).Body, Limits{}); err != nil || fmt.Sprintf("%s %s", a.DN, a.Attributes) != "cn=a [{cn [a b]} {sn []}]" {
		t.Errorf("add %s %s %v", a.DN, a.Attributes, err)
	}
	var mod Modify
	modify := constructed(ber.ClassApplication, 6, str("cn=a"), constructed(ber.ClassUniversal, ber.TagSequence,
		constructed(ber.ClassUniversal, ber.TagSequence, enum(2), attr("cn")),
		constructed(ber.ClassUniversal, ber.TagSequence, enum(3), attr("n", "1"))))
	if err := mod.Parse(parse(t, message(1, modify)).Body, Limits{}); err != nil || len(mod.Changes) != 2 || mod.Changes[0].Op != ChangeReplace ||
		len(mod.Changes[0].Values) != 0 || mod.Changes[1].Op != ChangeIncrement || string(mod.Changes[1].Values[0]) != "1" {
		t.Errorf("modify %+v %v", mod, err)
	}
	var r ModifyDN
	rename := constructed(ber.ClassApplication, 12, str("cn=a"), str("cn=b"), boolean(true), ber.NewString(ber.ClassContext, ber.TypePrimitive, 0, "o=x", ""))
	if err := r.Parse(parse(t, message(1, rename)).Body); err != nil || string(r.NewRDN) != "cn=b" || !r.DeleteOldRDN || !r.HasNewSuperior || string(r.NewSuperior) != "o=x" {
		t.Errorf("modifyDN %+v %v", r, err)
	}
	var c Compare
	compare := constructed(ber.ClassApplication, 14, str("cn=a"), constructed(ber.ClassUniversal, ber.TagSequence, str("sn"), str("v")))
	if err := c.Parse(parse(t, message(1, compare)).Body); err != nil || string(c.DN)+string(c.Attribute)+string(c.Value) != "cn=asnv" {
		t.Errorf("compare %+v %v", c, err)
	}
	var e Extended
	ext := constructed(ber.ClassApplication, 23, ber.NewString(ber.ClassContext, ber.TypePrimitive, 0, OIDWhoAmI, ""))
	if err := e.Parse(parse(t, message(1, ext)).Body); err != nil || string(e.Name) != OIDWhoAmI || e.HasValue {
		t.Errorf("extended %+v %v", e, err)
	}
	if id, err := ParseAbandon([]byte{0x01, 0x2c}); id != 300 || err != nil {
		t.Errorf("abandon %d %v", id, err)
	}
}

// Answers as encoded here read back with the oracle's decoder, for lengths around each size of header.
func TestResponsesForTheOracle(t *testing.T) {
	for _, n := range []int{0, 1, 100, 120, 127, 128, 200, 255, 256, 40000, 65535, 65536, 1 << 20, 1<<24 + 5} {
		text := strings.Repeat("x", n)
		b := AppendResponse([]byte("before"), 1<<20, OpSearchResultDone, &Result{Code: NoSuchObject, Matched: "o=x", Message: text})
		p, err := ber.DecodePacketErr(bytes.Clone(b[6:]))
		if err != nil {
			t.Fatalf("%d: %v", n, err)
		}
		e, ok := ldap.GetLDAPError(p).(*ldap.Error)
		if !ok || e.ResultCode != 32 || e.MatchedDN != "o=x" || e.Err.Error() != text || p.Children[0].Value.(int64) != 1<<20 {
			t.Errorf("%d: result %v", n, e.ResultCode)
		}
		var m Message
		if err := m.Parse(b[6:], Limits{}); err != nil || m.ID != 1<<20 || m.Op != OpSearchResultDone {
			t.Errorf("%d: own parser: %+v %v", n, m.ID, err)
		}
		attrs := AppendAttribute(nil, "cn", [][]byte{[]byte(text), []byte("y")})
		attrs = AppendAttribute(attrs, "sn", nil)
		control := AppendControl(nil, "1.2.3", true, []byte("v"))
		e2 := AppendEntryStart(nil, 7, 3, len(attrs), len(control))
		e2 = append(e2, "o=x"...)
		e2 = append(AppendEntryAttributes(e2, len(attrs)), attrs...)
		e2 = AppendEntryEnd(e2, control)
		if p, err = ber.DecodePacketErr(e2); err != nil {
			t.Fatalf("%d: %v", n, err)
		}
		list := p.Children[1].Children[1].Children
		if p.Children[1].Children[0].Value != "o=x" || len(list) != 2 || list[0].Children[1].Children[0].Data.Len() != n || len(list[1].Children[1].Children) != 0 {
			t.Errorf("%d: entry", n)
		}
		if c := p.Children[2].Children[0]; c.Children[0].Value != "1.2.3" || c.Children[1].Value != true || c.Children[2].Value != "v" {
			t.Errorf("%d: control %v", n, c)
		}
	}
	r := &Result{Code: Referral, Referrals: []string{"ldap://a", "ldap://b"}}
	p, err := ber.DecodePacketErr(AppendResponse(nil, 1, OpAddResponse, r))
	if err != nil || p.Children[1].Children[3].Tag != 3 || len(p.Children[1].Children[3].Children) != 2 {
		t.Errorf("referral %v", err)
	}
	p, err = ber.DecodePacketErr(AppendExtended(nil, 1, &Result{}, "1.2", []byte("v"), nil))
	if err != nil || len(p.Children[1].Children) != 5 {
		t.Errorf("extended %v", err)
	}
	p, err = ber.DecodePacketErr(AppendBind(nil, 1, &Result{Code: SASLBindInProgress}, []byte("c"), nil))
	if err != nil || p.Children[1].Children[3].Tag != 7 {
		t.Errorf("sasl bind %v", err)
	}
	p, err = ber.DecodePacketErr(AppendNotice(nil, Unavailable, "bye"))
	if err != nil || p.Children[0].Value.(int64) != 0 || p.Children[1].Children[3].Data.String() != OIDNoticeOfDisconnection {
		t.Errorf("notice %v", err)
	}
	p, err = ber.DecodePacketErr(AppendIntermediate(nil, 1, "1.2", []byte("v")))
	if err != nil || p.Children[1].Children[0].Tag != 0 || p.Children[1].Children[1].Tag != 1 {
		t.Errorf("intermediate %v", err)
	}
	p, err = ber.DecodePacketErr(AppendReference(nil, 1, []string{"ldap://a"}))
	if err != nil || p.Children[1].Tag != 19 || p.Children[1].Children[0].Value != "ldap://a" {
		t.Errorf("reference %v", err)
	}
	p, err = ber.DecodePacketErr(AppendPaged(nil, 5, []byte("cookie")))
	if err != nil {
		t.Fatal(err)
	}
	if c, err := ldap.DecodeControl(p); err != nil || string(c.(*ldap.ControlPaging).Cookie) != "cookie" {
		t.Errorf("paged %v %v", c, err)
	}
}

func TestIntegers(t *testing.T) {
	for _, v := range []int32{0, 1, 127, 128, 255, 256, 32767, 32768, 65535, 1 << 23, 1<<31 - 1, -1, -128, -129, -1 << 31} {
		b := appendInteger(nil, tagInteger, v)
		got, rest, err := takeInteger(b, tagInteger)
		want := num(int64(v)).Bytes()
		if got != v || len(rest) != 0 || err != nil || !bytes.Equal(b, want) {
			t.Errorf("%d: %x reads as %d %v, oracle writes %x", v, b, got, err, want)
		}
	}
	for _, bad := range []string{"", "\x01\x00\x00\x00\x00", "\x7f\xff\xff\xff\xff"} {
		if v, err := integer([]byte(bad)); err == nil {
			t.Errorf("%x is %d", bad, v)
		}
	}
}

func TestFrame(t *testing.T) {
	whole := message(1, constructed(ber.ClassApplication, 0, num(3), str(strings.Repeat("x", 300)), str("")))
	for n := range len(whole) {
		got, err := Frame(whole[:n], 1<<20)
		if err != nil || n >= 4 && got != len(whole) || n < 2 && got != 0 {
			t.Fatalf("of %d octets: %d %v", n, got, err)
		}
	}
	for _, c := range []struct {
		in   string
		want error
	}{
		{"GET / HTTP/1.0\r\n", ErrNotLDAP},
		{"\x30\x84\x7f\xff\xff\xff", ErrTooLarge},
		{"\x30\x84\x80\x00\x00\x00", ErrTooLarge},
		{"\x30\x88\xff\xff\xff\xff\xff\xff\xff\xff", ErrTooLarge},
		{"\x30\x89", ErrBER},
		{"\x30\x80", ErrBER},
		{"\x30\x82\x10\x01", ErrTooLarge},
		{"\x30\x00", ErrNotLDAP},
		{"\x16\x03\x01\x02\x00", ErrNotLDAP},
		{"\x30\x84\x00\x00\x00\x05", nil},
	} {
		if _, err := Frame([]byte(c.in), 4096); !errors.Is(err, c.want) {
			t.Errorf("%x: %v, want %v", c.in, err, c.want)
		}
	}
}

func TestBounds(t *testing.T) {
	code := func(err error) Code {
		var e *Error
		if errors.As(err, &e) {
			return e.Code
		}
		if errors.Is(err, ErrBER) {
			return ProtocolError
		}
		return -1
	}
	deep := []byte{0x87, 1, 'x'}
	for range 5000 {
		deep = wrap(deep, 0, 0xa2)
	}
	wide := []byte(nil)
	for range 10000 {
		wide = append(wide, 0x87, 1, 'x')
	}
	wide = wrap(wide, 0, 0xa1)
	pieces := appendString(nil, tagOctetString, "cn")
	list := []byte(nil)
	for range 1000 {
		list = append(list, 0x81, 1, 'x')
	}
	pieces = wrap(append(pieces, wrap(list, 0, tagSequence)...), 0, 0xa4)
	for name, c := range map[string]struct {
		b    []byte
		want Code
	}{
		"deep":            {deep, AdminLimitExceeded},
		"wide":            {wide, AdminLimitExceeded},
		"pieces":          {pieces, AdminLimitExceeded},
		"empty":           {nil, ProtocolError},
		"choice":          {[]byte{0xaa, 0}, ProtocolError},
		"not of nothing":  {[]byte{0xa2, 0}, ProtocolError},
		"not of two":      {[]byte{0xa2, 6, 0x87, 1, 'x', 0x87, 1, 'y'}, ProtocolError},
		"cut":             {[]byte{0xa3, 5, 4, 1, 'x', 4, 9}, ProtocolError},
		"no pieces":       {[]byte{0xa4, 5, 4, 1, 'x', 0x30, 0}, ProtocolError},
		"final first":     {[]byte{0xa4, 11, 4, 1, 'x', 0x30, 6, 0x82, 1, 'a', 0x81, 1, 'b'}, ProtocolError},
		"initial second":  {[]byte{0xa4, 11, 4, 1, 'x', 0x30, 6, 0x81, 1, 'a', 0x80, 1, 'b'}, ProtocolError},
		"neither of them": {[]byte{0xa9, 3, 0x83, 1, 'x'}, ProtocolError},
	} {
		var f Filter
		if err := f.Parse(c.b, Limits{}); code(err) != c.want {
			t.Errorf("%s: %v, want %s", name, err, c.want)
		}
	}
	var f Filter
	if err := f.Parse(wide, Limits{FilterTerms: 20000}); err != nil || len(f.Nodes) != 10001 {
		t.Errorf("with a higher limit: %v", err)
	}
	controls := []byte(nil)
	for range 17 {
		controls = AppendControl(controls, "1.2", false, nil)
	}
	var m Message
	if err := m.Parse(AppendResponseControls(nil, 1, OpUnbindRequest, &Result{}, controls), Limits{}); code(err) != AdminLimitExceeded || m.ID != 1 {
		t.Errorf("controls: %v", err)
	}
	var a Add
	attr := AppendAttribute(nil, "x", [][]byte{nil, nil})
	body := append(appendString(nil, tagOctetString, "o=x"), wrap(bytes.Repeat(attr, 10), 0, tagSequence)...)
	if err := a.Parse(body, Limits{Attributes: 9}); code(err) != AdminLimitExceeded {
		t.Errorf("attributes: %v", err)
	}
	if err := a.Parse(body, Limits{Values: 19}); code(err) != AdminLimitExceeded {
		t.Errorf("values: %v", err)
	}
	if err := a.Parse(body, Limits{}); err != nil {
		t.Error(err)
	}
}

// A search that is parsed again and again takes no memory.
func TestParseTakesNoMemory(t *testing.T) {
	filter, err := ldap.CompileFilter("(&(objectClass=person)(mail=a@b.test))")
	if err != nil {
		t.Fatal(err)
	}
	b := message(300, constructed(ber.ClassApplication, 3, str("o=shoal"), enum(2), enum(0), num(0), num(0), boolean(false), filter,
		constructed(ber.ClassUniversal, ber.TagSequence, str("cn"), str("sn"))))
	var m Message
	var s Search
	n := testing.AllocsPerRun(100, func() {
		if m.Parse(b, Limits{}) != nil || s.Parse(m.Body, Limits{}) != nil {
			t.Fatal("parse")
		}
	})
	if n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// parseAll runs the parser of the operation.
func parseAll(m *Message) (any, error) {
	switch m.Op {
	case OpBindRequest:
		var r Bind
		return &r, r.Parse(m.Body)
	case OpSearchRequest:
		var r Search
		return &r, r.Parse(m.Body, Limits{})
	case OpAddRequest:
		var r Add
		return &r, r.Parse(m.Body, Limits{})
	case OpModifyRequest:
		var r Modify
		return &r, r.Parse(m.Body, Limits{})
	case OpModifyDNRequest:
		var r ModifyDN
		return &r, r.Parse(m.Body)
	case OpCompareRequest:
		var r Compare
		return &r, r.Parse(m.Body)
	case OpExtendedRequest:
		var r Extended
		return &r, r.Parse(m.Body)
	case OpAbandonRequest:
		return ParseAbandon(m.Body)
	}
	return nil, nil
}

func FuzzMessage(f *testing.F) {
	filter, err := ldap.CompileFilter("(|(cn=a*b*c)(!(sn=x))(cn:dn:1.2:=v))")
	if err != nil {
		f.Fatal(err)
	}
	attr := constructed(ber.ClassUniversal, ber.TagSequence, str("cn"), constructed(ber.ClassUniversal, ber.TagSet, str("v")))
	for _, op := range []*ber.Packet{
		constructed(ber.ClassApplication, 3, str("o=shoal"), enum(2), enum(0), num(0), num(0), boolean(false), filter, constructed(ber.ClassUniversal, ber.TagSequence, str("cn"))),
		constructed(ber.ClassApplication, 0, num(3), str("cn=a"), ber.NewString(ber.ClassContext, ber.TypePrimitive, 0, "pw", "")),
		constructed(ber.ClassApplication, 0, num(3), str(""), constructed(ber.ClassContext, 3, str("PLAIN"), str("x"))),
		constructed(ber.ClassApplication, 8, str("cn=a"), constructed(ber.ClassUniversal, ber.TagSequence, attr)),
		constructed(ber.ClassApplication, 6, str("cn=a"), constructed(ber.ClassUniversal, ber.TagSequence, constructed(ber.ClassUniversal, ber.TagSequence, enum(2), attr))),
		constructed(ber.ClassApplication, 12, str("cn=a"), str("cn=b"), boolean(true)),
		constructed(ber.ClassApplication, 14, str("cn=a"), constructed(ber.ClassUniversal, ber.TagSequence, str("sn"), str("v"))),
		constructed(ber.ClassApplication, 23, ber.NewString(ber.ClassContext, ber.TypePrimitive, 0, OIDStartTLS, "")),
	} {
		f.Add(message(7, op, ldap.NewControlPaging(5)))
	}
	f.Add([]byte("\x30\x84\x00\x00\x00\x05\x02\x01\x01\x42\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		n, err := Frame(b, 1<<20)
		if err != nil || n == 0 || n > len(b) {
			return
		}
		var m Message
		if m.Parse(b[:n], Limits{}) != nil {
			return
		}
		if r, err := parseAll(&m); err == nil {
			if s, ok := r.(*Search); ok {
				_ = s.Filter.String()
				if again := s.Filter.Nodes[0].End; again != len(s.Filter.Nodes) {
					t.Fatalf("filter ends at %d of %d", again, len(s.Filter.Nodes))
				}
			}
		}
		for _, c := range m.Controls {
			_, _, _ = ParsePaged(c.Value)
			_, _ = ParseCancel(c.Value)
		}
	})
}

// FuzzFilter compares with the oracle: what it writes for a filter's text is read here, and written
// back the oracle reads it as the same.
func FuzzFilter(f *testing.F) {
	for _, s := range []string{"(cn=a)", "(&(a=b)(|(c=*)(!(d>=e))))", "(cn=*a*b)", `(cn=\2a\00\ff)`, "(a:dn:=b)", "(:1.2:=b)", "(&)", "(a~=b)"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p, err := ldap.CompileFilter(s)
		if err != nil {
			return
		}
		b := p.Bytes()
		var own Filter
		if err := own.Parse(b, Limits{FilterTerms: 1 << 20, FilterDepth: 1 << 10}); err != nil {
			return // the oracle is laxer about empty pieces and missing types
		}
		text := own.String()
		q, err := ldap.CompileFilter(text)
		if err != nil {
			return // an attribute description that no filter's text can have
		}
		if !bytes.Equal(q.Bytes(), b) {
			// Equal up to how absent parts are written: the next reading must be stable.
			var again Filter
			if err := again.Parse(q.Bytes(), Limits{FilterTerms: 1 << 20, FilterDepth: 1 << 10}); err != nil || again.String() != text {
				t.Fatalf("%q reads as %q, that as %q", s, text, again.String())
			}
		}
	})
}

func BenchmarkParseSearch(b *testing.B) {
	filter, err := ldap.CompileFilter("(&(objectClass=person)(mail=a@b.test))")
	if err != nil {
		b.Fatal(err)
	}
	msg := message(300, constructed(ber.ClassApplication, 3, str("o=shoal"), enum(2), enum(0), num(0), num(0), boolean(false), filter,
		constructed(ber.ClassUniversal, ber.TagSequence, str("cn"), str("sn"))))
	var m Message
	var s Search
	for b.Loop() {
		if m.Parse(msg, Limits{}) != nil || s.Parse(m.Body, Limits{}) != nil {
			b.Fatal("parse")
		}
	}
}
