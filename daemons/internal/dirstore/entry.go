package dirstore

import (
	"bytes"

	"shoal/daemons/internal/dirschema"
)

// Attribute is an attribute with its values in the order in which they were given.
type Attribute struct {
	Desc   dirschema.Description
	Values [][]byte
}

// Entry is an entry taken apart.
type Entry struct {
	ID         uint64
	DN         string
	Attributes []Attribute
	// Rehashed says of a modify that its password is the same as before, in another form.
	Rehashed bool
}

// Find gives the attribute with exactly this description, nil if there is none.
func (e *Entry) Find(d dirschema.Description) *Attribute {
	for i := range e.Attributes {
		if e.Attributes[i].Desc == d {
			return &e.Attributes[i]
		}
	}
	return nil
}

// Get gives the values of an attribute by its canonical description ("cn", "userCertificate;binary").
func (e *Entry) Get(desc string) [][]byte {
	for i := range e.Attributes {
		if e.Attributes[i].Desc.String() == desc {
			return e.Attributes[i].Values
		}
	}
	return nil
}

// Set replaces the values of an attribute; no values remove it.
func (e *Entry) Set(d dirschema.Description, values ...[]byte) {
	for i := range e.Attributes {
		if e.Attributes[i].Desc != d {
			continue
		}
		if len(values) == 0 {
			e.Attributes = append(e.Attributes[:i], e.Attributes[i+1:]...)
		} else {
			e.Attributes[i].Values = values
		}
		return
	}
	if len(values) > 0 {
		e.Attributes = append(e.Attributes, Attribute{d, values})
	}
}

func (e *Entry) clone() *Entry {
	c := &Entry{ID: e.ID, DN: e.DN, Attributes: make([]Attribute, len(e.Attributes))}
	for i, a := range e.Attributes {
		c.Attributes[i] = Attribute{a.Desc, append([][]byte(nil), a.Values...)}
	}
	return c
}

// normalForm is the form by which values of the type are compared; octets where it has no rule or
// the rule does not take the value.
func normalForm(t *dirschema.AttributeType, v []byte) []byte {
	if t.Equality == nil {
		return v
	}
	n, err := t.Equality.Normalize(nil, v)
	if err != nil {
		return v
	}
	return n
}

// indexOf finds a value among others by the equality rule of the type; -1 if it is not there.
func indexOf(t *dirschema.AttributeType, values [][]byte, v []byte) int {
	n := normalForm(t, v)
	for i, w := range values {
		if bytes.Equal(n, normalForm(t, w)) {
			return i
		}
	}
	return -1
}
