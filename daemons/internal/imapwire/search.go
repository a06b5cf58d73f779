package imapwire

import (
	"strings"
	"time"
)

// SearchOp names a search key.
type SearchOp uint8

// The search keys (RFC 9051 §6.4.4 and extensions).
const (
	SearchAll         SearchOp = iota + 1
	SearchAnd                  // Kids, all of them
	SearchOr                   // Kids[0] or Kids[1]
	SearchNot                  // not Kids[0]
	SearchSeq                  // Set of message numbers
	SearchUID                  // Set of UIDs
	SearchFlag                 // Str: a system flag or a keyword that is set
	SearchRecent               //
	SearchHeader               // Field contains Str; Str empty: the field is there
	SearchBody                 // Str
	SearchText                 // Str
	SearchBefore               // internal date: Date
	SearchOn                   //
	SearchSince                //
	SearchSentBefore           // date of the header: Date
	SearchSentOn               //
	SearchSentSince            //
	SearchLarger               // Num octets
	SearchSmaller              //
	SearchModSeq               // Num (RFC 7162 §3.1.5)
	SearchOlder                // Num seconds (RFC 5032)
	SearchYounger              //
	SearchEmailID              // Str (RFC 8474)
	SearchThreadID             // Str
	SearchSavedBefore          // save date: Date (RFC 8514)
	SearchSavedOn              //
	SearchSavedSince           //
	SearchSaveDate             // SAVEDATESUPPORTED
	SearchFilter               // Str: the name of a stored criterion (RFC 5466)
)

// SearchKey is a node of the tree of search keys.
type SearchKey struct {
	Op    SearchOp
	Kids  []SearchKey
	Set   Set
	Field string // header field, as the client wrote it
	Str   string // UTF-8
	Date  time.Time
	Num   uint64
}

// SearchReturn is a set of result options of extended SEARCH.
type SearchReturn uint8

// Result options (RFC 4731, RFC 5182, RFC 9394).
const (
	ReturnMin SearchReturn = 1 << iota
	ReturnMax
	ReturnAll
	ReturnCount
	ReturnSave
	ReturnPartial
)

// Search holds the arguments of SEARCH.
type Search struct {
	Extended bool // RETURN was given: the answer is ESEARCH
	Return   SearchReturn
	Partial  Partial // with ReturnPartial
	Key      SearchKey
	ModSeq   bool // a MODSEQ key occurs in it
	Charset  bool // CHARSET was given
}

// Search takes the arguments of SEARCH behind the space.
//
//	search         = ["RETURN" SP "(" [option *(SP option)] ")" SP] ["CHARSET" SP astring SP] search-key *(SP search-key)
//
// "RETURN ()" means ALL (RFC 4731 §3.1).
func (d *Decoder) Search() (*Search, error) {
	s := new(Search)
	if err := d.searchReturn(s); err != nil {
		return nil, err
	}
	if d.AcceptWord("CHARSET") {
		s.Charset = true
		if err := d.SP(); err != nil {
			return nil, err
		}
		if err := d.searchCharset(); err != nil {
			return nil, err
		}
	}
	if err := d.searchKeys(s); err != nil {
		return nil, err
	}
	return s, nil
}

// searchReturn takes the result options, if there are any, and the space behind them.
func (d *Decoder) searchReturn(s *Search) error {
	if !d.AcceptWord("RETURN") {
		return nil
	}
	s.Extended = true
	if err := d.SP(); err != nil {
		return err
	}
	if err := d.List(func() error { return d.searchOption(s) }); err != nil {
		return err
	}
	if s.Return == 0 {
		s.Return = ReturnAll
	}
	if s.Return&(ReturnAll|ReturnPartial) == ReturnAll|ReturnPartial {
		return syntaxf("ALL and PARTIAL exclude each other") // RFC 9394 §3.1
	}
	return d.SP()
}

