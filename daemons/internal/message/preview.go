package message

import (
	"html"
	"io"
	"strings"
	"unicode"
	"unicode/utf8"
)

// previewBytes is how much of a text is read to find the beginning of what it says.
const previewBytes = 16 << 10

// Preview is the beginning of the message's text for people to recognise it by (RFC 8970): at most
// max characters, in one line, from the first text/plain part or else the first text/html part
// that is no attachment. Lines that quote another message are left out when there are others. It is
// empty where the message has no text.
func Preview(r io.ReaderAt, root *Part, max int) (string, error) {
	p := previewPart(root, "plain")
	if p == nil {
		p = previewPart(root, "html")
	}
	if p == nil {
		return "", nil
	}
	raw, err := io.ReadAll(io.LimitReader(p.Text(r), previewBytes))
	if err != nil {
		return "", err
	}
	text := string(raw)
	if p.Subtype == "html" {
		text = htmlText(text)
	} else if own := withoutQuotes(text); strings.TrimSpace(own) != "" {
		text = own
	}
	return oneLine(text, max), nil
}

func previewPart(p *Part, subtype string) *Part {
	if p.Disposition != nil && p.Disposition.Value == "attachment" {
		return nil
	}
	if p.Type == "text" && p.Subtype == subtype {
		return p
	}
	for _, c := range p.Children {
		if found := previewPart(c, subtype); found != nil {
			return found
		}
	}
	return nil
}

func withoutQuotes(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		if !strings.HasPrefix(line, ">") {
			b.WriteString(line)
		}
	}
	return b.String()
}

// oneLine joins the words of a text with single spaces, up to max characters.
func oneLine(text string, max int) string {
	var b strings.Builder
	n, blank := 0, false
	for _, r := range text {
		switch {
		case unicode.IsSpace(r) || r == utf8.RuneError:
			blank = n > 0
			continue
		case unicode.IsControl(r) || unicode.Is(unicode.Cf, r):
			continue
		}
		if blank && n < max {
			b.WriteByte(' ')
			n++
		}
		if n >= max {
			break
		}
		blank = false
		b.WriteRune(r)
		n++
	}
	return strings.TrimRight(b.String(), " ")
}

// htmlText is the text of an HTML document, or of the beginning of one: without tags, comments and
// what is not shown.
func htmlText(doc string) string {
	var b strings.Builder
	for doc != "" {
		i := strings.IndexByte(doc, '<')
		if i < 0 {
			b.WriteString(doc)
			break
		}
		b.WriteString(doc[:i])
		doc = doc[i:]
		if strings.HasPrefix(doc, "<!--") {
			_, doc, _ = strings.Cut(doc, "-->")
			continue
		}
		tag, rest, _ := strings.Cut(doc[1:], ">")
		doc = rest
		name := tagName(tag)
		switch name {
		case "a", "b", "em", "font", "i", "span", "strong", "u":
			continue // inside a word, perhaps
		case "style", "script", "title", "head":
			if !strings.HasPrefix(tag, "/") {
				doc = afterFold(doc, "</"+name)
			}
		}
		b.WriteByte(' ')
	}
	return html.UnescapeString(b.String())
}

func tagName(tag string) string {
	tag = strings.TrimPrefix(tag, "/")
	if i := strings.IndexAny(tag, " \t\r\n/"); i >= 0 {
		tag = tag[:i]
	}
	return strings.ToLower(tag)
}

// afterFold is what follows the tag that begins with start, in any case of letters.
func afterFold(doc, start string) string {
	for {
		i := strings.IndexByte(doc, '<')
		if i < 0 {
			return ""
		}
		doc = doc[i:]
		if len(doc) >= len(start) && strings.EqualFold(doc[:len(start)], start) {
			_, rest, _ := strings.Cut(doc, ">")
			return rest
		}
		doc = doc[1:]
	}
}
