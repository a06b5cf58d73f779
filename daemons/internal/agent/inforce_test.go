package agent

import (
	"maps"
	"slices"
	"strings"
	"testing"
)

const forced = `/srv/shoal/vol\04001  10.1.2.2/32(sync,wdelay,hide,no_subtree_check,fsid=12345678-1234-1234-1234-123456789abc,sec=sys,rw,secure,root_squash,no_all_squash)
/srv/shoal/vol\04001  10.1.0.0/17(sync,wdelay,hide,no_subtree_check,sec=krb5p,ro,secure,root_squash,all_squash)
/srv/shoal/queue      2001:db8::7/128(sync,wdelay,hide,no_subtree_check,sec=sys,rw,secure,no_root_squash,no_all_squash)
`

func TestInForce(t *testing.T) {
	got := parseInForce(forced)
	if want := []string{"10.1.0.0/17 ro all_squash", "10.1.2.2/32 rw root_squash"}; !slices.Equal(got["/srv/shoal/vol 01"], want) {
		t.Errorf("%q", got)
	}
	if want := []string{"2001:db8::7/128 rw no_root_squash"}; !slices.Equal(got["/srv/shoal/queue"], want) {
		t.Errorf("%q", got)
	}
}

// Whatever exportfs says, each client is of one folder and has an access and a squash.
func FuzzInForce(f *testing.F) {
	f.Add(forced)
	f.Add("/a b(rw)\n()\n (")
	f.Fuzz(func(t *testing.T, text string) {
		n := 0
		for clients := range maps.Values(parseInForce(text)) {
			n += len(clients)
			for _, c := range clients {
				if !strings.HasSuffix(c, "squash") || !strings.Contains(c, " rw ") && !strings.Contains(c, " ro ") {
					t.Errorf("%q of %q", c, text)
				}
			}
		}
		if n > strings.Count(text, "(") {
			t.Errorf("%d clients of %q", n, text)
		}
	})
}