// searchCharset takes the name of a charset and the space behind it. *CharsetError where it is not known.
func (d *Decoder) searchCharset() error {
	charset, err := d.AString()
	if err != nil {
		return err
	}
	switch strings.ToUpper(charset) {
	case "US-ASCII", "ASCII", "UTF-8", "UTF8":
	default:
		return &CharsetError{Name: excerpt([]byte(charset))}
	}
	return d.SP()
}

// searchKeys takes search keys up to the end of the command: all of them must be met.
func (d *Decoder) searchKeys(s *Search) error {
	p := searchParser{d: d, s: s}
	s.Key.Op = SearchAnd
	for {
		key, err := p.key()
		if err != nil {
			return err
		}
		s.Key.Kids = append(s.Key.Kids, key)
		if d.AtEnd() {
			return nil
		}
		if err := d.SP(); err != nil {
			return err
		}
	}
}

// ParseCriteria takes search keys that are stored, in UTF-8 and without literals (RFC 5466 §3.2). keys is how many there are. Its errors
// are *SyntaxError.
func ParseCriteria(text string, lim Limits) (s *Search, keys int, err error) {
	if strings.ContainsAny(text, "\r\n\x00") || strings.HasSuffix(text, "}") {
		return nil, 0, syntaxf("stored search keys are one line without literals")
	}
	d := NewDecoder(strings.NewReader(""), lim, func() error { return nil })
	d.SetUTF8(true)
	d.line = []byte(text)
	p := searchParser{d: d, s: new(Search)}
	p.s.Key.Op = SearchAnd
	for {
		key, err := p.key()
		if err == nil {
			p.s.Key.Kids = append(p.s.Key.Kids, key)
			if d.pos == len(d.line) {
				return p.s, p.keys, nil
			}
			err = d.SP()
		}
		if err != nil {
			return nil, 0, syntaxf("not search keys: %v", err)
		}
	}
}

func (d *Decoder) searchOption(s *Search) error {
	switch {
	case d.AcceptWord("MIN"):
		s.Return |= ReturnMin
	case d.AcceptWord("MAX"):
		s.Return |= ReturnMax
	case d.AcceptWord("ALL"):
		s.Return |= ReturnAll
	case d.AcceptWord("COUNT"):
		s.Return |= ReturnCount
	case d.AcceptWord("SAVE"):
		s.Return |= ReturnSave
	case d.AcceptWord("PARTIAL"):
		if s.Return&ReturnPartial != 0 {
			return syntaxf("PARTIAL given twice")
		}
		if err := d.SP(); err != nil {
			return err
		}
		s.Return |= ReturnPartial
		var err error
		s.Partial, err = d.Partial()
		return err
	default:
		return syntaxf("unknown search result option: %s", d.Rest())
	}
	return nil
}

type searchParser struct {
	d    *Decoder
	s    *Search
	keys int
}

// flagKeys are the keys that ask for a flag or for its absence.
var flagKeys = map[string]struct {
	flag string
	not  bool
}{
	"ANSWERED": {`\Answered`, false}, "UNANSWERED": {`\Answered`, true},
	"DELETED": {`\Deleted`, false}, "UNDELETED": {`\Deleted`, true},
	"DRAFT": {`\Draft`, false}, "UNDRAFT": {`\Draft`, true},
	"FLAGGED": {`\Flagged`, false}, "UNFLAGGED": {`\Flagged`, true},
	"SEEN": {`\Seen`, false}, "UNSEEN": {`\Seen`, true},
}

var dateKeys = map[string]SearchOp{
	"BEFORE": SearchBefore, "ON": SearchOn, "SINCE": SearchSince,
	"SENTBEFORE": SearchSentBefore, "SENTON": SearchSentOn, "SENTSINCE": SearchSentSince,
	"SAVEDBEFORE": SearchSavedBefore, "SAVEDON": SearchSavedOn, "SAVEDSINCE": SearchSavedSince,
}

