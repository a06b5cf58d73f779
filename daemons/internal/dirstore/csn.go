package dirstore

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// csn is a change sequence number as OpenLDAP writes it:
//
//	20261123112421.918344Z#000000#000#000000
//	time in microseconds   count  sid mod       -- the last three in hexadecimal
//
// It is kept as this text: it sorts as text.
type csn = string

const csnTime = "20060102150405.000000Z"

// csnClock hands out CSNs that ascend strictly, whatever the wall clock does.
type csnClock struct {
	sid   int
	last  time.Time
	count int
}

func (c *csnClock) next(now time.Time) csn {
	now = now.UTC().Truncate(time.Microsecond)
	if now.After(c.last) {
		c.last, c.count = now, 0
	} else if c.count++; c.count > 0xffffff {
		c.last, c.count = c.last.Add(time.Microsecond), 0
	}
	return c.String()
}

// String is the CSN given out last.
func (c *csnClock) String() csn {
	return fmt.Sprintf("%s#%06x#%03x#%06x", c.last.Format(csnTime), c.count, c.sid, 0)
}

// seen moves the clock past a CSN, so that all later ones are greater.
func (c *csnClock) seen(s csn) {
	t, count, ok := parseCSN(s)
	if ok && (t.After(c.last) || t.Equal(c.last) && count > c.count) {
		c.last, c.count = t, count
	}
}

func parseCSN(s csn) (t time.Time, count int, ok bool) {
	p := strings.Split(s, "#")
	if len(p) != 4 {
		return t, 0, false
	}
	t, err := time.Parse(csnTime, p[0])
	if err != nil {
		return t, 0, false
	}
	n, err := strconv.ParseUint(p[1], 16, 32)
	return t, int(n), err == nil
}

// IsCSN reports whether a text has the form of a CSN.
func IsCSN(s string) bool {
	_, _, ok := parseCSN(s)
	return ok && len(s) == 40
}

// CSNServer is the part of a CSN that names the server that made it; "" if it is none.
func CSNServer(s string) string {
	if len(s) < 33 {
		return ""
	}
	return s[30:33]
}
