package sieve

import (
	"slices"
	"sort"
	"strings"
)

// Script is a compiled script.
type Script struct {
	name string
	body []stmt
	caps map[string]bool
	warn Errors
}

// Warnings are what is allowed and most likely a mistake, in the order of the script.
func (s *Script) Warnings() Errors { return s.warn }

// Name is what Compile was given.
func (s *Script) Name() string { return s.name }

// Requires says whether the script uses an extension: by require, or by an ihave that found it.
func (s *Script) Requires(capability string) bool { return s.caps[capability] }

// A statement or a condition is what a command or a test is compiled to.
type (
	stmt func(*run) error
	cond func(*run) (bool, error)
)

// Bounds of scripts, whatever the limits of a site.
const (
	maxNesting = 32 // blocks and tests
)

// Options of Compile.
type Options struct {
	Name     string   // of the script, for its errors
	MaxBytes int      // 0: DefaultMaxBytes
	Without  []string // capabilities that the site does not offer
}

// DefaultMaxBytes bounds the source of a script.
const DefaultMaxBytes = 256 << 10

// Compile checks a script and makes it ready to run. The error is of type Errors.
func Compile(src []byte, o Options) (*Script, error) {
	if o.MaxBytes == 0 {
		o.MaxBytes = DefaultMaxBytes
	}
	c := &compiler{script: &Script{name: o.Name, caps: map[string]bool{}}, offered: map[string]bool{}, written: map[string]bool{}, global: map[string]bool{}}
	for _, name := range slices.Concat(Capabilities, builtin) {
		c.offered[name] = !slices.Contains(o.Without, name)
	}
	for _, name := range builtin {
		c.script.caps[name] = true
	}
	if len(src) > o.MaxBytes {
		return nil, Errors{{o.Name, 1, 1, "the script is larger than " + size(o.MaxBytes)}}
	}
	nodes, err := parse(src, maxNesting)
	if err != nil {
		err.Script = o.Name
		return nil, Errors{err}
	}
	begin := 0
	for ; begin < len(nodes) && nodes[begin].name == "require"; begin++ {
		c.require(nodes[begin])
	}
	c.script.body = c.block(nodes[begin:])
	if len(c.errs) > 0 {
		sort.SliceStable(c.errs, func(i, j int) bool {
			a, b := c.errs[i], c.errs[j]
			return a.Line < b.Line || a.Line == b.Line && a.Column < b.Column
		})
		for _, e := range c.errs {
			e.Script = o.Name
		}
		return nil, c.errs
	}
	for _, w := range c.script.warn {
		w.Script = o.Name
	}
	return c.script, nil
}

func (c *compiler) warn(p pos, format string, args ...any) {
	if len(c.script.warn) < maxErrors {
		c.script.warn = append(c.script.warn, fail(p, format, args...))
	}
}

type compiler struct {
	script  *Script
	offered map[string]bool
	errs    Errors
	loops   int             // foreverypart blocks around what is compiled
	written map[string]bool // local variables that were written so far
	global  map[string]bool // variables that are names of global ones
}

func (c *compiler) fail(p pos, format string, args ...any) {
	if len(c.errs) < maxErrors {
		c.errs = append(c.errs, fail(p, format, args...))
	}
}

func (c *compiler) has(capability string) bool { return c.script.caps[capability] }

func (c *compiler) enable(name string) {
	c.script.caps[name] = true
	for _, more := range implied[name] {
		c.script.caps[more] = true
	}
}

func (c *compiler) require(n *node) {
	b := c.bind(n, &def{args: []argKind{argStrings}})
	if b == nil {
		return
	}
	for _, s := range b.args[0].strs {
		if !c.offered[s.text] {
			c.fail(s.pos, "the extension %q is not supported here", s.text)
			continue
		}
		c.enable(s.text)
	}
}

// block compiles a list of commands. if, elsif and else belong together.
func (c *compiler) block(nodes []*node) []stmt {
	var list []stmt
	for i := 0; i < len(nodes); i++ {
		n := nodes[i]
		if n.name == "if" {
			chain := []*node{n}
			for i+1 < len(nodes) && (nodes[i+1].name == "elsif" || nodes[i+1].name == "else") {
				i++
				chain = append(chain, nodes[i])
				if nodes[i].name == "else" {
					break
				}
			}
			list = append(list, c.choice(chain))
			continue
		}
		if s := c.command(n); s != nil {
			list = append(list, s)
		}
		if ends[n.name] && i+1 < len(nodes) {
			c.warn(nodes[i+1].pos, "nothing behind %s is ever done", n.name)
		}
	}
	return list
}

