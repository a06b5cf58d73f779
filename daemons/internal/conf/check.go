package conf

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
)

// text checks a string against the tags of its field and completes it where its kind asks for that.
func (d *decoder) text(s string, f reflect.StructField) (string, error) {
	if strings.ContainsRune(s, 0) {
		return "", errors.New("contains a NUL character")
	}
	if err := check(f, s); err != nil {
		return "", err
	}
	switch kind(f) {
	case "path", "secret":
		if s == "" {
			return s, nil
		}
		if !filepath.IsAbs(s) {
			s = filepath.Join(d.base, s)
		}
		if kind(f) == "secret" {
			if _, err := ReadSecret(s); err != nil {
				return "", err
			}
		}
	}
	return s, nil
}

// check compares a string with its oneof tag and its kind. An empty string passes when the attribute
// is optional: it stands for "not set".
func check(f reflect.StructField, s string) error {
	if one, ok := f.Tag.Lookup("oneof"); ok {
		words := strings.Fields(one)
		if !slices.Contains(words, s) {
			return fmt.Errorf("%q is not one of: %s", s, strings.Join(words, ", "))
		}
	}
	_, kindOfAttr := hclTag(f)
	if s == "" {
		if kindOfAttr == "attr" || kindOfAttr == "label" {
			return errors.New("must not be empty")
		}
		return nil
	}
	switch kind(f) {
	case "listen":
		return checkListen(s)
	case "dial":
		return checkDial(s)
	case "network":
		_, err := ParseNetwork(s)
		return err
	case "ldapuri":
		return checkLDAPURI(s)
	case "name":
		return checkName(s)
	case "dn":
		return checkDN(s)
	case "account":
		return checkAccount(s)
	}
	return nil
}

// kind is the first word of the conf tag, unless that is "live".
func kind(f reflect.StructField) string {
	k, _, _ := strings.Cut(f.Tag.Get("conf"), ",")
	if k == "live" {
		return ""
	}
	return k
}

// live reports whether a reload may change the setting.
func live(f reflect.StructField) bool {
	return slices.Contains(strings.Split(f.Tag.Get("conf"), ","), "live")
}

// bounds compares a number, size or duration with its min and max tags.
func bounds(v reflect.Value, f reflect.StructField) error {
	for _, side := range []string{"min", "max"} {
		text, ok := f.Tag.Lookup(side)
		if !ok {
			continue
		}
		limit := reflect.New(v.Type()).Elem()
		if err := setText(limit, text); err != nil {
			panic(fmt.Sprintf("conf: %s of %s: %v", side, f.Name, err))
		}
		c, err := compare(v, limit)
		if err != nil {
			return err
		}
		if side == "min" && c < 0 {
			return fmt.Errorf("%v is too small: the least is %s", v.Interface(), text)
		}
		if side == "max" && c > 0 {
			return fmt.Errorf("%v is too large: the most is %s", v.Interface(), text)
		}
	}
	return nil
}

func compare(a, b reflect.Value) (int, error) {
	switch {
	case a.CanInt():
		return cmp(a.Int(), b.Int()), nil
	case a.CanUint():
		return cmp(a.Uint(), b.Uint()), nil
	case a.CanFloat():
		return cmp(a.Float(), b.Float()), nil
	}
	return 0, fmt.Errorf("no order for type %s", a.Type())
}

func cmp[T int64 | uint64 | float64](a, b T) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// splitAddress checks host:port; the port is a number, because /etc/services differs between systems.
func splitAddress(s string) (host string, port int, err error) {
	h, p, err := net.SplitHostPort(s)
	if err != nil {
		if strings.Count(s, ":") > 1 && !strings.HasPrefix(s, "[") {
			return "", 0, fmt.Errorf("%q: write an IPv6 address in brackets: \"[%s]:port\"", s, s)
		}
		return "", 0, fmt.Errorf("%q is not host:port: write for example \"127.0.0.1:143\"", s)
	}
	port, err = strconv.Atoi(p)
	if err != nil || port < 0 || port > 65535 {
		return "", 0, fmt.Errorf("%q: %q is not a port number from 0 to 65535", s, p)
	}
	return h, port, nil
}

