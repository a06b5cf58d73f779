package filter

import (
	"strings"
	"testing"

	"shoal/daemons/internal/conf"
)

func FuzzVerdict(f *testing.F) {
	f.Add("X-Spamd-Result: default: False [3.00 / 15.00];\r\n\tA\r\nX-Virus: clean\r\nReceived: x\r\n\r\n")
	f.Add("X-Spamd-Result: 1e400\n")
	var s Settings
	conf.SetDefaults(&s)
	f.Fuzz(func(t *testing.T, text string) {
		if spam, virus := s.verdict(strings.NewReader(text)); spam < -1 || spam > 100 || virus < 0 || virus > 5 {
			t.Errorf("%d %d", spam, virus)
		}
	})
}
