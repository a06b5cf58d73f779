package filter

import (
	"bytes"
	"errors"
	"io"
	"math"
	"strconv"
	"strings"
)

// What a filter beside the switches found, for spamtest and virustest (RFC 5235). It is believed only where it stands above the first
// Received field: that one is our switch's, and a sender can write nothing above it.

// maxTop bounds what is read of a message to find its first Received field.
const maxTop = 16 << 10

// verdict gives sieve.Env's Spam (0 to 100; -1 not tested) and Virus (1 to 5; 0 not tested).
func (s *Settings) verdict(r io.ReaderAt) (spam, virus int) {
	spam = -1
	if s.SpamHeader == "" && s.VirusHeader == "" {
		return spam, 0
	}
	for size := int64(1 << 10); ; size *= 4 {
		b := make([]byte, min(size, maxTop))
		n, err := r.ReadAt(b, 0)
		if err != nil && !errors.Is(err, io.EOF) {
			return -1, 0
		}
		spam, virus, whole := s.read(b[:n])
		if whole || n < len(b) || size >= maxTop {
			return spam, virus
		}
	}
}

// read looks at the fields above the first Received. whole says that there was one, or the end of the header.
func (s *Settings) read(b []byte) (spam, virus int, whole bool) {
	spam = -1
	for len(b) > 0 {
		end := 0
		for { // a field with its folded lines
			i := bytes.IndexByte(b[end:], '\n')
			if i < 0 {
				return spam, virus, false
			}
			if end += i + 1; end >= len(b) || b[end] != ' ' && b[end] != '\t' {
				break
			}
		}
		name, value, ok := strings.Cut(string(b[:end]), ":")
		switch name = strings.TrimRight(name, " \t"); {
		case !ok || strings.EqualFold(name, "Received"):
			return spam, virus, true
		case s.SpamHeader != "" && strings.EqualFold(name, s.SpamHeader):
			if p, ok := percent(value, float64(s.SpamFull)); ok {
				spam = max(spam, p)
			}
		case s.VirusHeader != "" && strings.EqualFold(name, s.VirusHeader):
			if v := strings.ToLower(strings.TrimSpace(value)); v == "clean" || v == "no" || v == "none" {
				virus = max(virus, 1)
			} else if v != "" {
				virus = 5
			}
		}
		b = b[end:]
	}
	return spam, virus, false
}

// percent reads "number" or "... [number / limit] ...".
func percent(value string, full float64) (int, bool) {
	text := strings.TrimSpace(value)
	if _, in, ok := strings.Cut(text, "["); ok {
		in, _, _ = strings.Cut(in, "]")
		score, limit, ok := strings.Cut(in, "/")
		if !ok {
			return 0, false
		}
		f, err := strconv.ParseFloat(strings.TrimSpace(limit), 64)
		if err != nil || !(f > 0) {
			return 0, false
		}
		text, full = strings.TrimSpace(score), f
	}
	n, err := strconv.ParseFloat(text, 64)
	if err != nil || math.IsNaN(n) {
		return 0, false
	}
	return int(math.Round(100 * min(max(n/full, 0), 1))), true
}
