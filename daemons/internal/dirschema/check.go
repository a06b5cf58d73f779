package dirschema

import (
	"fmt"
	"slices"
)

// ViolationKind says which rule of the schema a request breaks.
type ViolationKind uint8

// Kinds of violations; in parentheses the result codes of RFC 4511 that they are answered with.
const (
	UndefinedType        ViolationKind = iota + 1 // (17)
	InvalidSyntax                                 // (21)
	ConstraintViolation                           // (19)
	ObjectClassViolation                          // (65)
	InvalidDN                                     // (34)
)

// Violation is the error of everything in this package that checks input.
type Violation struct {
	Kind    ViolationKind
	Message string
}

func (v *Violation) Error() string { return v.Message }

func violation(k ViolationKind, format string, args ...any) *Violation {
	return &Violation{k, fmt.Sprintf(format, args...)}
}

// Classes is the set of object classes of one entry, superclasses included.
type Classes struct {
	Structural *ObjectClass   // the most subordinate structural class
	Implied    []*ObjectClass // superclasses that the entry's values do not name
	all        []*ObjectClass
	extensible bool
}

// Has reports whether the class is in the set.
func (c *Classes) Has(oc *ObjectClass) bool {
	for _, x := range c.all {
		if x == oc {
			return true
		}
	}
	return false
}

// CheckClasses checks the objectClass values of an entry (RFC 4512 §2.4.2): all known, and exactly
// one chain of structural classes.
func (s *Schema) CheckClasses(values [][]byte) (*Classes, error) {
	cs := &Classes{}
	if len(values) == 0 {
		return nil, violation(ObjectClassViolation, "no objectClass")
	}
	for _, v := range values {
		c := s.Class(v)
		if c == nil {
			return nil, violation(ObjectClassViolation, "object class %q is not in the schema", clip(v))
		}
		if cs.Has(c) {
			continue
		}
		cs.all = append(cs.all, c)
		if c.OID == "1.3.6.1.4.1.1466.101.120.111" {
			cs.extensible = true
		}
	}
	for i := 0; i < len(cs.all); i++ {
		for _, up := range cs.all[i].Sup {
			if !cs.Has(up) {
				cs.all = append(cs.all, up)
				cs.Implied = append(cs.Implied, up)
			}
		}
	}
	for _, c := range cs.all {
		if c.Kind != Structural {
			continue
		}
		switch {
		case cs.Structural == nil || c.Is(cs.Structural):
			cs.Structural = c
		case !cs.Structural.Is(c):
			return nil, violation(ObjectClassViolation, "structural classes %s and %s do not go together", cs.Structural.Name(), c.Name())
		}
	}
	if cs.Structural == nil {
		return nil, violation(ObjectClassViolation, "no structural object class")
	}
	return cs, nil
}

// Check checks which attributes an entry has against what its classes demand and allow. has reports
// whether a type is present; types are all that are.
func (c *Classes) Check(types []*AttributeType, has func(*AttributeType) bool) error {
	for _, oc := range c.all {
		for _, a := range oc.Must {
			if !has(a) {
				return violation(ObjectClassViolation, "object class %s requires attribute %s", oc.Name(), a.Name())
			}
		}
	}
	for _, a := range types {
		if !c.Allows(a) {
			return violation(ObjectClassViolation, "attribute %s is not allowed by the object classes", a.Name())
		}
	}
	return nil
}

// Allows reports whether an entry of these classes may have the attribute.
func (c *Classes) Allows(a *AttributeType) bool {
	if c.extensible || a.Operational() {
		return true
	}
	for _, oc := range c.all {
		if slices.Contains(oc.Must, a) || slices.Contains(oc.May, a) {
			return true
		}
	}
	return false
}