var numberKeys = map[string]SearchOp{
	"LARGER": SearchLarger, "SMALLER": SearchSmaller, "OLDER": SearchOlder, "YOUNGER": SearchYounger,
}

var fieldKeys = map[string]bool{"FROM": true, "TO": true, "CC": true, "BCC": true, "SUBJECT": true}

// key takes one search key.
func (p *searchParser) key() (SearchKey, error) {
	d := p.d
	if p.keys++; p.keys > d.lim.SearchKeys {
		return SearchKey{}, syntaxf("more than %d search keys", d.lim.SearchKeys)
	}
	if d.Peek() == '(' {
		key := SearchKey{Op: SearchAnd}
		err := d.List(func() error {
			kid, err := p.key()
			key.Kids = append(key.Kids, kid)
			return err
		})
		if err == nil && len(key.Kids) == 0 {
			err = syntaxf("empty list of search keys")
		}
		return key, err
	}
	if d.AtSet() {
		set, err := d.Set()
		return SearchKey{Op: SearchSeq, Set: set}, err
	}
	name, err := d.Keyword()
	if err != nil {
		return SearchKey{}, d.wanted("a search key")
	}
	if f, ok := flagKeys[name]; ok {
		return flagKey(f.flag, f.not), nil
	}
	switch name {
	case "ALL":
		return SearchKey{Op: SearchAll}, nil
	case "RECENT":
		return SearchKey{Op: SearchRecent}, nil
	case "OLD":
		return not(SearchKey{Op: SearchRecent}), nil
	case "NEW":
		return SearchKey{Op: SearchAnd, Kids: []SearchKey{{Op: SearchRecent}, flagKey(`\Seen`, true)}}, nil
	case "SAVEDATESUPPORTED":
		return SearchKey{Op: SearchSaveDate}, nil
	}
	if err := d.SP(); err != nil {
		if !p.known(name) {
			return SearchKey{}, syntaxf("unknown search key %s", excerpt([]byte(name)))
		}
		return SearchKey{}, err
	}
	return p.argument(name)
}

func flagKey(flag string, negated bool) SearchKey {
	key := SearchKey{Op: SearchFlag, Str: flag}
	if negated {
		return not(key)
	}
	return key
}

func not(k SearchKey) SearchKey { return SearchKey{Op: SearchNot, Kids: []SearchKey{k}} }

func (p *searchParser) known(name string) bool {
	_, date := dateKeys[name]
	_, number := numberKeys[name]
	if date || number || fieldKeys[name] {
		return true
	}
	switch name {
	case "NOT", "OR", "KEYWORD", "UNKEYWORD", "HEADER", "BODY", "TEXT", "UID", "UIDAFTER", "UIDBEFORE", "FILTER", "MODSEQ", "EMAILID", "THREADID":
		return true
	}
	return false
}

