package dsn

import (
	"bytes"
	"io"
	"mime"
	"strings"
)

// original is what is sent back of the message, and what is said of it.
type original struct {
	data       []byte // CRLF line ends, no line too long, ends in CRLF
	full       bool   // the whole message; otherwise its header section
	utf8Header bool   // the header section holds octets above 127 (RFC 6532)
	messageID  string // "<...>", or empty
	subject    string // decoded
}

// readOriginal reads the header section, at most maxHeader of it, and the whole message where it is to be sent back.
func readOriginal(r *Report) (*original, error) {
	o := &original{}
	if r.Original == nil {
		return o, nil
	}
	limit := r.MaxFull
	if limit == 0 {
		limit = defaultMaxFull
	}
	failed := false
	for _, rc := range r.Recipients {
		failed = failed || rc.Action == Failed
	}
	// RFC 3461 §4.3: FULL is for failures; where RET is absent the choice is ours.
	whole := failed && !strings.EqualFold(r.Return, "HDRS") && r.Size <= limit
	want := r.Size
	if !whole {
		want = min(want, maxHeader)
	}
	raw := make([]byte, want)
	n, err := r.Original.ReadAt(raw, 0)
	if err != nil && !(err == io.EOF && int64(n) == want) {
		return nil, err
	}
	header := headerOf(raw)
	o.fields(header)
	o.utf8Header = !isASCII(string(header))
	if whole {
		if text, ok := crlf(raw, false); ok {
			o.data, o.full = text, true
			return o, nil
		}
	}
	o.data, _ = crlf(header, true)
	return o, nil
}

// headerOf is the header section: up to the empty line, or what was read of it.
func headerOf(raw []byte) []byte {
	for at := 0; at < len(raw); {
		end := bytes.IndexByte(raw[at:], '\n')
		if end < 0 {
			break
		}
		if len(bytes.TrimRight(raw[at:at+end], "\r")) == 0 {
			return raw[:at]
		}
		at += end + 1
	}
	if len(raw) >= maxHeader { // cut in the midst of a line
		if i := bytes.LastIndexByte(raw, '\n'); i >= 0 {
			return raw[:i+1]
		}
	}
	return raw
}

// crlf gives text proper line ends. ok is false when a line is too long or there is a NUL; with force such
// lines are cut.
func crlf(raw []byte, force bool) (out []byte, ok bool) {
	ok = true
	out = make([]byte, 0, len(raw)+len(raw)/32+2)
	for len(raw) > 0 {
		i := bytes.IndexAny(raw, "\r\n")
		line := raw
		if i >= 0 {
			line, raw = raw[:i], raw[i:]
			if len(raw) > 1 && raw[0] == '\r' && raw[1] == '\n' {
				raw = raw[1:]
			}
			raw = raw[1:]
		} else {
			raw = nil
		}
		if len(line) > maxLine || bytes.IndexByte(line, 0) >= 0 {
			if ok = false; !force {
				return nil, false
			}
			line = bytes.ReplaceAll([]byte(cut(string(line), maxLine)), []byte{0}, []byte("?"))
		}
		out = append(append(out, line...), "\r\n"...)
	}
	return out, ok
}

// fields picks Message-ID and Subject.
func (o *original) fields(header []byte) {
	for _, f := range unfold(header) {
		name, value, ok := strings.Cut(f, ":")
		if !ok {
			continue
		}
		value = strings.TrimSpace(value)
		switch strings.ToLower(strings.TrimSpace(name)) {
		case "message-id":
			if o.messageID == "" && isMessageID(value) {
				o.messageID = value
			}
		case "subject":
			if o.subject == "" {
				if d, err := new(mime.WordDecoder).DecodeHeader(value); err == nil {
					value = d
				}
				o.subject = cut(clean(value), 200)
			}
		}
	}
}

func unfold(header []byte) []string {
	var out []string
	for _, l := range strings.Split(string(header), "\n") {
		l = strings.TrimRight(l, "\r")
		if len(out) > 0 && l != "" && (l[0] == ' ' || l[0] == '\t') {
			out[len(out)-1] += l
		} else {
			out = append(out, l)
		}
	}
	return out
}

// isMessageID tells whether a value can stand in References as it is: "<", printable ASCII, ">".
func isMessageID(s string) bool {
	if len(s) < 3 || len(s) > 900 || s[0] != '<' || s[len(s)-1] != '>' {
		return false
	}
	for i := 1; i < len(s)-1; i++ {
		if c := s[i]; c <= ' ' || c >= 0x7f || c == '<' || c == '>' {
			return false
		}
	}
	return true
}