// ends are the commands that leave a block.
var ends = map[string]bool{"stop": true, "return": true, "error": true, "break": true}

func (c *compiler) command(n *node) stmt {
	switch n.name {
	case "elsif", "else":
		c.fail(n.pos, "%s must follow the block of an if or elsif", n.name)
		return nil
	case "require":
		c.fail(n.pos, "require must stand before all other commands")
		return nil
	}
	d, ok := commands[n.name]
	if !ok {
		if _, ok := tests[n.name]; ok {
			c.fail(n.pos, "%s is a test: it belongs behind if, elsif, not, anyof or allof", n.name)
		} else {
			c.fail(n.pos, "unknown command %q%s", n.name, nearest(n.name, commands))
		}
		return nil
	}
	b := c.bind(n, &d.def)
	if b == nil {
		return nil
	}
	s := d.build(c, b)
	if s == nil {
		return nil
	}
	return func(r *run) error {
		if err := r.spend(1); err != nil {
			return err
		}
		return s(r)
	}
}

func (c *compiler) test(n *node) cond {
	d, ok := tests[n.name]
	if !ok {
		if _, ok := commands[n.name]; ok {
			c.fail(n.pos, "%s is a command, not a test", n.name)
		} else {
			c.fail(n.pos, "unknown test %q%s", n.name, nearest(n.name, tests))
		}
		return nil
	}
	b := c.bind(n, &d.def)
	if b == nil {
		return nil
	}
	t := d.build(c, b)
	return func(r *run) (bool, error) {
		if err := r.spend(1); err != nil {
			return false, err
		}
		return t(r)
	}
}

// choice compiles an if with its elsifs and else.
func (c *compiler) choice(chain []*node) stmt {
	type branch struct {
		test cond // nil: else
		body []stmt
	}
	var branches []branch
	for _, n := range chain {
		d := &def{tests: 1, block: true}
		if n.name == "else" {
			d.tests = 0
		}
		b := c.bind(n, d)
		if b == nil {
			continue
		}
		if n.name == "else" {
			branches = append(branches, branch{nil, c.block(n.block)})
			continue
		}
		if c.ihave(n.tests[0]) {
			continue // what it guards is for other servers (RFC 5463 §4)
		}
		t := c.test(n.tests[0])
		branches = append(branches, branch{t, c.block(n.block)})
	}
	return func(r *run) error {
		for _, b := range branches {
			if b.test != nil {
				yes, err := b.test(r)
				if err != nil {
					return err
				}
				if !yes {
					continue
				}
			}
			return r.exec(b.body)
		}
		return nil
	}
}

// ihave prepares a condition that asks for extensions (RFC 5463): those that are there may be used from here on.
// It reports whether the condition can never hold because one is missing, so that the block need not be compiled.
func (c *compiler) ihave(n *node) (never bool) {
	switch n.name {
	case "ihave":
		all := true
		for _, a := range n.args {
			for _, s := range a.strs {
				all = all && c.offered[s.text]
			}
		}
		for _, a := range n.args {
			for _, s := range a.strs {
				if all {
					c.enable(s.text)
				}
			}
		}
		return !all && c.has("ihave")
	case "allof":
		for _, t := range n.tests {
			if c.ihave(t) {
				return true
			}
		}
	case "anyof":
		never = len(n.tests) > 0
		for _, t := range n.tests {
			if !c.ihave(t) {
				never = false
			}
		}
		return never
	case "not":
		for _, t := range n.tests {
			c.ihave(t)
		}
	}
	return false
}

// def is how a command or a test is written.
type def struct {
	needs    string // capability; "a|b": one of these
	tags     tagSet
	args     []argKind // positional arguments
	optional int       // how many of these, from the first, may be left out
	short    bool      // the last of these may be left out
	tests    int       // 1: one; -1: a list in parentheses
	block    bool
}

type commandDef struct {
	def
	build func(*compiler, *bound) stmt
}

type testDef struct {
	def
	build func(*compiler, *bound) cond
}

// tagDef is an optional argument that begins with a tag.
type tagDef struct {
	needs string
	group string  // at most one tag of a group may be given
	takes argKind // kind of the argument that follows; argTag: none
}

type tagSet map[string]tagDef

// with joins sets of tags.
func with(sets ...tagSet) tagSet {
	all := tagSet{}
	for _, s := range sets {
		for name, d := range s {
			all[name] = d
		}
	}
	return all
}

// bound is a command or a test with its arguments in their places.
type bound struct {
	*node
	tags map[string]*arg // nil values: tags that take no argument
	args []arg
}