// argument takes the arguments of the key name.
func (p *searchParser) argument(name string) (key SearchKey, err error) {
	d := p.d
	if op, ok := dateKeys[name]; ok {
		key.Op = op
		key.Date, err = d.Date()
		return key, err
	}
	if op, ok := numberKeys[name]; ok {
		key.Op = op
		key.Num, err = d.Number()
		if err == nil && key.Num == 0 && (op == SearchOlder || op == SearchYounger) {
			err = syntaxf("%s needs a number of seconds above 0", name)
		}
		return key, err
	}
	if fieldKeys[name] {
		key.Op, key.Field = SearchHeader, name
		key.Str, err = p.text()
		if err == nil && key.Str == "" {
			key.Op = SearchAll // every string contains the empty one
		}
		return key, err
	}
	switch name {
	case "NOT":
		if err := p.enter(); err != nil {
			return key, err
		}
		kid, err := p.key()
		d.depth--
		return not(kid), err
	case "OR":
		return p.or()
	case "KEYWORD", "UNKEYWORD":
		flag, err := d.Flag()
		return flagKey(flag, name == "UNKEYWORD"), err
	case "HEADER":
		key.Op = SearchHeader
		if key.Field, err = d.AString(); err != nil {
			return key, err
		}
		if !isFieldName(key.Field) {
			return key, syntaxf("%q is not the name of a header field", excerpt([]byte(key.Field)))
		}
		if err = d.SP(); err != nil {
			return key, err
		}
		key.Str, err = p.text()
		return key, err
	case "BODY", "TEXT":
		key.Op = SearchBody
		if name == "TEXT" {
			key.Op = SearchText
		}
		key.Str, err = p.text()
		if err == nil && key.Str == "" {
			key.Op = SearchAll
		}
		return key, err
	case "UID":
		key.Op = SearchUID
		key.Set, err = d.Set()
		return key, err
	case "UIDAFTER", "UIDBEFORE": // RFC 9738 §3.3
		n, err := d.NonZero32()
		key.Op = SearchUID
		switch {
		case name == "UIDAFTER" && n < 1<<32-1:
			key.Set.Ranges = []Range{{Lo: n + 1, Hi: 1<<32 - 1}}
		case name == "UIDBEFORE" && n > 1:
			key.Set.Ranges = []Range{{Lo: 1, Hi: n - 1}}
		default: // nothing
			key = SearchKey{Op: SearchNot, Kids: []SearchKey{{Op: SearchAll}}}
		}
		return key, err
	case "FILTER":
		key.Op = SearchFilter
		if key.Str, err = d.Atom(); err == nil && strings.Contains(key.Str, "/") {
			err = syntaxf("a filter's name has no '/'")
		}
		return key, err
	case "MODSEQ":
		return p.modSeq()
	case "EMAILID", "THREADID":
		key.Op = SearchEmailID
		if name == "THREADID" {
			key.Op = SearchThreadID
		}
		key.Str, err = d.AString()
		return key, err
	}
	return key, syntaxf("unknown search key %s", excerpt([]byte(name)))
}

// enter counts one level of NOT or OR as nesting.
func (p *searchParser) enter() error {
	if p.d.depth++; p.d.depth > p.d.lim.Nesting {
		return syntaxf("search keys are nested more than %d deep", p.d.lim.Nesting)
	}
	return nil
}

func (p *searchParser) or() (SearchKey, error) {
	if err := p.enter(); err != nil {
		return SearchKey{}, err
	}
	a, err := p.key()
	if err != nil {
		return SearchKey{}, err
	}
	if err := p.d.SP(); err != nil {
		return SearchKey{}, err
	}
	b, err := p.key()
	p.d.depth--
	return SearchKey{Op: SearchOr, Kids: []SearchKey{a, b}}, err
}

// text takes a string to search for.
func (p *searchParser) text() (string, error) {
	s, err := p.d.AString()
	if err != nil {
		return "", err
	}
	return strings.ToValidUTF8(s, "\uFFFD"), nil
}

// modSeq takes the arguments of MODSEQ (RFC 7162 §3.1.5). The optional entry name and type are
// read and have no influence: there is one mod-sequence for all flags of a message.
//
//	search-modsequence = "MODSEQ" [SP DQUOTE "/flags/" flag DQUOTE SP ("priv" / "shared" / "all")] SP number64
func (p *searchParser) modSeq() (key SearchKey, err error) {
	d := p.d
	p.s.ModSeq = true
	if d.Peek() == '"' {
		if _, err = d.quoted(); err != nil {
			return key, err
		}
		if err = d.SP(); err != nil {
			return key, err
		}
		if !d.AcceptWord("priv") && !d.AcceptWord("shared") && !d.AcceptWord("all") {
			return key, d.wanted("priv, shared or all")
		}
		if err = d.SP(); err != nil {
			return key, err
		}
	}
	key.Op = SearchModSeq
	key.Num, err = d.Number()
	return key, err
}
