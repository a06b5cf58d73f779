package lmtpsession

import (
	"testing"

	"shoal/daemons/internal/dirclient"
)

// An account that is full is refused at RCPT: the sender learns it in the session.
func TestQuota(t *testing.T) {
	small := account("small-0001", "vol01", dirclient.StatusActive)
	small.QuotaStorage = 100
	few := account("few-000001", "vol01", dirclient.StatusActive)
	few.QuotaMessages = 1
	accounts := directory{"small@d.test": small, "few@d.test": few, "alice@d.test": people["alice@d.test"]}
	for _, tt := range []struct {
		defers bool
		reply  string
	}{{false, "552 5.2.2"}, {true, "452 4.2.2"}} {
		r := newRig(t, func(o *Options) { o.Accounts, o.DeferOverQuota = accounts, tt.defers })
		r.play(hello + `
C1: MAIL FROM:<a@b.test> SIZE=101
S1: 250 {{.*}}
C1: RCPT TO:<small@d.test>
S1: ` + tt.reply + ` {{.*}}
C1: RCPT TO:<few@d.test>
S1: 250 {{.*}}
C1: DATA
S1: 354 {{.*}}
C1: x
C1: .
S1: 250 {{.*}}
C1: MAIL FROM:<a@b.test>
S1: 250 {{.*}}
C1: RCPT TO:<few@d.test>
S1: ` + tt.reply + ` {{.*}}
C1: RCPT TO:<alice@d.test>
S1: 250 {{.*}}
C1: RCPT TO:<small@d.test>
S1: 250 {{.*}}
`)
	}
}
