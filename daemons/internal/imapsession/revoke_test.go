package imapsession

import (
	"bufio"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"
)

// A login that is taken back ends its session with BYE, in IDLE and between commands.
func TestLoginTakenBack(t *testing.T) {
	for _, idle := range []bool{false, true} {
		r := newRig(t, nil)
		c, err := net.Dial("tcp", r.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(time.Minute))
		lines := bufio.NewScanner(c)
		until := func(what string) {
			t.Helper()
			for lines.Scan() {
				if strings.Contains(lines.Text(), what) {
					return
				}
			}
			t.Fatalf("idle %v: no %q: %v", idle, what, lines.Err())
		}
		until("* OK")
		fmt.Fprintf(c, "a LOGIN alice secret\r\n")
		until("a OK")
		if idle {
			fmt.Fprintf(c, "b SELECT INBOX\r\n")
			until("b OK")
			fmt.Fprintf(c, "c IDLE\r\n")
			until("+ ")
		}
		r.auth.revoke("alice@example.test")
		until("* BYE")
		for lines.Scan() {
			t.Errorf("idle %v: after BYE: %q", idle, lines.Text())
		}
	}
}