func (b *bound) tag(name string) bool { _, ok := b.tags[name]; return ok }

// allowed says whether one of the capabilities "a|b" is there, and reports it else.
func (c *compiler) allowed(p pos, what, needs string) bool {
	if needs == "" {
		return true
	}
	names := strings.Split(needs, "|")
	for _, name := range names {
		if c.has(name) {
			return true
		}
	}
	c.fail(p, "%s needs: require %q", what, names[0])
	return false
}

var kindNames = map[argKind]string{argNumber: "a number", argString: "a string", argStrings: "a string or a list of strings", argTag: "a tag"}

// fits says whether an argument is of a kind, and reports it else.
func (c *compiler) fits(a *arg, kind argKind, what string) bool {
	if a.kind == kind || kind == argStrings && a.kind == argString {
		return true
	}
	c.fail(a.pos, "%s must be %s, not %s", what, kindNames[kind], kindNames[a.kind])
	return false
}

// bind puts the arguments of n in their places; nil after a mistake.
func (c *compiler) bind(n *node, d *def) *bound {
	errs := len(c.errs)
	if !c.allowed(n.pos, n.name, d.needs) {
		return nil
	}
	b := &bound{node: n, tags: map[string]*arg{}}
	groups := map[string]string{}
	for i := 0; i < len(n.args); i++ {
		a := &n.args[i]
		if a.kind != argTag {
			b.args = append(b.args, *a)
			continue
		}
		t, ok := d.tags[a.tag]
		if !ok {
			c.fail(a.pos, "%s has no tag :%s", n.name, a.tag)
			continue
		}
		c.allowed(a.pos, ":"+a.tag, t.needs)
		if b.tag(a.tag) {
			c.fail(a.pos, ":%s is given twice", a.tag)
		}
		if t.group != "" {
			if other := groups[t.group]; other != "" && other != a.tag {
				c.fail(a.pos, ":%s cannot stand together with :%s", a.tag, other)
			}
			groups[t.group] = a.tag
		}
		b.tags[a.tag] = nil
		if t.takes == argTag {
			continue
		}
		if i++; i == len(n.args) {
			c.fail(a.pos, ":%s must be followed by %s", a.tag, kindNames[t.takes])
			break
		}
		if c.fits(&n.args[i], t.takes, "what follows :"+a.tag) {
			b.tags[a.tag] = &n.args[i]
		}
	}
	missing := len(d.args) - len(b.args)
	if d.short && missing == 1 {
		missing = 0
	}
	if missing > d.optional {
		c.fail(n.pos, "%s lacks an argument: %s", n.name, signature(d))
	} else if missing < 0 {
		c.fail(b.args[len(d.args)].pos, "%s has an argument too many: %s", n.name, signature(d))
	} else {
		for i := range b.args {
			c.fits(&b.args[i], d.args[missing+i], "the argument of "+n.name)
		}
	}
	switch {
	case d.tests == 0 && len(n.tests) > 0:
		c.fail(n.tests[0].pos, "%s takes no test", n.name)
	case d.tests == 1 && (len(n.tests) != 1 || n.list):
		c.fail(n.pos, "%s takes exactly one test", n.name)
	case d.tests < 0 && !n.list:
		c.fail(n.pos, "%s takes a list of tests in parentheses", n.name)
	}
	if d.block != n.hasBlock {
		if d.block {
			c.fail(n.pos, "%s needs a block: { ... }", n.name)
		} else {
			c.fail(n.pos, "%s takes no block", n.name)
		}
	}
	if len(c.errs) > errs {
		return nil
	}
	return b
}

// signature says which positional arguments are wanted.
func signature(d *def) string {
	if len(d.args) == 0 {
		return "none is expected"
	}
	var names []string
	for _, k := range d.args {
		names = append(names, kindNames[k])
	}
	return strings.Join(names, ", then ") + " is expected"
}

// nearest proposes a name that differs in little.
func nearest[T any](name string, known map[string]T) string {
	best, least := "", 3
	for k := range known {
		if d := distance(name, k); d < least || d == least && k < best {
			best, least = k, d
		}
	}
	if best == "" || least >= 3 {
		return ""
	}
	return ": did you mean " + best + "?"
}

// distance is the number of letters to change, add or remove (Levenshtein), for short words.
func distance(a, b string) int {
	if len(a) > 32 || len(b) > 32 {
		return 32
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		last := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			last, row[j+1] = row[j+1], min(row[j+1]+1, row[j]+1, last+cost)
		}
	}
	return row[len(b)]
}
