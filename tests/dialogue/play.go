package dialogue

import (
	"crypto/tls"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// transcriptLines is how much of the dialogue an Error shows.
const transcriptLines = 24

type player struct {
	targets map[string]Dial
	vars    map[string]string
	conns   map[string]*conn
	timeout time.Duration
	tls     *tls.Config
	log     []string
}

// expectation is a pattern with the line of the script it stands on.
type expectation struct {
	line    int
	pattern string
	re      *regexp.Regexp
}

func (p *player) closeAll() {
	for _, c := range p.conns {
		c.close()
	}
}

func (p *player) record(format string, args ...any) {
	p.log = append(p.log, fmt.Sprintf(format, args...))
	if len(p.log) > transcriptLines {
		p.log = p.log[len(p.log)-transcriptLines:]
	}
}

func (p *player) fail(line int, err error) error {
	if inner, ok := err.(*Error); ok {
		return inner
	}
	return &Error{Line: line, Problem: err.Error(), Transcript: strings.Join(p.log, "\n")}
}

func (p *player) play(steps []step) error {
	for i := 0; i < len(steps); i++ {
		s := steps[i]
		var err error
		if s.verb == "S*" { // a group: the lines below it on the same connection
			group := steps[i : i+1]
			for i+1 < len(steps) && steps[i+1].verb == "S*" && steps[i+1].id == s.id {
				i++
				group = group[:len(group)+1]
			}
			err = p.expectGroup(group)
		} else {
			err = p.step(s)
		}
		if err != nil {
			return p.fail(s.line, err)
		}
	}
	return nil
}

func (p *player) step(s step) error {
	switch s.verb {
	case "open":
		return p.open(s.id, s.text)
	case "set":
		text, err := expand(unescape(s.text), p.vars, verbatim)
		p.vars[s.id] = text
		return err
	case "timeout":
		d, err := time.ParseDuration(s.text)
		p.timeout = d
		return err
	case "repeat":
		return p.repeat(s)
	}
	c := p.conns[s.id]
	if c == nil {
		return fmt.Errorf("connection %s is not open", s.id)
	}
	switch s.verb {
	case "close":
		c.close()
		delete(p.conns, s.id)
		return nil
	case "halfclose":
		p.record("   %s halfclose", s.id)
		return c.halfClose(p.timeout)
	case "starttls":
		p.record("   %s starttls", s.id)
		return c.startTLS(p.tls, p.timeout)
	case "eof":
		return c.eof(time.Now().Add(p.timeout))
	case "C", "C!":
		text, err := expand(unescape(s.text), p.vars, verbatim)
		if err != nil {
			return err
		}
		if s.verb == "C" {
			text += "\r\n"
		}
		p.record("C%s %s", s.id, shown(text))
		c.send([]byte(text))
		return nil
	case "C#":
		text, err := expand(s.text, p.vars, verbatim)
		if err != nil {
			return err
		}
		data, _, err := parseHex(text, false)
		if err != nil {
			return err
		}
		p.record("C%s % x", s.id, data)
		c.send(data)
		return nil
	case "S#":
		return p.expectBytes(c, s)
	case "S!":
		e, err := p.expectation(s)
		c.forbid = append(c.forbid, e)
		return err
	default: // S, S~
		e, err := p.expectation(s)
		if err != nil {
			return err
		}
		return p.expect(c, s.id, []expectation{e}, s.verb == "S~")
	}
}

func (p *player) open(id, target string) error {
	dial := p.targets[target]
	if dial == nil {
		return fmt.Errorf("open %s: no target %q is given", id, target)
	}
	if p.conns[id] != nil {
		return fmt.Errorf("connection %s is open already", id)
	}
	raw, err := dial()
	if err != nil {
		return fmt.Errorf("open %s: %w", target, err)
	}
	p.record("   %s open %s", id, target)
	p.conns[id] = newConn(raw)
	return nil
}

func (p *player) repeat(s step) error {
	outer, had := p.vars["i"]
	for i := 1; i <= s.n; i++ {
		p.vars["i"] = strconv.Itoa(i)
		if err := p.play(s.body); err != nil {
			return err
		}
	}
	delete(p.vars, "i")
	if had {
		p.vars["i"] = outer
	}
	return nil
}

func (p *player) expectation(s step) (expectation, error) {
	re, err := compile(s.text, p.vars)
	return expectation{s.line, s.text, re}, err
}

func (p *player) expectGroup(group []step) error {
	c := p.conns[group[0].id]
	if c == nil {
		return fmt.Errorf("connection %s is not open", group[0].id)
	}
	var open []expectation
	for _, s := range group {
		e, err := p.expectation(s)
		if err != nil {
			return p.fail(s.line, err)
		}
		open = append(open, e)
	}
	return p.expect(c, group[0].id, open, false)
}

// expect reads lines until each of the expectations has matched one. Lines that match none are an error
// unless skip is set or something is forbidden.
func (p *player) expect(c *conn, id string, open []expectation, skip bool) error {
	forbidden := c.forbid
	c.forbid = nil
	skip = skip || len(forbidden) > 0
	deadline := time.Now().Add(p.timeout)
	for len(open) > 0 {
		line, err := c.line(deadline)
		if err != nil {
			return p.fail(open[0].line, fmt.Errorf("expected %q on connection %s, %s", open[0].pattern, id, p.describe(err, line)))
		}
		p.record("S%s %s", id, shown(line))
		for _, f := range forbidden {
			if f.re.MatchString(line) {
				return p.fail(f.line, fmt.Errorf("the server said what is forbidden here: %s", shown(line)))
			}
		}
		at := -1
		for i, e := range open {
			if m := e.re.FindStringSubmatch(line); m != nil {
				at = i
				for j, name := range e.re.SubexpNames() {
					if name != "" {
						p.vars[name] = m[j]
					}
				}
				break
			}
		}
		switch {
		case at >= 0:
			open = append(open[:at:at], open[at+1:]...)
		case !skip:
			return p.fail(open[0].line, fmt.Errorf("on connection %s\nexpected %s\ngot      %s", id, patterns(open), shown(line)))
		}
	}
	return nil
}

func (p *player) expectBytes(c *conn, s step) error {
	text, err := expand(s.text, p.vars, verbatim)
	if err != nil {
		return err
	}
	want, wild, err := parseHex(text, true)
	if err != nil {
		return err
	}
	got, err := c.bytes(len(want), time.Now().Add(p.timeout))
	p.record("S%s % x", s.id, got)
	if err != nil {
		return fmt.Errorf("expected %d bytes on connection %s, got %d: %w", len(want), s.id, len(got), err)
	}
	for i := range want {
		if !wild[i] && got[i] != want[i] {
			return fmt.Errorf("on connection %s, byte %d\nexpected %s\ngot      % x", s.id, i, s.text, got)
		}
	}
	return nil
}

func (p *player) describe(err error, rest string) string {
	said := "nothing came"
	if rest != "" {
		said = "only " + shown(rest) + " came"
	}
	switch {
	case os.IsTimeout(err):
		return fmt.Sprintf("%s within %v", said, p.timeout)
	case closedByPeer(err):
		return said + " before the server closed the connection"
	default:
		return fmt.Sprintf("%s: %v", said, err)
	}
}

func patterns(open []expectation) string {
	all := make([]string, len(open))
	for i, e := range open {
		all[i] = e.pattern
	}
	return strings.Join(all, "\n      or ")
}

// shown quotes control bytes and cuts what is too long to read.
func shown(s string) string {
	const most = 300
	cut := ""
	if len(s) > most {
		cut = fmt.Sprintf("... (%d bytes)", len(s))
		s = s[:most]
	}
	q := strconv.Quote(s)
	q = strings.ReplaceAll(q[1:len(q)-1], `\"`, `"`)
	return strings.ReplaceAll(q, `\\`, `\`) + cut
}
