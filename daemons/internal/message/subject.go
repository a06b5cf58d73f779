package message

import "strings"

// BaseSubject is the base subject of RFC 5256 §2.1 of an undecoded Subject value; reply says
// whether something was removed that marks a reply or a forward.
//
//	subject         = *subj-leader [subj-middle] *subj-trailer
//	subj-refwd      = ("re" / ("fw" ["d"])) *WSP [subj-blob] ":"
//	subj-blob       = "[" *BLOBCHAR "]" *WSP            BLOBCHAR: anything but brackets
//	subj-fwd        = "[fwd:" subject "]"
//	subj-leader     = (*subj-blob subj-refwd) / WSP
//	subj-trailer    = "(fwd)" / WSP
//
// The steps of the standard are numbered below. The result is not in comparison form: see Casemap.
func BaseSubject(value string) (base string, reply bool) {
	s := strings.Join(strings.FieldsFunc(DecodeHeader(value), isBlankRune), " ") // (1)
	for {
		for { // (2)
			if t, ok := cutSuffixFold(s, "(fwd)"); ok {
				s, reply = t, true
			} else if t := strings.TrimRight(s, " "); t != s {
				s = t
			} else {
				break
			}
		}
		for { // (3) to (5)
			if t, ok := cutLeader(s); ok {
				s, reply = t, true
			} else if t, ok := cutBlob(s); ok && t != "" {
				s = t
			} else if t := strings.TrimLeft(s, " "); t != s {
				s = t
			} else {
				break
			}
		}
		if len(s) < 6 || !strings.EqualFold(s[:5], "[fwd:") || s[len(s)-1] != ']' { // (6)
			return s, reply
		}
		s, reply = s[5:len(s)-1], true
	}
}

func isBlankRune(r rune) bool { return r == ' ' || r == '\t' || r == '\r' || r == '\n' }

func cutSuffixFold(s, suffix string) (string, bool) {
	if n := len(s) - len(suffix); n >= 0 && strings.EqualFold(s[n:], suffix) {
		return s[:n], true
	}
	return s, false
}

func cutBlob(s string) (string, bool) {
	if s == "" || s[0] != '[' {
		return s, false
	}
	end := strings.IndexAny(s[1:], "[]")
	if end < 0 || s[1+end] != ']' {
		return s, false
	}
	return strings.TrimLeft(s[end+2:], " "), true
}

// cutLeader cuts *subj-blob subj-refwd off.
func cutLeader(s string) (string, bool) {
	t := s
	for {
		next, ok := cutBlob(t)
		if !ok {
			break
		}
		t = next
	}
	switch {
	case len(t) >= 3 && strings.EqualFold(t[:3], "fwd"):
		t = t[3:]
	case len(t) >= 2 && (strings.EqualFold(t[:2], "re") || strings.EqualFold(t[:2], "fw")):
		t = t[2:]
	default:
		return s, false
	}
	t = strings.TrimLeft(t, " ")
	t, _ = cutBlob(t)
	if t == "" || t[0] != ':' {
		return s, false
	}
	return t[1:], true
}

// MessageIDs are the message identifiers in a References, In-Reply-To or Message-ID value,
// without their angle brackets and quoting: RFC 5322 §3.6.4. Other text, and what has no "@", is left
// out, as THREAD asks (RFC 5256 §3).
//
//	msg-id = "<" id-left "@" id-right ">"       id-left may be a quoted string
func MessageIDs(value string) (ids []string) {
	for len(ids) < maxReferences {
		start := strings.IndexByte(value, '<')
		if start < 0 {
			break
		}
		value = value[start+1:]
		end := strings.IndexByte(value, '>')
		if end < 0 {
			break
		}
		if again := strings.LastIndexByte(value[:end], '<'); again >= 0 {
			value, end = value[again+1:], end-again-1
		}
		if id := unquoteID(value[:end]); strings.Contains(id, "@") {
			ids = append(ids, id)
		}
		value = value[end+1:]
	}
	return ids
}

const maxReferences = 1000

// unquoteID brings the forms that mean the same identifier together.
func unquoteID(id string) string {
	if !strings.ContainsAny(id, "\" \t\\(") {
		return id
	}
	var b strings.Builder
	for id = skipCFWS(id); id != ""; id = skipCFWS(id) {
		if id[0] == '"' {
			var text string
			text, id = cutQuoted(id)
			b.WriteString(text)
			continue
		}
		b.WriteByte(id[0])
		id = id[1:]
	}
	return b.String()
}
