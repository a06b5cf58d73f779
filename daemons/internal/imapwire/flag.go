package imapwire

import "strings"

// Flag takes one flag: "\" and a system flag, or a keyword.
//
//	flag         = "\Answered" / "\Flagged" / "\Deleted" / "\Seen" / "\Draft" / flag-keyword / flag-extension
//	flag-keyword = atom
//
// System flags come back in their canonical spelling, \Recent included: what a client may set is
// for the session to decide.
func (d *Decoder) Flag() (string, error) {
	if !d.Accept('\\') {
		atom, err := d.atomBytes()
		if err != nil {
			return "", d.wanted("a flag")
		}
		if len(atom) > maxKeyword {
			return "", syntaxf("keyword is longer than %d bytes", maxKeyword)
		}
		return string(atom), nil
	}
	atom, err := d.atomBytes()
	if err != nil {
		return "", d.wanted("a flag")
	}
	for _, f := range systemFlags {
		if strings.EqualFold(f[1:], string(atom)) {
			return f, nil
		}
	}
	return "", syntaxf("unknown system flag \\%s", excerpt(atom))
}

const maxKeyword = 100

var systemFlags = []string{`\Seen`, `\Answered`, `\Flagged`, `\Deleted`, `\Draft`, `\Recent`}

// FlagList takes a parenthesized list of flags.
func (d *Decoder) FlagList() ([]string, error) {
	flags := make([]string, 0, 4)
	err := d.List(func() error {
		f, err := d.Flag()
		if err != nil {
			return err
		}
		if len(flags) == d.lim.Flags {
			return syntaxf("more than %d flags", d.lim.Flags)
		}
		flags = append(flags, f)
		return nil
	})
	return flags, err
}

// StoreFlags takes the flags of STORE: a list, or flags separated by spaces.
func (d *Decoder) StoreFlags() ([]string, error) {
	if d.Peek() == '(' {
		return d.FlagList()
	}
	var flags []string
	for {
		f, err := d.Flag()
		if err != nil {
			return nil, err
		}
		if len(flags) == d.lim.Flags {
			return nil, syntaxf("more than %d flags", d.lim.Flags)
		}
		flags = append(flags, f)
		if d.AtEnd() {
			return flags, nil
		}
		if err := d.SP(); err != nil {
			return nil, err
		}
	}
}
