package imapwire

// SortKey is what SORT orders by.
type SortKey uint8

// The sort keys (RFC 5256 §3, RFC 5957 §3).
const (
	SortArrival     SortKey = iota + 1 // internal date
	SortCc                             // local part of the first address
	SortDate                           // date of the header in UTC
	SortFrom                           // local part of the first address
	SortSize                           // octets
	SortSubject                        // base subject
	SortTo                             // local part of the first address
	SortDisplayFrom                    // name of the first address, or the address
	SortDisplayTo                      //
)

// SortCriterion is a sort key and its direction.
type SortCriterion struct {
	Key     SortKey
	Reverse bool
}

// Sort holds the arguments of SORT.
type Sort struct {
	Search   // Charset is always set
	Criteria []SortCriterion
}

var sortKeys = map[string]SortKey{
	"ARRIVAL": SortArrival, "CC": SortCc, "DATE": SortDate, "FROM": SortFrom, "SIZE": SortSize, "SUBJECT": SortSubject, "TO": SortTo,
	"DISPLAYFROM": SortDisplayFrom, "DISPLAYTO": SortDisplayTo,
}

// maxCriteria bounds the criteria of one SORT: there are no more keys, and one that comes again decides nothing.
const maxCriteria = 20

// Sort takes the arguments of SORT behind the space.
//
//	sort          = ["RETURN" SP "(" [option *(SP option)] ")" SP] sort-criteria SP charset 1*(SP search-key)
//	sort-criteria = "(" sort-criterion *(SP sort-criterion) ")"
//	sort-criterion = ["REVERSE" SP] sort-key                            RFC 5256 §5, RFC 5267 §5
func (d *Decoder) Sort() (*Sort, error) {
	s := new(Sort)
	s.Charset = true
	if err := d.searchReturn(&s.Search); err != nil {
		return nil, err
	}
	if d.Peek() != '(' {
		return s, d.wanted("a list of sort keys")
	}
	if err := d.List(func() error { return d.sortCriterion(s) }); err != nil {
		return s, err
	}
	if len(s.Criteria) == 0 {
		return s, syntaxf("empty list of sort keys")
	}
	if err := d.SP(); err != nil {
		return s, err
	}
	if err := d.searchCharset(); err != nil {
		return s, err
	}
	return s, d.searchKeys(&s.Search)
}

func (d *Decoder) sortCriterion(s *Sort) error {
	c := SortCriterion{Reverse: d.AcceptWord("REVERSE")}
	if c.Reverse {
		if err := d.SP(); err != nil {
			return err
		}
	}
	name, err := d.Keyword()
	if err != nil {
		return d.wanted("a sort key")
	}
	if c.Key = sortKeys[name]; c.Key == 0 {
		return syntaxf("unknown sort key %s", excerpt([]byte(name)))
	}
	if len(s.Criteria) == maxCriteria {
		return syntaxf("more than %d sort keys", maxCriteria)
	}
	s.Criteria = append(s.Criteria, c)
	return nil
}

// ThreadAlgorithm is how THREAD finds out what belongs together.
type ThreadAlgorithm uint8

// The algorithms (RFC 5256 §3).
const (
	ThreadOrderedSubject ThreadAlgorithm = iota + 1
	ThreadReferences
)

// Thread holds the arguments of THREAD.
type Thread struct {
	Search    // Charset is always set
	Algorithm ThreadAlgorithm
}

// Thread takes the arguments of THREAD behind the space.
//
//	thread = algorithm SP charset 1*(SP search-key)                     RFC 5256 §5
func (d *Decoder) Thread() (*Thread, error) {
	t := new(Thread)
	t.Charset = true
	name, err := d.Keyword()
	if err != nil {
		return nil, d.wanted("a threading algorithm")
	}
	switch name {
	case "ORDEREDSUBJECT":
		t.Algorithm = ThreadOrderedSubject
	case "REFERENCES":
		t.Algorithm = ThreadReferences
	default:
		return nil, syntaxf("unknown threading algorithm %s", excerpt([]byte(name)))
	}
	if err := d.SP(); err != nil {
		return nil, err
	}
	if err := d.searchCharset(); err != nil {
		return nil, err
	}
	return t, d.searchKeys(&t.Search)
}
