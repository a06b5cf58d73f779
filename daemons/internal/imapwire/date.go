package imapwire

import (
	"strings"
	"time"
)

var monthNames = [12]string{"Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"}

// Date takes the date of a search key and returns its midnight in UTC. The keys disregard time and
// zone (RFC 9051 §6.4.4).
//
//	date      = date-text / DQUOTE date-text DQUOTE
//	date-text = 1*2DIGIT "-" month "-" 4DIGIT
func (d *Decoder) Date() (time.Time, error) {
	b, err := d.astringBytes()
	if err != nil {
		return time.Time{}, d.wanted("a date like 1-Feb-2026")
	}
	day, rest, _ := strings.Cut(string(b), "-")
	t, ok := parseDate(day, rest)
	if !ok {
		return time.Time{}, syntaxf("%q is not a date like 1-Feb-2026", excerpt(b))
	}
	return t, nil
}

func parseDate(day, monthYear string) (time.Time, bool) {
	month, year, ok := strings.Cut(monthYear, "-")
	dd, ok1 := digits(day, 1, 2)
	yyyy, ok2 := digits(year, 4, 4)
	mm := 0
	for i, name := range monthNames {
		if strings.EqualFold(name, month) {
			mm = i + 1
		}
	}
	if !ok || !ok1 || !ok2 || mm == 0 {
		return time.Time{}, false
	}
	t := time.Date(yyyy, time.Month(mm), dd, 0, 0, 0, 0, time.UTC)
	if t.Day() != dd || dd == 0 {
		return time.Time{}, false
	}
	return t, true
}

func digits(s string, least, most int) (n int, ok bool) {
	if len(s) < least || len(s) > most {
		return 0, false
	}
	for i := 0; i < len(s); i++ {
		if s[i] < '0' || s[i] > '9' {
			return 0, false
		}
		n = n*10 + int(s[i]-'0')
	}
	return n, true
}

// DateTime takes the internal date of APPEND.
//
//	date-time = DQUOTE (SP DIGIT / 2DIGIT) "-" month "-" 4DIGIT SP 2DIGIT ":" 2DIGIT ":" 2DIGIT SP ("+" / "-") 4DIGIT DQUOTE
func (d *Decoder) DateTime() (time.Time, error) {
	b, err := d.quoted()
	if err != nil {
		return time.Time{}, err
	}
	t, ok := parseDateTime(string(b))
	if !ok {
		return time.Time{}, syntaxf("%q is not a date and time like \" 1-Feb-2026 13:05:00 +0100\"", excerpt(b))
	}
	return t, nil
}

func parseDateTime(s string) (time.Time, bool) {
	// " 1-Feb-2026 13:05:00 +0100"
	if len(s) != 26 || s[11] != ' ' || s[20] != ' ' || s[14] != ':' || s[17] != ':' {
		return time.Time{}, false
	}
	day, rest, _ := strings.Cut(s[:11], "-")
	date, ok := parseDate(strings.TrimPrefix(day, " "), rest)
	h, ok1 := digits(s[12:14], 2, 2)
	m, ok2 := digits(s[15:17], 2, 2)
	sec, ok3 := digits(s[18:20], 2, 2)
	zh, ok4 := digits(s[22:24], 2, 2)
	zm, ok5 := digits(s[24:26], 2, 2)
	if !ok || !ok1 || !ok2 || !ok3 || !ok4 || !ok5 || h > 23 || m > 59 || sec > 60 || zm > 59 {
		return time.Time{}, false
	}
	offset := zh*3600 + zm*60
	switch s[21] {
	case '+':
	case '-':
		offset = -offset
	default:
		return time.Time{}, false
	}
	zone := time.FixedZone("", offset)
	return time.Date(date.Year(), date.Month(), date.Day(), h, m, sec, 0, zone), true
}

// AppendDateTime appends t in the form of INTERNALDATE, with the quotes.
func AppendDateTime(b []byte, t time.Time) []byte {
	year, month, day := t.Date()
	hour, minute, sec := t.Clock()
	if year < 0 || year > 9999 {
		year = 9999
	}
	b = append(b, '"')
	if day < 10 {
		b = append(b, ' ', byte('0'+day))
	} else {
		b = append2(b, day)
	}
	b = append(b, '-')
	b = append(b, monthNames[month-1]...)
	b = append(b, '-')
	b = append2(append2(b, year/100), year%100)
	b = append2(append(b, ' '), hour)
	b = append2(append(b, ':'), minute)
	b = append2(append(b, ':'), sec)
	_, offset := t.Zone()
	sign := byte('+')
	if offset < 0 {
		sign, offset = '-', -offset
	}
	b = append(b, ' ', sign)
	b = append2(append2(b, offset/3600%100), offset/60%60)
	return append(b, '"')
}

func append2(b []byte, n int) []byte { return append(b, byte('0'+n/10), byte('0'+n%10)) }
