package message

import (
	"io"
	"strings"
	"unicode/utf8"

	"golang.org/x/text/encoding"
	"golang.org/x/text/encoding/charmap"
	"golang.org/x/text/encoding/htmlindex"
	"golang.org/x/text/encoding/ianaindex"
	"golang.org/x/text/encoding/simplifiedchinese"
	"golang.org/x/text/transform"
)

// charsetDecoder is what turns text of a charset into UTF-8. Text that is said to be ASCII or UTF-8, or
// of which nothing known is said, is taken for UTF-8, and each byte that is none for Windows-1252: this
// is what such text is in practice.
func charsetDecoder(name string) transform.Transformer {
	enc := charsetEncoding(name)
	if enc == nil {
		return &lenientUTF8{}
	}
	return enc.NewDecoder()
}

func charsetEncoding(name string) encoding.Encoding {
	name = strings.ToLower(strings.Trim(name, " \t\"'"))
	switch name {
	case "", "us-ascii", "ascii", "utf-8", "utf8", "unknown-8bit", "x-unknown", "binary", "default":
		return nil
	case "iso-8859-1", "latin1": // what is called so is often Windows-1252, which has it inside
		return charmap.Windows1252
	case "gb2312", "gbk", "x-gbk", "cp936": // subsets
		return simplifiedchinese.GB18030
	}
	if enc, err := ianaindex.MIME.Encoding(name); err == nil && enc != nil {
		return enc
	}
	if enc, err := htmlindex.Get(name); err == nil && enc != nil {
		if s, err := htmlindex.Name(enc); err == nil && (s == "utf-8" || s == "replacement") {
			return nil
		}
		return enc
	}
	if cp, ok := strings.CutPrefix(name, "cp"); ok {
		if enc, err := htmlindex.Get("windows-" + cp); err == nil {
			return enc
		}
	}
	return nil
}

// decodeCharset turns b, all of a text, into UTF-8.
func decodeCharset(charset string, b []byte) string {
	enc := charsetEncoding(charset)
	if enc == nil && utf8.Valid(b) {
		return string(b)
	}
	out, _, err := transform.Bytes(charsetDecoder(charset), b)
	if err != nil {
		out, _, _ = transform.Bytes(&lenientUTF8{}, b)
	}
	return string(out)
}

// Text gives the content of a text part decoded from its transfer encoding and its charset to
// UTF-8, as a stream. It never fails on the content; it fails when r does.
func (p *Part) Text(r io.ReaderAt) io.Reader {
	src := &source{r: io.NewSectionReader(r, p.BodyOffset, p.BodySize())}
	text := decoded(src, decodingOf(p.Encoding))
	return &textReader{src: src, text: transform.NewReader(text, charsetDecoder(p.Param("charset")))}
}

// source remembers the error of a reader, to tell it from that of a decoder above it.
type source struct {
	r   io.Reader
	err error
}

func (s *source) Read(b []byte) (n int, err error) {
	n, err = s.r.Read(b)
	if err != nil && err != io.EOF {
		s.err = err
	}
	return n, err
}

// textReader takes an error of the decoder for the end of the text.
type textReader struct {
	src  *source
	text io.Reader
}

func (t *textReader) Read(b []byte) (int, error) {
	n, err := t.text.Read(b)
	if err != nil && err != io.EOF {
		if err = t.src.err; err == nil {
			err = io.EOF
		}
	}
	return n, err
}

// lenientUTF8 passes UTF-8 and takes bytes that are none for Windows-1252.
type lenientUTF8 struct{ transform.NopResetter }

func (*lenientUTF8) Transform(dst, src []byte, atEOF bool) (nDst, nSrc int, err error) {
	for nSrc < len(src) {
		if src[nSrc] < utf8.RuneSelf {
			if nDst == len(dst) {
				return nDst, nSrc, transform.ErrShortDst
			}
			dst[nDst] = src[nSrc]
			nDst++
			nSrc++
			continue
		}
		r, size := utf8.DecodeRune(src[nSrc:])
		if r == utf8.RuneError && size <= 1 {
			if !atEOF && !utf8.FullRune(src[nSrc:]) {
				return nDst, nSrc, transform.ErrShortSrc
			}
			r, size = charmap.Windows1252.DecodeByte(src[nSrc]), 1
		}
		if nDst+utf8.RuneLen(r) > len(dst) {
			return nDst, nSrc, transform.ErrShortDst
		}
		nDst += utf8.EncodeRune(dst[nDst:], r)
		nSrc += size
	}
	return nDst, nSrc, nil
}
