package imapsession

import (
	"slices"
	"strconv"
	"strings"

	"shoal/daemons/internal/mailstore"
)

// splitFlags turns the flags of a command into system flags and keywords. Keywords are compared
// without regard to case (RFC 9051 §2.3.2); one that the mailbox knows already is spelt as it is there.
func (s *session) splitFlags(flags []string, known []string) (sys mailstore.Flags, words []string, err error) {
	for _, f := range flags {
		if f[0] != '\\' {
			word := f
			for _, k := range known {
				if strings.EqualFold(k, f) {
					word = k
					break
				}
			}
			if !slices.ContainsFunc(words, func(w string) bool { return strings.EqualFold(w, word) }) {
				words = append(words, word)
			}
			continue
		}
		bit := systemFlag(f)
		if bit == 0 {
			return 0, nil, badf("%s cannot be set by a client", f)
		}
		sys |= bit
	}
	if most := s.srv.limits().Keywords; len(words) > most {
		return 0, nil, no("LIMIT", "More than "+strconv.Itoa(most)+" keywords")
	}
	slices.Sort(words)
	return sys, words, nil
}

// systemFlag is the bit of a system flag in its canonical spelling, 0 for \Recent.
func systemFlag(name string) mailstore.Flags {
	for _, f := range flagNames {
		if f.name == name {
			return f.flag
		}
	}
	return 0
}

// applyFlags is what a change makes of the flags and the sorted keywords of a message.
func applyFlags(op mailstore.FlagOp, flags mailstore.Flags, words []string, sys mailstore.Flags, change []string) (mailstore.Flags, []string) {
	switch op {
	case mailstore.FlagsAdd:
		out := slices.Clone(words)
		for _, w := range change {
			if !slices.Contains(out, w) {
				out = append(out, w)
			}
		}
		slices.Sort(out)
		return flags | sys, out
	case mailstore.FlagsRemove:
		out := slices.DeleteFunc(slices.Clone(words), func(w string) bool { return slices.Contains(change, w) })
		return flags &^ sys, out
	}
	return sys, change
}

// sameWords compares sorted lists of keywords.
func sameWords(a, b []string) bool { return slices.Equal(a, b) }

// containsFold reports whether a word is in a list, without regard to case.
func containsFold(list []string, word string) bool {
	return slices.ContainsFunc(list, func(w string) bool { return strings.EqualFold(w, word) })
}

// hasKeyword reports whether a message has a keyword, without regard to case.
func hasKeyword(m *mailstore.Message, word string) bool {
	for _, k := range m.Keywords {
		if strings.EqualFold(k, word) {
			return true
		}
	}
	return false
}

func itoa(n uint64) string { return strconv.FormatUint(n, 10) }
