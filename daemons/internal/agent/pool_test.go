package agent

import (
	"strings"
	"testing"
)

// HAProxy compiles regular expressions into memory that it writes and runs. The agent's unit forbids that
// (MemoryDenyWriteExecute), and `haproxy -c` runs within it: a check with one would make every configuration a wrong one.
func TestChecksHaveNoRegularExpressions(t *testing.T) {
	for name, lines := range checks {
		for _, l := range lines {
			for _, bad := range []string{"rstring", "rbinary", "smtpchk", "ldap-check", "httpchk", "mysql-check", "redis-check", "ssl-hello-chk"} {
				if strings.Contains(l, bad) {
					t.Errorf("check %s: %q is or has a regular expression", name, l)
				}
			}
		}
	}
}
