package dirstore

import (
	"encoding/binary"
	"errors"
	"fmt"

	"shoal/daemons/internal/ldapwire"
)

// A record is an entry as it lies in the entry bucket. The attributes are in the form in which a
// search result carries them (ldapwire.AppendAttribute), so that most answers are copies:
//
//	offset  0  1  version, 1
//	        1  1  0
//	        2  8  id of the parent entry, 0 for the suffix entry
//	       10  2  number of user attributes
//	       12  2  number of operational attributes
//	       14  2  number of secret attributes
//	       16  2  length of the RDN
//	       18     per attribute, user ones first, then operational, then secret:
//	              id in the attr bucket (2), end of the attribute in the blob (4)
//	              RDN in the form of dirschema.RDN.Append; of the suffix entry the whole suffix
//	              blob: the encoded attributes
const (
	recordVersion = 1
	recordHeader  = 18
	recordSlot    = 6
)

var errRecord = errors.New("damaged record")

// record is a view of an encoded entry. It is valid as long as the transaction it was read in.
type record struct {
	raw    []byte
	parent uint64
	user   int // number of user attributes
	op     int // number of user and operational attributes
	all    int // number of all attributes
	rdn    []byte
	blob   []byte
}

func parseRecord(raw []byte) (r record, err error) {
	if len(raw) < recordHeader || raw[0] != recordVersion {
		return r, errRecord
	}
	r.raw = raw
	r.parent = binary.BigEndian.Uint64(raw[2:])
	r.user = int(binary.BigEndian.Uint16(raw[10:]))
	r.op = r.user + int(binary.BigEndian.Uint16(raw[12:]))
	r.all = r.op + int(binary.BigEndian.Uint16(raw[14:]))
	rdn := recordHeader + recordSlot*r.all
	blob := rdn + int(binary.BigEndian.Uint16(raw[16:]))
	if blob > len(raw) {
		return r, errRecord
	}
	r.rdn, r.blob = raw[rdn:blob], raw[blob:]
	if r.end(r.all-1) != len(r.blob) {
		return r, errRecord
	}
	return r, nil
}

func (r *record) id(i int) uint16 {
	return binary.BigEndian.Uint16(r.raw[recordHeader+recordSlot*i:])
}

// end is where attribute i ends in the blob; 0 for i = -1.
func (r *record) end(i int) int {
	if i < 0 {
		return 0
	}
	return int(binary.BigEndian.Uint32(r.raw[recordHeader+recordSlot*i+2:]))
}

// attribute is attribute i in its encoded form.
func (r *record) attribute(i int) []byte { return r.blob[r.end(i-1):r.end(i)] }

// values are the encoded values of attribute i, for ldapwire.NextValue.
func (r *record) values(i int) []byte {
	_, vals, _, err := ldapwire.SplitAttribute(r.attribute(i))
	if err != nil {
		return nil
	}
	return vals
}

// encodeRecord makes the record of an entry.
func encodeRecord(a *attributes, parent uint64, rdn []byte, attrs []Attribute) ([]byte, error) {
	var byClass [3][]int
	size := 0
	for i := range attrs {
		c := classOf(attrs[i].Desc.Type)
		byClass[c] = append(byClass[c], i)
		for _, v := range attrs[i].Values {
			size += len(v) + 6
		}
		size += 32
	}
	n := len(attrs)
	if n > 1<<12 || len(rdn) > 1<<13 || size > 1<<26 {
		return nil, ldapwire.Errorf(ldapwire.AdminLimitExceeded, "entry too large")
	}
	raw := make([]byte, recordHeader, recordHeader+recordSlot*n+len(rdn)+size)
	raw[0] = recordVersion
	binary.BigEndian.PutUint64(raw[2:], parent)
	for c, list := range byClass {
		binary.BigEndian.PutUint16(raw[10+2*c:], uint16(len(list)))
	}
	binary.BigEndian.PutUint16(raw[16:], uint16(len(rdn)))
	raw = append(raw, make([]byte, recordSlot*n)...)
	raw = append(raw, rdn...)
	blob, slot := len(raw), recordHeader
	for _, list := range byClass {
		for _, i := range list {
			id, err := a.id(attrs[i].Desc)
			if err != nil {
				return nil, err
			}
			raw = ldapwire.AppendAttribute(raw, attrs[i].Desc.String(), attrs[i].Values)
			binary.BigEndian.PutUint16(raw[slot:], id)
			binary.BigEndian.PutUint32(raw[slot+2:], uint32(len(raw)-blob))
			slot += recordSlot
		}
	}
	return raw, nil
}

// decodeAttributes takes a record apart. The values are copies.
func decodeAttributes(t *attrTable, r *record) ([]Attribute, error) {
	out := make([]Attribute, 0, r.all+2)
	for i := range r.all {
		id := int(r.id(i))
		if id >= len(t.list) {
			return nil, fmt.Errorf("%w: attribute id %d", errRecord, id)
		}
		a := Attribute{Desc: t.list[id].desc}
		for vals := r.values(i); ; {
			v, rest, ok := ldapwire.NextValue(vals)
			if !ok {
				break
			}
			a.Values = append(a.Values, append([]byte(nil), v...))
			vals = rest
		}
		out = append(out, a)
	}
	return out, nil
}
