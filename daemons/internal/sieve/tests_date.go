package sieve

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"shoal/daemons/internal/message"
)

var zoneTags = tagSet{"zone": {group: "zone", takes: argString}}

// dateParts are the parts of a date that can be compared (RFC 5260 §4.2). Each has a fixed width, so that :value with
// i;ascii-casemap compares it as well.
var dateParts = map[string]func(time.Time) string{
	"year":    func(t time.Time) string { return fmt.Sprintf("%04d", t.Year()) },
	"month":   func(t time.Time) string { return t.Format("01") },
	"day":     func(t time.Time) string { return t.Format("02") },
	"date":    func(t time.Time) string { return t.Format("2006-01-02") },
	"julian":  func(t time.Time) string { return strconv.Itoa(modifiedJulianDay(t)) },
	"hour":    func(t time.Time) string { return t.Format("15") },
	"minute":  func(t time.Time) string { return t.Format("04") },
	"second":  func(t time.Time) string { return t.Format("05") },
	"time":    func(t time.Time) string { return t.Format("15:04:05") },
	"iso8601": func(t time.Time) string { return t.Format("2006-01-02T15:04:05-07:00") },
	"std11":   func(t time.Time) string { return t.Format("Mon, 2 Jan 2006 15:04:05 -0700") },
	"zone":    func(t time.Time) string { return t.Format("-0700") },
	"weekday": func(t time.Time) string { return strconv.Itoa(int(t.Weekday())) },
}

// modifiedJulianDay counts the days from 17 November 1858, in the zone of t.
func modifiedJulianDay(t time.Time) int {
	day := time.Date(t.Year(), t.Month(), t.Day(), 0, 0, 0, 0, time.UTC)
	return int(day.Unix()/86400) + 40587
}

// datePart checks the name of a part, where it is known already.
func (c *compiler) datePart(a *arg) *text {
	t := c.text(a.strs[0])
	if t.constant() && dateParts[strings.ToLower(t.lit)] == nil {
		c.fail(a.strs[0].pos, "a date has no part %q%s", t.lit, nearest(strings.ToLower(t.lit), dateParts))
	}
	return t
}

// inZone moves a time to the zone that the tags of a test ask for.
func (c *compiler) inZone(b *bound) func(*run, time.Time) (time.Time, error) {
	zone := c.tagText(b, "zone")
	if zone != nil && zone.constant() {
		if _, ok := parseZone(zone.lit); !ok {
			c.fail(b.tags["zone"].pos, "a time zone is written as an offset, such as \"+0100\", not %q", zone.lit)
		}
	}
	original := b.tag("originalzone")
	return func(r *run, t time.Time) (time.Time, error) {
		if original {
			return t, nil
		}
		if zone == nil {
			return t.In(r.env.Now.Location()), nil
		}
		v, err := r.expand(zone)
		if err != nil {
			return t, err
		}
		if l, ok := parseZone(v); ok {
			return t.In(l), nil
		}
		return t.In(r.env.Now.Location()), nil
	}
}

// parseZone: RFC 5260 §4.1, "+hhmm" or "-hhmm".
func parseZone(v string) (*time.Location, bool) {
	if len(v) != 5 || v[0] != '+' && v[0] != '-' {
		return nil, false
	}
	n, err := strconv.ParseUint(v[1:], 10, 16)
	if err != nil || n/100 > 23 || n%100 > 59 {
		return nil, false
	}
	seconds := int(n/100*3600 + n%100*60)
	if v[0] == '-' {
		seconds = -seconds
	}
	return time.FixedZone("", seconds), true
}

func buildDate(c *compiler, b *bound) cond {
	name, part, m := c.text(b.args[0].strs[0]), c.datePart(&b.args[1]), c.matcher(b, &b.args[2])
	from, zone := c.source(b), c.inZone(b)
	return func(r *run) (bool, error) {
		field, err := r.expand(name)
		if err != nil {
			return false, err
		}
		found, err := r.pick(from, []string{field})
		if err != nil {
			return false, err
		}
		if from.index == 0 && len(found) > 1 {
			found = found[:1]
		}
		var values []string
		for _, f := range found {
			v := f.value()
			if i := strings.LastIndexByte(v, ';'); i >= 0 { // Received and its like
				v = v[i+1:]
			}
			t, ok := message.ParseDate(v)
			if !ok {
				continue
			}
			v, ok, err := r.dateValue(part, zone, t)
			if err != nil {
				return false, err
			}
			if ok {
				values = append(values, v)
			}
		}
		return r.any(m, values)
	}
}

func buildCurrentDate(c *compiler, b *bound) cond {
	part, m, zone := c.datePart(&b.args[0]), c.matcher(b, &b.args[1]), c.inZone(b)
	return func(r *run) (bool, error) {
		v, ok, err := r.dateValue(part, zone, r.env.Now)
		if !ok || err != nil {
			return false, err
		}
		return r.any(m, []string{v})
	}
}

func (r *run) dateValue(part *text, zone func(*run, time.Time) (time.Time, error), t time.Time) (string, bool, error) {
	name, err := r.expand(part)
	if err != nil {
		return "", false, err
	}
	f := dateParts[strings.ToLower(name)]
	if f == nil {
		return "", false, nil
	}
	if t, err = zone(r, t); err != nil {
		return "", false, err
	}
	return f(t), true, nil
}
