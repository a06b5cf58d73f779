package mbox

import (
	"bytes"
	"strconv"
	"strings"
	"time"
)

var fromPrefix = []byte("From ")

// fromLine is a from-line taken apart:
//
//	"From " [sender SP] day-name SP month SP day SP time [SP zone] SP year [SP zone] ...     asctime
//	"From " [sender SP] day-name "," SP day SP month SP year SP time [SP zone] ...           RFC 822
//
// The sender may contain blanks. What follows the date ("remote from host") is left out.
type fromLine struct {
	sender string
	date   time.Time // zero where there is none
	git    bool      // git format-patch: a commit's name and the date that git always writes
}

const maxFromLine = 1000 // more of it is not looked at

// parseFromLine takes a line apart; ok says that it begins like a from-line.
func parseFromLine(line []byte) (f fromLine, ok bool) {
	if !bytes.HasPrefix(line, fromPrefix) {
		return f, false
	}
	line = line[:min(len(line), maxFromLine)]
	fields := strings.Fields(string(line[len(fromPrefix):]))
	for i, field := range fields {
		if !isDayName(field) {
			continue
		}
		if date, ok := parseFromDate(fields[i+1:]); ok {
			f.date = date
			f.sender = strings.Join(fields[:i], " ")
			f.git = isCommit(f.sender) && len(fields) == i+5 &&
				strings.Join(fields[i:], " ") == "Mon Sep 17 00:00:00 2001"
			return f, true
		}
	}
	if len(fields) > 0 {
		f.sender = fields[0]
	}
	return f, true
}

func isDayName(s string) bool {
	s = strings.TrimSuffix(s, ",")
	return len(s) == 3 && indexFold("MonTueWedThuFriSatSun", s) >= 0
}

// indexFold is the place of a name of three letters in a list of such names.
func indexFold(names, name string) int {
	for i := 0; i+3 <= len(names); i += 3 {
		if strings.EqualFold(names[i:i+3], name) {
			return i / 3
		}
	}
	return -1
}

func isCommit(s string) bool {
	if len(s) != 40 && len(s) != 64 {
		return false
	}
	return strings.Trim(s, "0123456789abcdef") == ""
}

// parseFromDate reads the date behind the name of the day.
func parseFromDate(fields []string) (time.Time, bool) {
	if len(fields) < 4 {
		return time.Time{}, false
	}
	if len(fields) > 8 {
		fields = fields[:8]
	}
	var d struct{ month, day, year, hour, minute, second int }
	rest := fields[2:]
	first := fields[0] // day and month come in this order or the other
	if month := monthNumber(first); month > 0 {
		d.month = month
		d.day = number(fields[1], 1, 31)
	} else {
		d.day = number(first, 1, 31)
		d.month = monthNumber(fields[1])
	}
	loc, haveTime := time.UTC, false
	for _, s := range rest {
		switch {
		case !haveTime && strings.Contains(s, ":"):
			clock := strings.Split(s, ":")
			d.hour, d.minute = number(clock[0], 0, 23), number(clock[1], 0, 59)
			if len(clock) > 2 {
				d.second = number(clock[2], 0, 60)
			}
			haveTime = true
		case d.year == 0 && len(s) == 4 && s[0] != '+' && s[0] != '-':
			d.year = number(s, 1, 9999)
		case len(s) == 5 && (s[0] == '+' || s[0] == '-'):
			if hours, minutes := number(s[1:3], 0, 23), number(s[3:], 0, 59); hours >= 0 && minutes >= 0 {
				seconds := hours*3600 + minutes*60
				if s[0] == '-' {
					seconds = -seconds
				}
				loc = time.FixedZone("", seconds)
			}
		}
	}
	if d.month < 1 || d.day < 1 || d.year < 1 || !haveTime || d.hour < 0 || d.minute < 0 || d.second < 0 {
		return time.Time{}, false
	}
	return time.Date(d.year, time.Month(d.month), d.day, d.hour, d.minute, min(d.second, 59), 0, loc), true
}

func monthNumber(s string) int { return indexFold("JanFebMarAprMayJunJulAugSepOctNovDec", s) + 1 }

// number reads a decimal number within bounds; -1 for anything else.
func number(s string, least, most int) int {
	n, err := strconv.Atoi(s)
	if err != nil || n < least || n > most || s[0] == '+' || s[0] == '-' {
		return -1
	}
	return n
}
