package dirschema

import (
	"embed"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// Usage of an attribute type (RFC 4512 §4.1.2).
type Usage uint8

// Usages. All but the first are operational.
const (
	UserApplications Usage = iota
	DirectoryOperation
	DistributedOperation
	DSAOperation
)

var usageNames = [...]string{"userApplications", "directoryOperation", "distributedOperation", "dSAOperation"}

// AttributeType is a definition of RFC 4512 §4.1.2, with what it inherits filled in.
type AttributeType struct {
	OID        string
	Names      []string
	Desc       string
	Sup        *AttributeType
	Equality   *MatchingRule // nil: values cannot be compared
	Ordering   *MatchingRule
	Substr     *MatchingRule
	Syntax     *Syntax
	Bound      int // suggested upper bound of a value's length, 0 for none; not enforced
	Single     bool
	NoUserMod  bool
	Obsolete   bool
	Usage      Usage
	Serial     int // dense number within the schema, for bit sets
	definition definition
	lower      string
}

// Name is the first name, or the OID of a nameless type.
func (a *AttributeType) Name() string {
	if len(a.Names) > 0 {
		return a.Names[0]
	}
	return a.OID
}

// Operational reports whether the attribute is returned only when asked for by name or by "+".
func (a *AttributeType) Operational() bool { return a.Usage != UserApplications }

// Is reports whether a is b or a subtype of b.
func (a *AttributeType) Is(b *AttributeType) bool {
	for ; a != nil; a = a.Sup {
		if a == b {
			return true
		}
	}
	return false
}

// ClassKind is the kind of an object class (RFC 4512 §2.4).
type ClassKind uint8

// Kinds of object classes.
const (
	Structural ClassKind = iota
	Abstract
	Auxiliary
)

// ObjectClass is a definition of RFC 4512 §4.1.1. Must and May hold what superclasses add, too.
type ObjectClass struct {
	OID        string
	Names      []string
	Desc       string
	Sup        []*ObjectClass
	Kind       ClassKind
	Obsolete   bool
	Must, May  []*AttributeType
	all        []*ObjectClass // the class itself and all above it
	definition definition
}

// Name is the first name, or the OID of a nameless class.
func (c *ObjectClass) Name() string {
	if len(c.Names) > 0 {
		return c.Names[0]
	}
	return c.OID
}

// Is reports whether c is b or a subclass of b.
func (c *ObjectClass) Is(b *ObjectClass) bool { return slices.Contains(c.all, b) }

// Superclasses are all classes above c, nearest first.
func (c *ObjectClass) Superclasses() []*ObjectClass { return c.all[1:] }

// Schema is a closed set of definitions.
type Schema struct {
	attributes map[string]*AttributeType // by lower-case name and OID
	classes    map[string]*ObjectClass
	rules      map[string]*MatchingRule
	syntaxes   map[string]*Syntax
	macros     map[string]string

	attributeList []*AttributeType
	classList     []*ObjectClass
	ruleList      []*MatchingRule
	syntaxList    []*Syntax

	objectClass *AttributeType
}

//go:embed schema/*.schema
var files embed.FS

// Files are the schema files of the service.
func Files() fs.FS {
	sub, err := fs.Sub(files, "schema")
	if err != nil {
		panic(err) // the folder is embedded
	}
	return sub
}

// order is the order in which the embedded files depend on each other.
var order = []string{"0-system.schema", "core.schema", "cosine.schema", "inetorgperson.schema", "misc.schema", "nis.schema", "ppolicy.schema", "shoal.schema"}

// Default loads the schema of the service.
func Default() (*Schema, error) {
	s := New()
	for _, name := range order {
		b, err := files.ReadFile(path.Join("schema", name))
		if err != nil {
			return nil, fmt.Errorf("schema: %w", err)
		}
		if err := s.Add(name, b); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// maxFile bounds one file of a folder with schema.
const maxFile = 4 << 20

// AddFolder reads every file of a folder whose name ends with ".schema", in the order of the names. What a file
// defines may refer to the schema of the service and to files before it.
func (s *Schema) AddFolder(folder string) error {
	list, err := os.ReadDir(folder)
	if err != nil {
		return fmt.Errorf("schema folder: %w", err)
	}
	for _, e := range list {
		if !strings.HasSuffix(e.Name(), ".schema") {
			continue
		}
		name := filepath.Join(folder, e.Name())
		st, err := os.Stat(name)
		if err != nil {
			return fmt.Errorf("schema folder: %w", err)
		}
		if st.Size() > maxFile {
			return fmt.Errorf("schema %s: larger than %d bytes", name, maxFile)
		}
		text, err := os.ReadFile(name)
		if err != nil {
			return fmt.Errorf("schema folder: %w", err)
		}
		if err := s.Add(name, text); err != nil {
			return err
		}
	}
	return nil
}

// New makes a schema with syntaxes and matching rules and nothing else.
func New() *Schema {
	s := &Schema{
		attributes: map[string]*AttributeType{},
		classes:    map[string]*ObjectClass{},
		rules:      map[string]*MatchingRule{},
		syntaxes:   map[string]*Syntax{},
		macros:     map[string]string{},
	}
	for _, x := range syntaxes {
		s.syntaxes[x.OID] = x
		s.syntaxList = append(s.syntaxList, x)
	}
	for _, r := range s.builtinRules() {
		s.rules[r.OID] = r
		s.rules[strings.ToLower(r.Name)] = r
		s.ruleList = append(s.ruleList, r)
	}
	return s
}

// lookup finds b, folded to lower case, in m, without allocation for names of ordinary length.
func lookup[T any](m map[string]*T, b []byte) *T {
	var buf [64]byte
	if len(b) > len(buf) {
		return m[strings.ToLower(string(b))]
	}
	for i, c := range b {
		if c >= 'A' && c <= 'Z' {
			c += 'a' - 'A'
		}
		buf[i] = c
	}
	return m[string(buf[:len(b)])]
}

// Attribute finds a type by any of its names or its OID; nil if there is none.
func (s *Schema) Attribute(name []byte) *AttributeType { return lookup(s.attributes, name) }

// Class finds an object class by any of its names or its OID; nil if there is none.
func (s *Schema) Class(name []byte) *ObjectClass { return lookup(s.classes, name) }

// Rule finds a matching rule by its name or OID; nil if there is none.
func (s *Schema) Rule(name []byte) *MatchingRule { return lookup(s.rules, name) }

// Attributes are all attribute types in the order of their definition.
func (s *Schema) Attributes() []*AttributeType { return s.attributeList }

// Classes are all object classes in the order of their definition.
func (s *Schema) Classes() []*ObjectClass { return s.classList }

// Description is a parsed attribute description (RFC 4512 §2.5): a type and its options.
type Description struct {
	Type    *AttributeType
	Options string // lower case, sorted, joined by ';'; "" for none
}

// String is the description as it is stored and returned: the type's first name, then the options.
func (d Description) String() string {
	if d.Options == "" {
		return d.Type.Name()
	}
	return d.Type.Name() + ";" + d.Options
}

// Covers reports whether asking for d gives an attribute described by e: the same type or a subtype,
// with at least the options of d (RFC 4512 §2.5.2).
func (d Description) Covers(e Description) bool {
	if !e.Type.Is(d.Type) {
		return false
	}
	if d.Options == "" || d.Options == e.Options {
		return true
	}
	have := strings.Split(e.Options, ";")
	for o := range strings.SplitSeq(d.Options, ";") {
		if !slices.ContainsFunc(have, func(h string) bool {
			return h == o || isRange(o) && (strings.HasPrefix(h, o) || h == strings.TrimSuffix(o, "-"))
		}) {
			return false
		}
	}
	return true
}

//	attributedescription = attributetype *( ";" option )
//	option               = 1*( ALPHA / DIGIT / "-" )

// Describe parses an attribute description. The error is a *Violation.
func (s *Schema) Describe(b []byte) (Description, error) {
	name, opts, found := cutByte(b, ';')
	t := s.Attribute(name)
	if t == nil {
		return Description{}, violation(UndefinedType, "attribute type %q is not in the schema", clip(name))
	}
	if !found && !t.Syntax.Transfer {
		return Description{Type: t}, nil
	}
	if len(opts) > 256 {
		return Description{}, violation(UndefinedType, "options of %s too long", t.Name())
	}
	var list []string
	if found {
		list = strings.Split(strings.ToLower(string(opts)), ";")
	}
	for _, o := range list {
		if o == "" || strings.Trim(o, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
			return Description{}, violation(UndefinedType, "attribute option %q of %s", o, t.Name())
		}
		if o == binaryOption && !t.Syntax.Transfer {
			return Description{}, violation(UndefinedType, "%s is not transferred as ;binary", t.Name())
		}
	}
	if t.Syntax.Transfer { // whoever leaves it out means the same
		list = append(list, binaryOption)
	}
	slices.Sort(list)
	return Description{Type: t, Options: strings.Join(slices.Compact(list), ";")}, nil
}

// binaryOption is the transfer option of RFC 4522.
const binaryOption = "binary"

// Range reports whether an option is a range of language tags ("lang-", "lang-en-": RFC 3866 §2.2), which is
// asked for and never stored.
func (d Description) Range() bool {
	return slices.ContainsFunc(strings.Split(d.Options, ";"), isRange)
}

func isRange(o string) bool { return strings.HasPrefix(o, "lang-") && strings.HasSuffix(o, "-") }

func cutByte(b []byte, c byte) (before, after []byte, found bool) {
	if i := slices.Index(b, c); i >= 0 {
		return b[:i], b[i+1:], true
	}
	return b, nil, false
}

// clip bounds what an error message repeats of the input.
func clip(b []byte) []byte { return b[:min(len(b), 64)] }
