package sieve

// node is a command or a test, as it is written.
type node struct {
	pos   pos
	name  string
	args  []arg
	tests []*node
	// list says that the tests came in parentheses; block that there is one, though it may be empty.
	list, hasBlock bool
	block          []*node
	end            pos // of the block
}

// arg is one argument: a tag, a number or a list of strings.
type arg struct {
	pos  pos
	kind argKind
	tag  string
	num  uint64
	strs []str
}

type str struct {
	pos  pos
	text string
}

type argKind uint8

const (
	argTag argKind = iota
	argNumber
	argStrings
	argString // a single string, without brackets
)

// parser builds nodes. It stops at the first mistake of syntax: what follows would be guesswork.
type parser struct {
	lex   lexer
	tok   token
	err   *Error
	depth int
	max   int // nesting
}

// parse reads a script.
func parse(src []byte, maxNesting int) ([]*node, *Error) {
	p := &parser{lex: lexer{src: src, line: 1}, max: maxNesting}
	p.advance()
	list := p.commands()
	if p.err == nil && p.tok.kind != tokEOF {
		p.fail("%s cannot stand here", p.tok)
	}
	return list, p.err
}

func (p *parser) fail(format string, args ...any) {
	if p.err == nil {
		p.err = fail(p.tok.pos, format, args...)
	}
}

// advance reads the next token; after an error there is only the end.
func (p *parser) advance() {
	t, err := p.lex.next()
	if err != nil && p.err == nil {
		p.err = err
	}
	if p.err != nil {
		t = token{pos: p.tok.pos}
	}
	p.tok = t
}

func (p *parser) is(punct string) bool { return p.tok.kind == tokPunct && p.tok.text == punct }

func (p *parser) expect(punct, why string) {
	if !p.is(punct) {
		p.fail("expected %q %s, found %s", punct, why, p.tok)
	}
	p.advance()
}

func (p *parser) enter() bool {
	if p.depth++; p.depth > p.max {
		p.fail("too deeply nested: at most %d levels", p.max)
		return false
	}
	return true
}

func (p *parser) commands() (list []*node) {
	for p.err == nil && p.tok.kind == tokIdentifier {
		list = append(list, p.command())
	}
	return list
}

func (p *parser) command() *node {
	n := p.head()
	if p.err != nil {
		return n
	}
	if !p.is("{") {
		p.expect(";", "behind the command "+n.name)
		return n
	}
	n.hasBlock = true
	if p.enter() {
		p.advance()
		n.block = p.commands()
		n.end = p.tok.pos
		p.expect("}", "at the end of the block of "+n.name)
	}
	p.depth--
	return n
}

// head reads an identifier and its arguments.
func (p *parser) head() *node {
	n := &node{pos: p.tok.pos, name: p.tok.text}
	p.advance()
	for p.err == nil {
		switch {
		case p.tok.kind == tokTag:
			n.args = append(n.args, arg{pos: p.tok.pos, kind: argTag, tag: p.tok.text})
			p.advance()
		case p.tok.kind == tokNumber:
			n.args = append(n.args, arg{pos: p.tok.pos, kind: argNumber, num: p.tok.num})
			p.advance()
		case p.tok.kind == tokString:
			n.args = append(n.args, arg{pos: p.tok.pos, kind: argString, strs: []str{{p.tok.pos, p.tok.text}}})
			p.advance()
		case p.is("["):
			n.args = append(n.args, p.stringList())
		case p.tok.kind == tokIdentifier:
			n.tests = p.test()
			return n
		case p.is("("):
			n.list = true
			n.tests = p.testList()
			return n
		default:
			return n
		}
	}
	return n
}

func (p *parser) stringList() arg {
	a := arg{pos: p.tok.pos, kind: argStrings}
	p.advance()
	for p.err == nil {
		if p.tok.kind != tokString {
			p.fail("expected a string in the list, found %s", p.tok)
			break
		}
		a.strs = append(a.strs, str{p.tok.pos, p.tok.text})
		p.advance()
		if p.is("]") {
			break
		}
		p.expect(",", "between the strings of a list")
	}
	p.expect("]", "at the end of the list")
	return a
}

func (p *parser) test() []*node {
	if p.tok.kind != tokIdentifier {
		p.fail("expected a test, found %s", p.tok)
		return nil
	}
	defer func() { p.depth-- }()
	if !p.enter() {
		return nil
	}
	return []*node{p.head()}
}

func (p *parser) testList() (list []*node) {
	p.advance()
	for p.err == nil {
		list = append(list, p.test()...)
		if p.is(")") {
			break
		}
		p.expect(",", "between the tests of a list")
	}
	p.expect(")", "at the end of the list of tests")
	return list
}
