package message

import (
	"encoding/base64"
	"encoding/binary"
	"io"
	"strings"
	"unicode/utf8"
)

// Downgraded gives a view of the size bytes behind r for a reader that has not said that it takes UTF-8 in headers (RFC 6856 §4; the
// simplified downgrading of RFC 6858 §2): r itself where no header field has any. Bodies stay as they are, and so do fields that are not
// UTF-8, whose character set nobody knows.
//
//	address fields     a name is an encoded word; an address that is not ASCII is replaced by one that nobody has, and stands in the
//	                   name if there was none
//	other structured   each character that is not ASCII is "?"
//	the rest           encoded words (RFC 2047)
//
// Errors are those of r.
func Downgraded(r io.ReaderAt, size int64) (io.ReaderAt, int64, error) {
	plain, err := allASCII(r, size)
	if err != nil || plain {
		return r, size, err
	}
	root, err := Parse(r, size, Limits{})
	if err != nil {
		return nil, 0, err
	}
	b := viewBuilder{r: r}
	root.Walk(func(_ []int, p *Part) bool {
		b.downgrade(p)
		return b.err == nil
	})
	if b.err != nil {
		return nil, 0, b.err
	}
	if len(b.edits) == 0 {
		return r, size, nil
	}
	t := b.view(size)
	return t, t.size, nil
}

// allASCII says whether all bytes are.
func allASCII(r io.ReaderAt, size int64) (bool, error) {
	if m, ok := r.(interface{ Bytes() []byte }); ok && m.Bytes() != nil {
		return asciiOnly(m.Bytes()), nil
	}
	buf := scanBuffers.Get().(*[]byte)
	defer scanBuffers.Put(buf)
	for at := int64(0); at < size; {
		b := (*buf)[:min(int64(len(*buf)), size-at)]
		if n, err := r.ReadAt(b, at); n < len(b) {
			return false, unexpected(err)
		}
		if !asciiOnly(b) {
			return false, nil
		}
		at += int64(len(b))
	}
	return true, nil
}

func asciiOnly(b []byte) bool {
	const high = 0x8080808080808080
	for ; len(b) >= 16; b = b[16:] {
		if (binary.LittleEndian.Uint64(b)|binary.LittleEndian.Uint64(b[8:]))&high != 0 {
			return false
		}
	}
	for _, c := range b {
		if c >= 0x80 {
			return false
		}
	}
	return true
}

// structured are the fields other than those of addresses that have no room for encoded words.
var structured = map[string]bool{
	"return-path": true, "delivered-to": true, "received": true, "date": true, "message-id": true, "in-reply-to": true, "references": true,
	"resent-date": true, "resent-message-id": true, "mime-version": true, "content-type": true, "content-disposition": true,
	"content-transfer-encoding": true, "content-id": true, "content-location": true, "dkim-signature": true, "list-id": true,
	"list-unsubscribe": true, "list-post": true, "list-help": true, "authentication-results": true,
}

var addressFields = map[string]bool{
	"from": true, "sender": true, "reply-to": true, "to": true, "cc": true, "bcc": true, "resent-from": true, "resent-sender": true,
	"resent-to": true, "resent-cc": true, "resent-bcc": true, "resent-reply-to": true, "disposition-notification-to": true,
}

// downgrade replaces the fields of one header that hold UTF-8.
func (b *viewBuilder) downgrade(p *Part) {
	if p.HeaderSize() == 0 || p.HeaderSize() > mostHeader {
		return
	}
	h := make([]byte, p.HeaderSize())
	if n, err := b.r.ReadAt(h, p.HeaderOffset); n < len(h) {
		b.err = unexpected(err)
		return
	}
	if asciiOnly(h) {
		return
	}
	for at := p.HeaderOffset; len(h) > 0; {
		name, whole, rest := nextField(h)
		if len(whole) == 0 {
			whole, rest = h, nil
		}
		if !asciiOnly(whole) && utf8.Valid(whole) {
			b.edits = append(b.edits, piece{from: at, to: at + int64(len(whole)), form: asLiteral, literal: downgradeField(string(name), string(whole))})
		}
		at += int64(len(whole))
		h = rest
	}
}

func downgradeField(name, whole string) string {
	_, value, ok := strings.Cut(whole, ":")
	key := strings.ToLower(strings.TrimSpace(name))
	if !ok || name == "" || !asciiOnly([]byte(name)) || structured[key] {
		return strings.Map(func(r rune) rune {
			if r >= utf8.RuneSelf {
				return '?'
			}
			return r
		}, whole)
	}
	value = strings.TrimSpace(strings.NewReplacer("\r\n", "", "\n", "").Replace(value))
	if addressFields[key] {
		return strings.TrimSpace(name) + ": " + downgradeAddresses(value) + "\r\n"
	}
	return strings.TrimSpace(name) + ": " + encodedWords(value) + "\r\n"
}

// nobody takes the place of an address that is not ASCII (RFC 6858 §2).
const nobody = "<invalid@internationalized.invalid>"

func downgradeAddresses(value string) string {
	list := ParseAddresses(value)
	if len(list) == 0 {
		return encodedWords(value)
	}
	var out []string
	for _, a := range list {
		address := a.Mailbox + "@" + a.Host
		switch {
		case a.Host == "": // the beginning or the end of a group: its members stand alone
			continue
		case !asciiOnly([]byte(address)):
			if a.Name == "" {
				a.Name = address
			}
			address = nobody
		default:
			address = "<" + quotedLocal(a.Mailbox) + "@" + a.Host + ">"
		}
		if name := DecodeHeader(a.Name); name != "" {
			address = encodedWords(name) + " " + address
		}
		out = append(out, address)
	}
	if len(out) == 0 {
		return "undisclosed-recipients:;"
	}
	return strings.Join(out, ",\r\n ")
}

// quotedLocal writes a local part, in quotes where it needs them.
func quotedLocal(s string) string {
	if s != "" && !strings.ContainsAny(s, " \t\"\\(),:;<>@[]") && s[0] != '.' && s[len(s)-1] != '.' && !strings.Contains(s, "..") {
		return s
	}
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
}

// encodedWords writes a text as encoded words of at most 75 characters, one on each line.
func encodedWords(s string) string {
	var out []string
	for len(s) > 0 {
		n := 0
		for n < len(s) {
			_, size := utf8.DecodeRuneInString(s[n:])
			if n+size > 45 {
				break
			}
			n += size
		}
		out = append(out, "=?utf-8?B?"+base64.StdEncoding.EncodeToString([]byte(s[:n]))+"?=")
		s = s[n:]
	}
	return strings.Join(out, "\r\n ")
}
