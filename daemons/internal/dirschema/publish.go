package dirschema

import (
	"fmt"
	"strings"
)

// The descriptions that the subschema subentry publishes (RFC 4512 §4.2).

// Describe-ables, in the order in which RFC 4512 lets keywords stand.
var (
	attributeOrder = []string{"NAME", "DESC", "OBSOLETE", "SUP", "EQUALITY", "ORDERING", "SUBSTR", "SYNTAX",
		"SINGLE-VALUE", "COLLECTIVE", "NO-USER-MODIFICATION", "USAGE"}
	classOrder = []string{"NAME", "DESC", "OBSOLETE", "SUP", "ABSTRACT", "STRUCTURAL", "AUXILIARY", "MUST", "MAY"}
)

func (d *definition) write(order []string) string {
	var b strings.Builder
	b.WriteString("( " + d.oid)
	one := func(key string, f field) {
		b.WriteString(" " + key)
		quoted := key == "NAME" || key == "DESC" || strings.HasPrefix(key, "X-")
		sep := " $ "
		if quoted {
			sep = " "
		}
		var v []string
		for _, s := range f.values {
			if quoted {
				s = "'" + s + "'"
			}
			v = append(v, s)
		}
		switch len(v) {
		case 0:
		case 1:
			b.WriteString(" " + v[0])
		default:
			b.WriteString(" ( " + strings.Join(v, sep) + " )")
		}
	}
	for _, key := range order {
		for _, f := range d.fields {
			if f.key == key {
				one(key, f)
			}
		}
	}
	for _, f := range d.fields {
		if strings.HasPrefix(f.key, "X-") {
			one(f.key, f)
		}
	}
	b.WriteString(" )")
	return b.String()
}

// AttributeTypeDescriptions are the values of attributeTypes.
func (s *Schema) AttributeTypeDescriptions() []string {
	var out []string
	for _, a := range s.attributeList {
		out = append(out, a.definition.write(attributeOrder))
	}
	return out
}

// ObjectClassDescriptions are the values of objectClasses.
func (s *Schema) ObjectClassDescriptions() []string {
	var out []string
	for _, c := range s.classList {
		out = append(out, c.definition.write(classOrder))
	}
	return out
}

// MatchingRuleDescriptions are the values of matchingRules.
func (s *Schema) MatchingRuleDescriptions() []string {
	var out []string
	for _, r := range s.ruleList {
		out = append(out, fmt.Sprintf("( %s NAME '%s' SYNTAX %s )", r.OID, r.Name, r.Syntax))
	}
	return out
}

// MatchingRuleUseDescriptions are the values of matchingRuleUse: which attributes each rule is for.
func (s *Schema) MatchingRuleUseDescriptions() []string {
	var out []string
	for _, r := range s.ruleList {
		var names []string
		for _, a := range s.attributeList {
			if r.AppliesTo(a) {
				names = append(names, a.Name())
			}
		}
		switch len(names) {
		case 0:
		case 1:
			out = append(out, fmt.Sprintf("( %s NAME '%s' APPLIES %s )", r.OID, r.Name, names[0]))
		default:
			out = append(out, fmt.Sprintf("( %s NAME '%s' APPLIES ( %s ) )", r.OID, r.Name, strings.Join(names, " $ ")))
		}
	}
	return out
}

// SyntaxDescriptions are the values of ldapSyntaxes.
func (s *Schema) SyntaxDescriptions() []string {
	var out []string
	for _, x := range s.syntaxList {
		extra := ""
		if x.Binary {
			extra = " X-NOT-HUMAN-READABLE 'TRUE'"
		}
		out = append(out, fmt.Sprintf("( %s DESC '%s'%s )", x.OID, x.Desc, extra))
	}
	return out
}
