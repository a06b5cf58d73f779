package sharing

import (
	"fmt"
	"math/bits"
	"strings"
)

// Rights is a set of rights (RFC 4314 §2.1): bit n is the n-th letter of the alphabet.
type Rights uint32

// The standard rights.
const (
	Lookup     Rights = 1 << ('l' - 'a') // LIST, SUBSCRIBE
	Read       Rights = 1 << ('r' - 'a') // SELECT, STATUS
	Seen       Rights = 1 << ('s' - 'a') // \Seen
	Write      Rights = 1 << ('w' - 'a') // flags other than \Seen and \Deleted
	Insert     Rights = 1 << ('i' - 'a') // APPEND, COPY into it
	Post       Rights = 1 << ('p' - 'a') // mail to the address of the mailbox
	Create     Rights = 1 << ('k' - 'a') // mailboxes below it
	Remove     Rights = 1 << ('x' - 'a') // DELETE, RENAME
	Delete     Rights = 1 << ('t' - 'a') // \Deleted
	Expunge    Rights = 1 << ('e' - 'a') // EXPUNGE
	Administer Rights = 1 << 0           // a: the access list

	All = Lookup | Read | Seen | Write | Insert | Post | Create | Remove | Delete | Expunge | Administer
)

// Letters are the standard rights in the order in which they are written.
const Letters = "lrswipkxtea"

// The virtual rights of RFC 2086 (RFC 4314 §2.1.1): "c" stands for k and x, "d" for t and e.
const (
	virtualCreate = Create | Remove
	virtualDelete = Delete | Expunge
)

// RightError names a letter that is no right.
type RightError struct{ Letter rune }

func (e *RightError) Error() string { return fmt.Sprintf("there is no right %q", e.Letter) }

// ParseRights reads rights as a client writes them. *RightError.
func ParseRights(s string) (r Rights, err error) {
	for _, c := range s {
		switch {
		case c == 'c':
			r |= virtualCreate
		case c == 'd':
			r |= virtualDelete
		case c >= 'a' && c <= 'z' && All&(1<<(c-'a')) != 0:
			r |= 1 << (c - 'a')
		default:
			return 0, &RightError{c}
		}
	}
	return r, nil
}

// String gives the rights as clients read them, with the virtual ones: "lrswipkxteacd".
func (r Rights) String() string {
	var b strings.Builder
	for i := range len(Letters) {
		if r&(1<<(Letters[i]-'a')) != 0 {
			b.WriteByte(Letters[i])
		}
	}
	if r&virtualCreate != 0 {
		b.WriteByte('c')
	}
	if r&virtualDelete != 0 {
		b.WriteByte('d')
	}
	return b.String()
}

// Has reports whether all of want are among the rights.
func (r Rights) Has(want Rights) bool { return r&want == want }

// Any reports whether one of want is among the rights.
func (r Rights) Any(want Rights) bool { return r&want != 0 }

// stored gives the rights as they are kept: letters in alphabetical order, those of later versions as well.
func (r Rights) stored() string {
	b := make([]byte, 0, bits.OnesCount32(uint32(r)))
	for i := range 26 {
		if r&(1<<i) != 0 {
			b = append(b, byte('a'+i))
		}
	}
	return string(b)
}

// storedRights reads what is kept; what is no letter is passed over.
func storedRights(s string) (r Rights) {
	for i := range len(s) {
		if c := s[i]; c >= 'a' && c <= 'z' {
			r |= 1 << (c - 'a')
		}
	}
	return r
}
