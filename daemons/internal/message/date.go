package message

import (
	"strings"
	"time"
)

// Dates, read tolerantly:
//
//	date-time = [day-name ","] day month year time [zone]       RFC 5322 §3.3, §4.3
//	          / day-name month day time [zone] year             asctime, C programs of old
//	          / year "-" month "-" day ("T" / WSP) time [zone]  ISO 8601
//	time      = hour (":" / ".") minute [(":" / ".") second ["." fraction]]
//	zone      = ("+" / "-") 4DIGIT / name
//
// Comments may stand anywhere, hyphens between day, month and year. A year of two digits is 19xx from
// 50 on, else 20xx; one of three digits counts from 1900. Zones that are not known count as UTC.

// ParseDate reads the value of a Date field in the forms that occur, obsolete ones included. The
// result has the zone that the field names, so that its date is the date as it is written.
func ParseDate(value string) (t time.Time, ok bool) {
	if d, ok := usualDate(value); ok {
		return d.time()
	}
	return anyDate(value)
}

// usualDate reads the form that nearly all mail has, "[Mon, ]2 Jan 2006 15:04:05 -0700", and nothing else.
func usualDate(s string) (d dateReader, ok bool) {
	if len(s) > 5 && s[3] == ',' && s[4] == ' ' && !isDigit(s[0]) && !isDigit(s[1]) && !isDigit(s[2]) {
		switch s[:3] {
		case "Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun":
			s = s[5:]
		}
	}
	var b [26]byte
	switch len(s) {
	case 25:
		b[0] = '0'
		copy(b[1:], s)
	case 26:
		copy(b[:], s)
	default:
		return d, false
	}
	return d, d.usual(&b)
}

// usual fills d from a date with a day of two digits.
func (d *dateReader) usual(s *[26]byte) (ok bool) {
	for i := range len(s) {
		switch i {
		case 2, 6, 11, 20:
			ok = s[i] == ' '
		case 14, 17:
			ok = s[i] == ':'
		case 3, 4, 5:
			ok = s[i]|0x20 >= 'a' && s[i]|0x20 <= 'z'
		case 21:
			ok = s[i] == '+' || s[i] == '-'
		default:
			ok = isDigit(s[i])
		}
		if !ok {
			return false
		}
	}
	name := [3]byte{s[3] | 0x20, s[4] | 0x20, s[5] | 0x20}
	for m := range 12 {
		if monthNames[3*m:3*m+3] == string(name[:]) {
			d.month = m + 1
		}
	}
	two := func(at int) int { return int(s[at]-'0')*10 + int(s[at+1]-'0') }
	d.day, d.year, d.hour, d.minute, d.second = two(0), two(7)*100+two(9), two(12), two(15), two(18)
	hours, minutes := two(22), two(24)
	d.haveDay, d.haveYear, d.have, d.haveZone = true, true, true, true
	if d.zone = hours*3600 + minutes*60; s[21] == '-' {
		d.zone = -d.zone
	}
	return d.month > 0 && hours <= 23 && minutes <= 59
}

// anyDate reads all forms.
func anyDate(value string) (t time.Time, ok bool) {
	var d dateReader
	for n := 0; n < 16; n++ {
		value = strings.TrimLeft(skipCFWS(value), ",;")
		value = skipCFWS(value)
		if value == "" {
			break
		}
		i := strings.IndexAny(value, " \t,;(")
		if i < 0 {
			i = len(value)
		}
		if i > 0 {
			d.token(value[:i])
		}
		value = value[i:]
	}
	return d.time()
}

// dateReader collects what the tokens of a date say.
type dateReader struct {
	day, month, year        int
	hour, minute, second    int
	nanos                   int
	haveDay, haveYear, have bool // have: the time of day
	zone                    int  // seconds east of UTC
	haveZone                bool
	bad                     bool
}

var monthNames = "janfebmaraprmayjunjulaugsepoctnovdec"

