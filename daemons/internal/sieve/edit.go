package sieve

import (
	"errors"
	"fmt"
	"mime"
	"slices"
	"strings"
)

// Header fields that scripts cannot remove, because others rely on them (RFC 5293 §6), in lower case.
var keptFields = []string{"received", "auto-submitted", "return-path", "delivered-to"}

// maxFieldBytes bounds a field that a script adds.
const maxFieldBytes = 8 << 10

func buildAddHeader(c *compiler, b *bound) stmt {
	name, value, last := c.text(b.args[0].strs[0]), c.text(b.args[1].strs[0]), b.tag("last")
	if name.constant() && !fieldName(name.lit) {
		c.fail(b.args[0].pos, "%q is no name of a header field", name.lit)
	}
	return func(r *run) error {
		n, err := r.expand(name)
		if err != nil {
			return err
		}
		v, err := r.expand(value)
		if err != nil {
			return err
		}
		if !fieldName(n) {
			return fmt.Errorf("addheader: %q is no name of a header field", n)
		}
		if len(n)+len(v) > maxFieldBytes {
			return fmt.Errorf("addheader: the field is longer than %s", size(maxFieldBytes))
		}
		if err := r.edit(); err != nil {
			return err
		}
		f := field{name: n, raw: n + ": " + unstructured(len(n)+2, v) + "\r\n"}
		if last {
			r.header = append(slices.Clip(r.header), f)
		} else {
			r.header = append([]field{f}, r.header...)
		}
		return nil
	}
}

// edit counts one change of the header and makes sure that all of it is there.
func (r *run) edit() error {
	if _, err := r.fields(); err != nil {
		return err
	}
	if r.bodyAt > r.lim.HeaderBytes {
		return errors.New("the header is too large to be changed")
	}
	if r.edits++; r.edits > r.lim.Edits {
		return fmt.Errorf("more than %d changes of the header", r.lim.Edits)
	}
	r.version = nil
	return nil
}

func buildDeleteHeader(c *compiler, b *bound) stmt {
	name, from := c.text(b.args[0].strs[0]), c.source(b)
	var m *matcher
	if len(b.args) == 2 {
		m = c.matcher(b, &b.args[1])
	}
	if name.constant() && !fieldName(name.lit) {
		c.fail(b.args[0].pos, "%q is no name of a header field", name.lit)
	}
	return func(r *run) error {
		n, err := r.expand(name)
		if err != nil {
			return err
		}
		if slices.Contains(keptFields, strings.ToLower(n)) {
			r.note("deleteheader: the field %s stays", n)
			return nil
		}
		found, err := r.pick(from, []string{n})
		if err != nil {
			return err
		}
		gone := map[*field]bool{}
		for _, f := range found {
			yes := true
			if m != nil && m.kind != matchCount {
				if yes, err = r.any(m, []string{f.decoded()}); err != nil {
					return err
				}
			}
			gone[f] = yes
		}
		if m != nil && m.kind == matchCount {
			yes, err := r.any(m, make([]string, len(found)))
			if err != nil {
				return err
			}
			for f := range gone {
				gone[f] = yes
			}
		}
		var left []field
		for i := range r.header {
			if !gone[&r.header[i]] {
				left = append(left, r.header[i])
			}
		}
		if len(left) == len(r.header) {
			return nil
		}
		if err := r.edit(); err != nil {
			return err
		}
		r.header = append([]field{}, left...)
		return nil
	}
}

// unstructured writes a value as unstructured text: RFC 2047 words where it is not ASCII, folded at blanks. column is
// where it begins.
func unstructured(column int, v string) string {
	v = strings.Join(strings.Fields(v), " ")
	ascii := true
	for i := range len(v) {
		ascii = ascii && v[i] >= ' ' && v[i] < 0x7f
	}
	if !ascii {
		v = mime.QEncoding.Encode("utf-8", v)
	}
	var b strings.Builder
	for i, word := range strings.Split(v, " ") {
		switch {
		case i == 0:
		case column+1+len(word) > 78:
			b.WriteString("\r\n ")
			column = 1
		default:
			b.WriteByte(' ')
			column++
		}
		b.WriteString(word)
		column += len(word)
	}
	return b.String()
}

// buildForEveryPart: RFC 5703 §3. Inside another one it goes over the parts below the one that the other is at.
func buildForEveryPart(c *compiler, b *bound) stmt {
	name := c.tagText(b, "name")
	c.loops++
	body := c.block(b.block)
	c.loops--
	return func(r *run) error {
		p, err := r.part()
		if err != nil {
			return err
		}
		list := descendants(p)
		if len(r.loop) > 0 {
			list = list[1:]
		}
		if len(r.loop) >= maxLoops {
			return fmt.Errorf("foreverypart is nested more than %d deep", maxLoops)
		}
		for _, p := range list {
			if err := r.spend(1); err != nil {
				return err
			}
			r.loop = append(r.loop, p)
			err := r.exec(body)
			r.loop = r.loop[:len(r.loop)-1]
			if broken, ok := err.(errBreak); ok {
				if broken.name == "" || name != nil && strings.EqualFold(broken.name, name.lit) {
					return nil
				}
			}
			if err != nil {
				return err
			}
		}
		return nil
	}
}

// maxLoops bounds the nesting of foreverypart.
const maxLoops = 8

func buildBreak(c *compiler, b *bound) stmt {
	if c.loops == 0 {
		c.fail(b.pos, "break stands in no foreverypart")
	}
	e := errBreak{}
	if t := c.tagText(b, "name"); t != nil {
		e.name = t.lit
	}
	return func(*run) error { return e }
}

// buildExtractText: RFC 5703 §7, the decoded text of the part that foreverypart is at.
func buildExtractText(c *compiler, b *bound) stmt {
	if !c.has("variables") || !c.has("foreverypart") {
		c.fail(b.pos, "extracttext needs: require [%q, %q]", "variables", "foreverypart")
	}
	if c.loops == 0 {
		c.fail(b.pos, "extracttext stands in no foreverypart")
	}
	name, modify := c.target(&b.args[0]), c.modifier(b)
	most := -1
	if a := b.tags["first"]; a != nil {
		most = int(min(a.num, 1<<30))
	}
	return func(r *run) error {
		p, err := r.part()
		if err != nil {
			return err
		}
		v := ""
		if p.IsText() {
			left := min(r.lim.BodyBytes, 4*int64(r.lim.VariableBytes))
			if v, err = r.read(p.Text(r.env.Message), &left); err != nil {
				return err
			}
		}
		if most >= 0 {
			n := 0
			for i := range v {
				if n == most {
					v = v[:i]
					break
				}
				n++
			}
		}
		return r.set(name, modify(strings.ToValidUTF8(v, "")))
	}
}
