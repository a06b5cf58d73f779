package filter

import (
	"context"
	"strings"
	"testing"

	"shoal/daemons/internal/conf"
	"shoal/daemons/internal/dirclient"
)

type globals struct{ d *dirclient.Domain }

func (g globals) Provider(context.Context) (*dirclient.Domain, error) {
	return &dirclient.Domain{}, nil
}
func (g globals) Domain(context.Context, string) (*dirclient.Domain, error) { return g.d, nil }

// What stands above our Received is believed, and nothing below it.
func TestVerdict(t *testing.T) {
	var s Settings
	conf.SetDefaults(&s)
	const top, ours = "Return-Path: <a@b>\r\n", "Received: from x by switch1 id t;\r\n\tMon\r\n"
	for text, want := range map[string][2]int{
		top + ours + "Subject: x\r\n\r\n": {-1, 0},
		top + "X-Spamd-Result: default: False [3.00 / 15.00];\r\n\tARC_NA(0.00)[]\r\nX-Virus: clean\r\n" + ours: {20, 1},
		top + "X-Spamd-Result: 7.5\r\n" + ours:                                     {50, 0},
		top + "X-Spamd-Result: -4\r\n" + ours:                                      {0, 0},
		top + "x-spamd-result: [99/15]\r\nX-Virus: Eicar\r\n" + ours:               {100, 5},
		top + "X-Spamd-Result: [1/0]\r\n" + ours:                                   {-1, 0},
		top + "X-Spamd-Result: NaN\r\n" + ours:                                     {-1, 0},
		top + ours + "X-Spamd-Result: [0 / 15]\r\nX-Virus: clean\r\n":              {-1, 0}, // the sender's own
		top + "X-Long: " + strings.Repeat("x", 2000) + "\r\nX-Virus: y\r\n" + ours: {-1, 5},
		top + strings.Repeat("x", 2*maxTop):                                        {-1, 0},
		"":                                                                         {-1, 0},
	} {
		if spam, virus := s.verdict(strings.NewReader(text)); [2]int{spam, virus} != want {
			t.Errorf("%.100q: %d %d, want %v", text, spam, virus, want)
		}
	}
}

// Scripts see the verdict, and include the domain's scripts by name.
func TestGlobalScriptsAndSpam(t *testing.T) {
	r := newRig(t, func(o *Options) {
		o.Domains = globals{&dirclient.Domain{Name: "d.test", SieveGlobal: []string{"spam\nrequire [\"spamtestplus\", \"relational\", \"comparator-i;ascii-numeric\", \"fileinto\", \"mailbox\"];\nif spamtest :percent :value \"ge\" :comparator \"i;ascii-numeric\" \"50\" { fileinto :create \"Junk\"; }\n"}}}
	})
	r.script(`require "include"; include :global "spam"; include :global :optional "nothing";`)
	for _, head := range []string{"X-Spamd-Result: default: True [12 / 15]\r\nReceived: by switch1\r\n", "Received: by switch1\r\nX-Spamd-Result: [15 / 15]\r\n"} {
		if _, filtered, err := r.deliver(head + sample); err != nil || !filtered {
			t.Fatal(filtered, err)
		}
	}
	if got := r.boxes(); strings.Count(got, "Junk: ") != 1 || strings.Count(got, "INBOX: ") != 1 {
		t.Error(got)
	}
}
