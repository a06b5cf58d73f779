package popsession

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"shoal/daemons/internal/mailstore"
)

func TestUTF8(t *testing.T) {
	r := newRig(t, nil)
	r.deliver("alice", "From: Änn <ann@d.test>\r\nTo: jürgen@d.test\r\nSubject: Grüße\r\nMessage-ID: <ü@d.test>\r\n\r\nGrüße\r\n",
		"Content-Transfer-Encoding: binary\r\n\r\n\x00\x01\n.\r\n\xff")
	r.run(script(t, "utf8.txt"))
}

// LOGIN-DELAY: announced in both states, held against the account whoever logs in and however, and told only to who has the password.
func TestLoginDelay(t *testing.T) {
	r := newRig(t, func(o *Options) { o.Limits.LoginDelay = 59*time.Minute + 59*time.Second + time.Millisecond })
	r.run(`
open 1 pops
S1: +OK {{.*}}
C1: CAPA
S1~: LOGIN-DELAY 3600
S1~: .
C1!: USER alice\r\nPASS secret word\r\nCAPA\r\n
S1: +OK {{.*}}
S1: +OK {{.*}}
S1~: LOGIN-DELAY 3600
S1~: .
open 2 pops
S2: +OK {{.*}}
C2!: USER alice\r\nPASS wrong\r\nUSER alice\r\nPASS secret word\r\nAUTH PLAIN AGFsaWNlAHNlY3JldCB3b3Jk\r\nSTAT\r\n
S2: +OK {{.*}}
S2: -ERR [AUTH] {{.*}}
S2: +OK {{.*}}
S2: -ERR [LOGIN-DELAY] {{.*}}
S2: -ERR [LOGIN-DELAY] {{.*}}
S2: -ERR STAT is not possible now
C2!: USER bob\r\nPASS secret word\r\n
S2: +OK {{.*}}
S2: +OK {{.*}}
`)
	if n := r.value("shoal_pop_logins_total"); n != 5 {
		t.Errorf("%v attempts are counted, want 5", n)
	}
}

func TestArrivals(t *testing.T) {
	var a arrivals
	for i, c := range []struct {
		who        string
		now, delay time.Duration
		want       bool
	}{{"a", 1, 0, true}, {"a", 1, 10, true}, {"a", 10, 10, false}, {"b", 10, 10, true}, {"a", 11, 10, true}, {"a", 12, 0, true}, {"a", 20, 10, false}} {
		if got := a.admit(c.who, c.now, c.delay); got != c.want {
			t.Errorf("%d: %v", i, got)
		}
	}
	for i := range 10 * fewest { // each long after the one before
		a.admit(fmt.Sprint(i), time.Duration(100*i), 10)
	}
	if len(a.last) > fewest {
		t.Errorf("%d logins are remembered", len(a.last))
	}
}

// EXPIRE: what was read and is old enough goes at QUIT, and only then.
func TestExpire(t *testing.T) {
	const login = "open 1 pops\nS1: +OK {{.*}}\nC1: CAPA\nS1~: EXPIRE %s\nS1~: .\nC1!: USER alice\\r\\nPASS secret word\\r\\n\nS1: +OK {{.*}}\nS1: +OK {{.*}}\n"
	for name, c := range map[string]struct {
		days           int // -1: RemoveRetrieved
		says, do, want string
	}{
		"never":                {0, "NEVER", "C1: RETR 1\nS1~: .\nC1: QUIT\nS1: +OK Bye\n", "1s 2 3s 4"},
		"a week":               {7, "7", "C1: RETR 1\nS1~: .\nC1: RETR 4\nS1~: .\nC1: QUIT\nS1: +OK Bye\n", "2 4s"}, // 2 was not read, 4 is young
		"without QUIT":         {7, "7", "C1: RETR 1\nS1~: .\nhalfclose 1\neof 1\n", "1 2 3s 4"},
		"in the same session":  {-1, "0", "C1: RETR 1\nS1~: .\nC1: RETR 4\nS1~: .\nC1: TOP 2 9\nS1~: .\nC1: QUIT\nS1: +OK Bye\n", "2 3s"}, // 3 was read elsewhere
		"RSET spares them not": {7, "7", "C1: RETR 1\nS1~: .\nC1: RSET\nS1: +OK {{.*}}\nC1: QUIT\nS1: +OK Bye\n", "2 4"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, func(o *Options) { o.Limits.ExpireDays, o.Limits.RemoveRetrieved = max(0, c.days), c.days < 0 })
			box := r.inbox("alice")
			for i := range 4 {
				m, err := r.store.Stage(context.Background(), "vol01", strings.NewReader("Subject: x\r\n\r\nx\r\n"), 0)
				if err != nil {
					t.Fatal(err)
				}
				a := mailstore.AppendMessage{Message: m, SaveDate: time.Now().AddDate(0, 0, -8)}
				if i == 2 {
					a.Flags = mailstore.FlagSeen
				}
				if i == 3 {
					a.SaveDate = time.Now().AddDate(0, 0, -6)
				}
				if _, err := box.Append(context.Background(), []mailstore.AppendMessage{a}); err != nil {
					t.Fatal(err)
				}
				m.Close()
			}
			r.run(fmt.Sprintf(login, c.says) + c.do)
			r.srv.Close()
			if got := r.state("alice"); got != c.want {
				t.Errorf("the INBOX has %q, want %q", got, c.want)
			}
		})
	}
}
