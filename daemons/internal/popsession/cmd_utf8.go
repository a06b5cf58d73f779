package popsession

import (
	"context"
	"strings"
)

// cmdUtf8 is UTF8 of RFC 6856 §2: from now on headers are sent as they are stored.
func cmdUtf8(s *session, _ context.Context, args string) error {
	if err := noArguments(args); err != nil {
		return err
	}
	s.utf8 = true
	return s.ok("UTF8 enabled")
}

// languages are those of the texts of answers: one, which is also what RFC 2277 §4.5 calls i-default.
var languages = []struct{ tag, name string }{{"en", "English"}, {"i-default", "English (default)"}}

// cmdLang is LANG of RFC 6856 §3: it lists the languages, or chooses one for what follows; "*" leaves the choice to the server.
//
//	"LANG" [SP language-range]
func cmdLang(s *session, _ context.Context, args string) error {
	if args == "" {
		s.line("+OK Languages follow")
		for _, l := range languages {
			s.line(l.tag + " " + l.name)
		}
		s.line(".")
		return nil
	}
	for _, l := range languages {
		// RFC 4647 §3.4: a range is cut down from its end until it fits.
		if args == "*" || strings.EqualFold(args, l.tag) || len(args) > len(l.tag) && args[len(l.tag)] == '-' && strings.EqualFold(args[:len(l.tag)], l.tag) {
			return s.ok("%s Answers are in %s", l.tag, l.name)
		}
	}
	return fail("", "That language is not available")
}