func (d *dateReader) token(s string) {
	switch {
	case isDigit(s[0]):
		d.number(s)
	case (s[0] == '+' || s[0] == '-') && len(s) >= 3 && isDigit(s[1]):
		d.offset(s)
	default:
		d.name(s)
	}
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

// number reads a token that begins with a digit: a day, a year, a time or a whole date.
func (d *dateReader) number(s string) {
	n, rest := cutNumber(s)
	digits := len(s) - len(rest)
	switch {
	case rest == "" && d.month > 0 && d.haveDay && !d.haveYear:
		d.setYear(n, digits)
	case rest == "" && !d.haveDay && digits <= 2:
		d.day, d.haveDay = n, true
	case rest == "" && !d.haveYear && digits >= 3:
		d.setYear(n, digits)
	case rest == "":
		d.bad = d.bad || !d.have // a number too many behind the time is nothing to worry about
	case (rest[0] == ':' || rest[0] == '.') && !d.have:
		d.timeOfDay(n, rest)
	case rest[0] == '-' && digits == 4:
		d.isoDate(n, rest[1:])
	case rest[0] == '-': // 12-Nov-2026
		d.day, d.haveDay = n, true
		month, year, ok := strings.Cut(rest[1:], "-")
		d.name(month)
		if ok && year != "" && isDigit(year[0]) {
			y, tail := cutNumber(year)
			d.setYear(y, len(year)-len(tail))
		}
	default: // 12Nov, 1st: the day and something
		if !d.haveDay && digits <= 2 {
			d.day, d.haveDay = n, true
			d.name(rest)
			return
		}
		d.bad = d.bad || !d.have
	}
}

func (d *dateReader) isoDate(year int, rest string) {
	d.year, d.haveYear = year, true
	var ok bool
	d.month, rest = cutNumber(rest)
	if rest, ok = strings.CutPrefix(rest, "-"); !ok {
		d.bad = true
		return
	}
	d.day, rest = cutNumber(rest)
	d.haveDay = true
	if rest != "" && (rest[0] == 'T' || rest[0] == 't') && len(rest) > 1 && isDigit(rest[1]) {
		hour, tail := cutNumber(rest[1:])
		d.timeOfDay(hour, tail)
	}
}

func (d *dateReader) timeOfDay(hour int, rest string) {
	d.hour, d.have = hour, true
	if rest == "" {
		return
	}
	sep := rest[0]
	d.minute, rest = cutNumber(rest[1:])
	if rest != "" && rest[0] == sep && len(rest) > 1 && isDigit(rest[1]) {
		d.second, rest = cutNumber(rest[1:])
	}
	if rest != "" && (rest[0] == '.' || rest[0] == ',') {
		unit := 100_000_000
		for rest = rest[1:]; rest != "" && isDigit(rest[0]); rest = rest[1:] {
			d.nanos += int(rest[0]-'0') * unit
			unit /= 10
		}
	}
	switch {
	case rest == "":
	case rest[0] == '+' || rest[0] == '-':
		d.offset(rest)
	default:
		d.name(rest)
	}
}

func (d *dateReader) setYear(n, digits int) {
	switch {
	case digits <= 2 && n < 50:
		n += 2000
	case digits <= 3:
		n += 1900
	}
	d.year, d.haveYear = n, true
}

// offset reads +hhmm, +hh:mm or +hh.
func (d *dateReader) offset(s string) {
	if d.haveZone || !d.have {
		return
	}
	n, rest := cutNumber(s[1:])
	digits := len(s) - 1 - len(rest)
	hours, minutes := n, 0
	if digits > 2 {
		hours, minutes = n/100, n%100
	} else if rest != "" && rest[0] == ':' {
		minutes, _ = cutNumber(rest[1:])
	}
	if hours > 23 || minutes > 59 {
		return
	}
	d.zone, d.haveZone = hours*3600+minutes*60, true
	if s[0] == '-' {
		d.zone = -d.zone
	}
}

// zoneNames are the names of RFC 5322 §4.3 and a few that occur, in hours east of UTC. The letters of
// the military zones all count as UTC, as the standard asks.
var zoneNames = map[string]int{
	"est": -5, "edt": -4, "cst": -6, "cdt": -5, "mst": -7, "mdt": -6, "pst": -8, "pdt": -7,
	"bst": 1, "met": 1, "mez": 1, "cet": 1, "mest": 2, "mesz": 2, "cest": 2, "eet": 2, "eest": 3, "msk": 3, "jst": 9,
}

func (d *dateReader) name(s string) {
	if len(s) >= 3 && d.month == 0 {
		if i := strings.Index(monthNames, strings.ToLower(s[:3])); i >= 0 && i%3 == 0 {
			d.month = i/3 + 1
			return
		}
	}
	if d.have && !d.haveZone {
		d.zone, d.haveZone = zoneNames[strings.ToLower(s)]*3600, true
	}
}

func (d *dateReader) time() (time.Time, bool) {
	if d.bad || !d.haveDay || !d.haveYear || d.day < 1 || d.month < 1 || d.month > 12 || d.year > 9999 ||
		d.hour > 24 || d.minute > 59 || d.second > 60 {
		return time.Time{}, false
	}
	loc := time.UTC
	if d.zone != 0 {
		loc = time.FixedZone("", d.zone)
	}
	t := time.Date(d.year, time.Month(d.month), d.day, d.hour, d.minute, min(d.second, 59), d.nanos, loc)
	if t.Day() != d.day && d.hour < 24 {
		return time.Time{}, false // the 31st of February
	}
	return t, true
}

// cutNumber reads up to nine digits off the beginning of s.
func cutNumber(s string) (n int, rest string) {
	i := 0
	for i < len(s) && i < 9 && isDigit(s[i]) {
		n = n*10 + int(s[i]-'0')
		i++
	}
	return n, s[i:]
}
