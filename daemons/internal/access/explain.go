package access

import (
	"fmt"

	"shoal/daemons/internal/dirschema"
	"shoal/daemons/internal/dirstore"
)

// OID is the extended operation by which the directory is asked about access: its value is a Question as JSON, that of the
// answer an Answer or, for the rules, a list of Listed.
const OID = "2.25.24322987064403074951861717892443018913.3.2"

// Question asks whether somebody may do something to an entry, or with List for the rules.
type Question struct {
	Version   int    `json:"version"` // 1
	List      bool   `json:"list,omitempty"`
	Who       string `json:"who"` // DN, address, name of a server, or anonymous
	To        string `json:"to"`  // DN, address or domain
	Attribute string `json:"attribute,omitempty"`
	Right     string `json:"right,omitempty"`
}

// Answer says whether, and why.
type Answer struct {
	Version     int      `json:"version"`
	Who         string   `json:"who"`
	To          string   `json:"to"`
	Attribute   string   `json:"attribute"`
	Right       string   `json:"right"`
	Allowed     bool     `json:"allowed"`
	Rights      string   `json:"rights"`
	Roles       []string `json:"roles,omitempty"`
	Administers []string `json:"administers,omitempty"`
	Why         []Step   `json:"why"`
	Note        string   `json:"note,omitempty"`
}

// Step is a rule that has a part in an answer.
type Step struct {
	Part  string `json:"part"`            // service, directory or default
	Entry string `json:"entry,omitempty"` // where the rule stands
	Rule  string `json:"rule"`
	By    string `json:"by,omitempty"` // empty: nobody of this rule was meant, it gives nothing
	Gives string `json:"gives"`
}

// Listed is a rule as it stands.
type Listed struct {
	Part    string `json:"part"`
	Entry   string `json:"entry,omitempty"`
	Rule    string `json:"rule"`
	Problem string `json:"problem,omitempty"` // it denies everything
}

// List are all rules in the order in which they are asked.
func (e *Engine) List(r *dirstore.Reader) ([]Listed, error) {
	s, err := e.rules(r)
	if err != nil {
		return nil, err
	}
	out := []Listed{}
	for _, p := range s.rules {
		l := Listed{Part: p.Part.String(), Entry: p.Holder, Rule: p.Text}
		if p.Broken != nil {
			l.Problem = p.Broken.Error()
		}
		out = append(out, l)
	}
	return out, nil
}

// Explain says what the identity may do to an attribute of an entry ("entry" and "children" are told at Rule), and which rules
// say so.
func (v *View) Explain(r *dirstore.Reader, f *dirstore.Found, attribute string) (rights Rights, why []Step, note string, err error) {
	s, err := v.subject(r, f)
	if err != nil {
		return 0, nil, "", err
	}
	answers := s.answers(nil)
	told := func(p *Placed, c *clause) {
		step := Step{Part: p.Part.String(), Entry: p.Holder, Rule: p.Text, Gives: "none"}
		if c != nil {
			step.By, step.Gives = c.text, c.rights.String()
		}
		if p.Broken != nil {
			step.Gives = fmt.Sprintf("none: the rule cannot be read here (%v)", p.Broken)
		}
		why = append(why, step)
	}
	entry := v.shape.about(answers, false, func(r *Rule) (bool, bool) { return r.coversEntry(), false }, nil)
	switch attribute {
	case "entry":
		rights = v.shape.about(answers, false, func(r *Rule) (bool, bool) { return r.coversEntry(), false }, told)
	case "children":
		rights = v.shape.about(answers, false, func(r *Rule) (bool, bool) { return r.coversChildren(), false }, told)
	default:
		var d dirschema.Description
		if d, err = v.engine.store.Schema().Describe([]byte(attribute)); err != nil {
			return 0, nil, "", err
		}
		rights = v.shape.about(answers, isSecret(d.Type), func(r *Rule) (bool, bool) { return r.covers(d.Type) }, told)
		if isSecret(d.Type) {
			note = attribute + " is a secret: only a rule of the service's own lets it be read, compared or searched for"
		}
		if granting[d.Type.Name()] {
			note = attribute + " gives rights: it is changed with manage only"
		}
	}
	switch {
	case entry&Read == 0 && attribute != "entry" && rights&(Compare|Search|Read|Write) != 0:
		note = "the entry itself is hidden: nothing of it is read or changed, whatever the rules give for the attribute"
	case entry&Administer != 0 && rights&Write != 0:
		note = "an administrator of the domain is bound beside by what is told in the description: addresses, classes, quotas, and who has more rights than he"
	}
	return rights, why, note, nil
}

// Needs are the rights that a word asks for with an attribute.
func Needs(schema *dirschema.Schema, attribute string, right Rights) Rights {
	if d, err := schema.Describe([]byte(attribute)); err == nil && right&Write != 0 {
		return needs(d.Type, right)
	}
	return right
}
