package imapwire

// Limits bounds what one command may hold. Zero fields take the value of [DefaultLimits].
type Limits struct {
	Line       int   // bytes in one line, without the literals that interrupt it
	Literal    int64 // bytes in one literal that is held in memory (mailbox names, search strings)
	Command    int64 // bytes in all lines and in-memory literals of one command
	Discard    int64 // bytes of an oversized line or refused literal that are read and dropped before giving up
	Nesting    int   // depth of parentheses
	SetRanges  int   // ranges in one sequence set
	SearchKeys int   // keys in one SEARCH
	FetchItems int   // data items in one FETCH, header fields in one section
	Flags      int   // flags in one list
}

// DefaultLimits are the bounds of a server that has not been told otherwise. RFC 9051 §4 and
// RFC 7162 §4 ask for at least 8192 bytes of line; clients with large UID sets send more.
func DefaultLimits() Limits {
	return Limits{
		Line:       64 << 10,
		Literal:    64 << 10,
		Command:    256 << 10,
		Discard:    64 << 20,
		Nesting:    32,
		SetRanges:  16384,
		SearchKeys: 1000,
		FetchItems: 256,
		Flags:      128,
	}
}

// WithDefaults returns l with the default in place of every zero field.
func (l Limits) WithDefaults() Limits {
	d := DefaultLimits()
	fillInt(&l.Line, d.Line)
	fillInt64(&l.Literal, d.Literal)
	fillInt64(&l.Command, d.Command)
	fillInt64(&l.Discard, d.Discard)
	fillInt(&l.Nesting, d.Nesting)
	fillInt(&l.SetRanges, d.SetRanges)
	fillInt(&l.SearchKeys, d.SearchKeys)
	fillInt(&l.FetchItems, d.FetchItems)
	fillInt(&l.Flags, d.Flags)
	return l
}

func fillInt(v *int, d int) {
	if *v <= 0 {
		*v = d
	}
}

func fillInt64(v *int64, d int64) {
	if *v <= 0 {
		*v = d
	}
}