// checkListen accepts an IP address, "localhost", or no host (all addresses), and a port; 0 lets the
// system choose.
func checkListen(s string) error {
	h, _, err := splitAddress(s)
	if err != nil {
		return err
	}
	if h == "" || h == "localhost" {
		return nil
	}
	if _, err := netip.ParseAddr(h); err != nil {
		return fmt.Errorf("%q: to listen, write an IP address of this machine instead of %q", s, h)
	}
	return nil
}

func checkDial(s string) error {
	h, port, err := splitAddress(s)
	switch {
	case err != nil:
		return err
	case h == "":
		return fmt.Errorf("%q has no host: write host:port", s)
	case port == 0:
		return fmt.Errorf("%q: port 0 cannot be connected to", s)
	}
	if _, err := netip.ParseAddr(h); err != nil && strings.Trim(h, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_") != "" {
		return fmt.Errorf("%q: %q is neither a host name nor an IP address", s, h)
	}
	return nil
}

// ParseNetwork reads an IP address or a CIDR block ("192.0.2.0/24"); an address is a block of one.
func ParseNetwork(s string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(s); err == nil {
		if a.Zone() != "" {
			return netip.Prefix{}, fmt.Errorf("%q: an address with a zone is not a network", s)
		}
		return netip.PrefixFrom(a.Unmap(), a.Unmap().BitLen()), nil
	}
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("%q is neither an IP address nor a network: write for example \"192.0.2.0/24\"", s)
	}
	if p != p.Masked() {
		return netip.Prefix{}, fmt.Errorf("%q has bits set after its prefix: write %q", s, p.Masked())
	}
	return p, nil
}

func checkLDAPURI(s string) error {
	u, err := url.Parse(s)
	switch {
	case err != nil || (u.Scheme != "ldap" && u.Scheme != "ldaps") || u.Hostname() == "":
		return fmt.Errorf("%q is not an LDAP address: write for example \"ldap://127.0.0.1:389\"", s)
	case u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.User != nil:
		return fmt.Errorf("%q: only scheme, host and port are used here: write \"%s://%s\"", s, u.Scheme, u.Host)
	}
	if p := u.Port(); p != "" {
		if n, err := strconv.Atoi(p); err != nil || n < 1 || n > 65535 {
			return fmt.Errorf("%q: %q is not a port number from 1 to 65535", s, p)
		}
	}
	return nil
}

// checkName checks the name of a server: [a-z0-9][a-z0-9-]{0,14}. It goes into commit records of the
// store, so it is short.
func checkName(s string) error {
	if len(s) > 15 || s[0] == '-' || strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
		return fmt.Errorf("%q is not a server name: write 1 to 15 of a-z, 0-9 and -, not beginning with -", s)
	}
	return nil
}

func checkDN(s string) error {
	attr, value, ok := strings.Cut(s, "=")
	if !ok || attr == "" || value == "" {
		return fmt.Errorf("%q is not a distinguished name: write for example \"o=shoal\"", s)
	}
	return nil
}

func checkAccount(s string) error {
	user, group, both := strings.Cut(s, ":")
	if user == "" || both && group == "" || strings.ContainsAny(s, " /\t") {
		return fmt.Errorf("%q is not a system account: write \"user\" or \"user:group\"", s)
	}
	return nil
}

// example is what to write for an attribute, from its tags or its type.
func example(f reflect.StructField) string {
	t := f.Type
	if t.Kind() == reflect.Slice {
		return "[" + exampleOf(t.Elem(), f) + "]"
	}
	return exampleOf(t, f)
}

func exampleOf(t reflect.Type, f reflect.StructField) string {
	for _, tag := range []string{"example", "default"} {
		e := f.Tag.Get(tag)
		if f.Type.Kind() == reflect.Slice {
			e, _, _ = strings.Cut(e, " ")
		}
		if e != "" {
			if quoted(t) {
				return strconv.Quote(e)
			}
			return e
		}
	}
	switch {
	case t == durationType:
		return `"30s"`
	case t == sizeType:
		return `"25 MB"`
	case quoted(t):
		return `"..."`
	case t.Kind() == reflect.Bool:
		return "true"
	}
	return "1"
}

func quoted(t reflect.Type) bool {
	return t.Kind() == reflect.String || t == durationType || reflect.PointerTo(t).Implements(textType)
}
