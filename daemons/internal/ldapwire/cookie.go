package ldapwire

import "strings"

// SyncCookie is a cookie of RFC 4533 in the form that OpenLDAP uses, so that either side may be one:
//
//	cookie = part *("," part)
//	part   = "rid=" 3DIGIT / "sid=" 3HEXDIG / "csn=" [CSN *(";" CSN)] / "delcsn=" CSN / other
type SyncCookie struct {
	RID  string // names the consumer's agreement; the provider gives it back
	CSNs []string
}

// maxCookieCSNs bounds a cookie: there is one CSN for each server that ever wrote.
const maxCookieCSNs = 64

// ParseSyncCookie reads a cookie. What it does not know it passes over; an empty cookie is one without
// CSNs. CSNs are only looked at from outside: 40 octets with '#' in three places.
func ParseSyncCookie(b []byte) (c SyncCookie, err error) {
	for _, part := range strings.Split(string(b), ",") {
		name, value, _ := strings.Cut(part, "=")
		switch name {
		case "rid":
			if len(value) > 3 {
				return c, Errorf(ProtocolError, "sync cookie: rid %.16q", value)
			}
			c.RID = value
		case "csn":
			for _, csn := range strings.Split(value, ";") {
				if csn == "" {
					continue
				}
				if len(csn) != 40 || csn[22] != '#' || csn[29] != '#' || csn[33] != '#' {
					return c, Errorf(ProtocolError, "sync cookie: CSN %.64q", csn)
				}
				if len(c.CSNs) == maxCookieCSNs {
					return c, Errorf(ProtocolError, "sync cookie: more than %d CSNs", maxCookieCSNs)
				}
				c.CSNs = append(c.CSNs, csn)
			}
		}
	}
	return c, nil
}

// Append appends the cookie.
func (c *SyncCookie) Append(dst []byte) []byte {
	rid := c.RID
	if rid == "" {
		rid = "000"
	}
	dst = append(append(dst, "rid="...), rid...)
	for i, csn := range c.CSNs {
		if i == 0 {
			dst = append(dst, ",csn="...)
		} else {
			dst = append(dst, ';')
		}
		dst = append(dst, csn...)
	}
	return dst
}
