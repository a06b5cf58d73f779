package ldif

import (
	"encoding/base64"
	"io"
)

// width is where lines are folded.
const width = 76

// Append appends a record and an empty line. Values that are not plain text are written in base64, never raw: they
// may hold what a terminal or an editor obeys.
func (rec *Record) Append(dst []byte) []byte {
	dst = appendLine(dst, "dn", []byte(rec.DN))
	if rec.Kind != Content {
		dst = appendLine(dst, "changetype", []byte(rec.Kind.String()))
	}
	for _, a := range rec.Attributes {
		for _, v := range a.Values {
			dst = appendLine(dst, a.Name, v)
		}
	}
	for _, c := range rec.Changes {
		dst = appendLine(dst, c.Op.String(), []byte(c.Name))
		for _, v := range c.Values {
			dst = appendLine(dst, c.Name, v)
		}
		dst = append(dst, "-\n"...)
	}
	if rec.Kind == ModDN {
		dst = appendLine(dst, "newrdn", []byte(rec.NewRDN))
		old := "0"
		if rec.DeleteOld {
			old = "1"
		}
		dst = appendLine(dst, "deleteoldrdn", []byte(old))
		if rec.HasNewSuperior {
			dst = appendLine(dst, "newsuperior", []byte(rec.NewSuperior))
		}
	}
	return append(dst, '\n')
}

// Write writes a record and an empty line.
func (rec *Record) Write(w io.Writer) error {
	_, err := w.Write(rec.Append(nil))
	return err
}

// AppendComment appends a comment, each of its lines behind a "#".
func AppendComment(dst []byte, text string) []byte {
	dst = append(dst, "# "...)
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case c == '\n':
			dst = append(dst, "\n# "...)
		case c < ' ' || c == 0x7f:
			dst = append(dst, '.')
		default:
			dst = append(dst, c)
		}
	}
	return append(dst, '\n')
}

// appendLine appends "name: value", folded.
func appendLine(dst []byte, name string, value []byte) []byte {
	line := append([]byte(name), ':')
	switch {
	case len(value) == 0:
	case safe(value):
		line = append(append(line, ' '), value...)
	default:
		line = append(line, ": "...)
		line = base64.StdEncoding.AppendEncode(line, value)
	}
	for first := true; len(line) > 0; first = false {
		n := width
		if !first {
			dst = append(dst, ' ')
			n--
		}
		n = min(n, len(line))
		dst = append(append(dst, line[:n]...), '\n')
		line = line[n:]
	}
	return dst
}

// safe is SAFE-STRING of RFC 2849, without DEL and without a space at the end.
func safe(v []byte) bool {
	if v[0] == ' ' || v[0] == ':' || v[0] == '<' || v[len(v)-1] == ' ' {
		return false
	}
	for _, c := range v {
		if c < ' ' || c >= 0x7f {
			return false
		}
	}
	return true
}
