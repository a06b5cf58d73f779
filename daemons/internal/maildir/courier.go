package maildir

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

const (
	courierUIDs     = "courierimapuiddb"
	courierKeywords = "courierimapkeywords"
	courierPOP      = "courierpop3dsizelist"
)

// parseCourierKeywords reads courierimapkeywords/:list.
//
//	list = *( keyword LF ) LF *( base ":" index *(SP index) LF )
func parseCourierKeywords(b []byte) map[string][]string {
	head, rest, _ := strings.Cut(string(b), "\n\n")
	names := strings.Split(strings.TrimSuffix(head, "\n"), "\n")
	out := map[string][]string{}
	for line := range strings.SplitSeq(rest, "\n") {
		i := strings.LastIndexByte(line, ':')
		if i <= 0 {
			continue
		}
		var kw []string
		for _, d := range strings.Fields(line[i+1:]) {
			if n, err := strconv.Atoi(d); err == nil && n >= 0 && n < len(names) && validKeyword(names[n]) {
				kw = append(kw, names[n])
			}
		}
		out[line[:i]] = kw
	}
	return out
}

// keywordUpdate splits the name of a file in courierimapkeywords that has the keywords of one message, one a line: "<base>", or
// ".<n>.<base>" where a larger n is newer and <base> alone newest of all.
func keywordUpdate(name string) (base string, age int64, ok bool) {
	if name == "" || name[0] == ':' {
		return "", 0, false
	}
	if name[0] != '.' {
		return name, 1<<63 - 1, true
	}
	digits, base, found := strings.Cut(name[1:], ".")
	age, err := strconv.ParseInt(digits, 10, 63)
	return base, age, found && err == nil && age >= 0 && base != ""
}

// parseCourierPOP reads courierpop3dsizelist: the unique-ids by base.
//
//	list  = [ "/" version SP next [ SP uidvalidity ] LF ] *( name SP size [ SP uid [ ":" uidvalidity [ ":" utf8 ] ] ] LF )
//
// The unique-id is UID<uid>-<uidvalidity>, UID<uid> where there is no uidvalidity, and the base itself where there is no uid.
func parseCourierPOP(b []byte) map[string]string {
	out := map[string]string{}
	for line := range strings.SplitSeq(string(b), "\n") {
		f := strings.Split(line, " ")
		if len(f) < 2 || f[0] == "" || f[0][0] == '/' {
			continue
		}
		base, _, _ := strings.Cut(f[0], ":")
		uid, validity := "0", "0"
		if len(f) > 2 {
			p := strings.Split(f[2], ":")
			if uid = p[0]; len(p) > 1 {
				validity = p[1]
			}
		}
		if !isNumber(uid) || !isNumber(validity) {
			continue
		}
		switch {
		case uid == "0":
			out[base] = escapeUIDL(base)
		case validity == "0":
			out[base] = "UID" + uid
		default:
			out[base] = "UID" + uid + "-" + validity
		}
	}
	return out
}

// escapeUIDL writes a file name as a unique-id: "+" and two hex digits for what may not stand there, and for ' " +.
func escapeUIDL(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if c := s[i]; c < 0x21 || c > 0x7e || c == '\'' || c == '"' || c == '+' {
			fmt.Fprintf(&b, "+%02X", c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}

func isNumber(s string) bool {
	_, err := strconv.ParseUint(s, 10, 32)
	return err == nil
}

// parseCourierSubscribed reads courierimapsubscribed: *( "INBOX" *( "." level ) LF ).
func parseCourierSubscribed(b []byte) (out [][]string) {
	for line := range strings.SplitSeq(string(b), "\n") {
		line = strings.TrimSuffix(line, "\r")
		switch rest, below := strings.CutPrefix(line, "INBOX."); {
		case line == "INBOX":
			out = append(out, []string{line})
		case below && rest != "":
			out = append(out, strings.Split(rest, "."))
		}
	}
	return out
}

// readCourier reads the lists of a folder.
func (f *Folder) readCourier(m *Mailbox) ([]uidEntry, func(string, string) []string, error) {
	path := filepath.Join(f.Dir, courierUIDs)
	b, err := readFile(path, maxList)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, nil, err
	}
	var uids []uidEntry
	if err == nil {
		h, list, err := parseUIDList(b)
		if err != nil {
			return nil, nil, fmt.Errorf("%s: %w", path, err)
		}
		m.UIDValidity, m.UIDNext, uids = h.validity, h.next, list
	}
	if b, err = readFile(filepath.Join(f.Dir, courierPOP), maxList); err == nil {
		ids := parseCourierPOP(b)
		for i := range uids {
			uids[i].uidl = ids[uids[i].base]
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, nil, err
	}
	keywords, err := f.courierKeywords()
	if err != nil {
		return nil, nil, err
	}
	return uids, func(base, _ string) []string { return keywords[base] }, nil
}

// courierKeywords gives the keywords of a folder's messages by base.
func (f *Folder) courierKeywords() (map[string][]string, error) {
	dir := filepath.Join(f.Dir, courierKeywords)
	b, err := readFile(filepath.Join(dir, ":list"), maxList)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	out := parseCourierKeywords(b)
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	newest := map[string]int64{}
	for _, e := range entries {
		base, age, ok := keywordUpdate(e.Name())
		if have, known := newest[base]; !ok || known && have >= age {
			continue
		}
		b, err := readFile(filepath.Join(dir, e.Name()), 1<<20)
		if errors.Is(err, fs.ErrNotExist) {
			continue // taken into the list meanwhile
		}
		if err != nil {
			return nil, err
		}
		var kw []string
		for line := range strings.SplitSeq(string(b), "\n") {
			if validKeyword(line) {
				kw = append(kw, line)
			}
		}
		newest[base], out[base] = age, kw
	}
	return out, nil
}
