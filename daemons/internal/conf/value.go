package conf

import (
	"fmt"
	"math"
	"reflect"
	"strconv"
	"strings"
	"time"
)

// Size is a number of bytes. In a file it is a text with a unit: "25 MB", "512 KiB", "4096 B"; units
// are B, KB, MB, GB, TB (powers of 1000) and KiB, MiB, GiB, TiB (powers of 1024).
type Size int64

var sizeType = reflect.TypeFor[Size]()

var sizeUnits = []struct {
	name  string
	bytes int64
}{
	{"TiB", 1 << 40}, {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10},
	{"TB", 1e12}, {"GB", 1e9}, {"MB", 1e6}, {"KB", 1e3}, {"B", 1},
}

// ParseSize reads a size.
//
//	size = number [ SP ] unit        number = digits [ "." digits ]
func ParseSize(s string) (Size, error) {
	text := strings.TrimSpace(s)
	for _, u := range sizeUnits {
		if len(text) < len(u.name) || !strings.EqualFold(text[len(text)-len(u.name):], u.name) {
			continue
		}
		digits := strings.TrimSpace(text[:len(text)-len(u.name)])
		if digits == "" || strings.Trim(digits, "0123456789.") != "" {
			break
		}
		if n, err := strconv.ParseInt(digits, 10, 64); err == nil {
			if n > math.MaxInt64/u.bytes {
				return 0, fmt.Errorf("%q is more than can be counted", s)
			}
			return Size(n * u.bytes), nil
		}
		n, err := strconv.ParseFloat(digits, 64)
		if err != nil {
			break
		}
		if n *= float64(u.bytes); n >= math.MaxInt64 {
			return 0, fmt.Errorf("%q is more than can be counted", s)
		}
		return Size(math.Round(n)), nil
	}
	if text != "" && strings.Trim(text, "0123456789.") == "" {
		return 0, fmt.Errorf("%q has no unit: write for example \"%s MB\" or \"%s B\"", s, text, text)
	}
	return 0, fmt.Errorf("%q is not a size: write a number and a unit, for example \"25 MB\" or \"512 KiB\"", s)
}

// UnmarshalText implements encoding.TextUnmarshaler.
func (s *Size) UnmarshalText(text []byte) error {
	v, err := ParseSize(string(text))
	if err == nil {
		*s = v
	}
	return err
}

// String is the exact form with the smallest number: "25 MB", "1 KiB", "1025 B".
func (s Size) String() string {
	number, unit := int64(s), "B"
	for _, u := range sizeUnits {
		if n := int64(s) / u.bytes; n > 0 && int64(s)%u.bytes == 0 && n < number {
			number, unit = n, u.name
		}
	}
	return fmt.Sprintf("%d %s", number, unit)
}

// ParseDuration reads a duration as time.ParseDuration does, and days: "7d", "1d12h". It is never
// negative.
func ParseDuration(s string) (time.Duration, error) {
	text := strings.TrimSpace(s)
	var days time.Duration
	if head, tail, ok := strings.Cut(text, "d"); ok && head != "" && strings.Trim(head, "0123456789") == "" {
		n, err := strconv.ParseInt(head, 10, 64)
		if err != nil || n > math.MaxInt64/int64(24*time.Hour) {
			return 0, fmt.Errorf("%q is more than can be counted", s)
		}
		days = time.Duration(n) * 24 * time.Hour
		if text = tail; text == "" {
			return days, nil
		}
	}
	d, err := time.ParseDuration(text)
	switch {
	case err != nil && text != "" && strings.Trim(text, "0123456789.") == "":
		return 0, fmt.Errorf("%q has no unit: write for example \"%ss\" or \"%sm\"", s, text, text)
	case err != nil:
		return 0, fmt.Errorf("%q is not a duration: write for example \"30s\", \"5m\", \"12h\" or \"7d\"", s)
	case d < 0:
		return 0, fmt.Errorf("%q is negative", s)
	case days+d < days:
		return 0, fmt.Errorf("%q is more than can be counted", s)
	}
	return days + d, nil
}
