package sieve

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"
)

// twentyRules are rules as users make them, none of which but the last holds for the message.
func twentyRules() string {
	var b strings.Builder
	b.WriteString("require [\"fileinto\", \"imap4flags\", \"copy\", \"envelope\", \"body\", \"variables\", \"subaddress\", \"relational\", \"regex\"];\n")
	for i := range 19 {
		switch i % 6 {
		case 0:
			fmt.Fprintf(&b, "if header :contains [\"List-Id\", \"Subject\"] [\"list-%d\", \"[announce %d]\"] { fileinto \"lists.f%d\"; stop; }\n", i, i, i)
		case 1:
			fmt.Fprintf(&b, "if address :domain [\"From\", \"Sender\"] [\"shop%d.test\", \"bank%d.test\"] { fileinto \"f%d\"; stop; }\n", i, i, i)
		case 2:
			fmt.Fprintf(&b, "if header :matches \"Subject\" \"*invoice ?%d*\" { set \"n\" \"${1}\"; fileinto \"${n}\"; stop; }\n", i)
		case 3:
			fmt.Fprintf(&b, "if allof (envelope :detail \"to\" \"d%d\", size :over %dK) { fileinto :copy \"big\"; }\n", i, i)
		case 4:
			fmt.Fprintf(&b, "if anyof (exists \"X-Flag-%d\", header :is \"X-Priority\" \"%d\") { addflag \"\\\\Flagged\"; }\n", i, i)
		case 5:
			fmt.Fprintf(&b, "if body :contains \"unsubscribe from %d\" { fileinto \"junk\"; stop; }\n", i)
		}
	}
	b.WriteString("if header :contains \"Subject\" \"quarterly\" { addflag \"\\\\Seen\"; fileinto \"work\"; }\n")
	return strings.Replace(b.String(), ", \"regex\"", "", 1)
}

// BenchmarkScript is what `make bench BENCH='-only sieve'` runs: the CPU of the process, kernel and collector included, for 20 rules on a
// message of 4 KiB.
func BenchmarkScript(b *testing.B) {
	mail := "Received: from a.test by b.test; Mon, 23 Nov 2026 12:00:00 +0000\nReceived: from c.test by a.test; Mon, 23 Nov 2026 11:59:59 +0000\n" +
		"From: Ann <ann@sender.test>\nTo: Bob <bob@shoal.test>\nSubject: the quarterly figures\nDate: Mon, 23 Nov 2026 12:00:00 +0000\n" +
		"Message-ID: <1@sender.test>\nMIME-Version: 1.0\nContent-Type: text/plain; charset=utf-8\n\n"
	for len(crlf(mail)) < 4096 {
		mail += "The quick brown fox jumps over the lazy dog and goes on its way to the sea.\n"
	}
	e := env(b, mail)
	src := twentyRules()
	s := compile(b, src)
	for name, run := range map[string]func() error{
		"run": func() error {
			o, err := Run(b.Context(), e, s)
			if err == nil && describe(o) != "store work [\\Seen]" {
				err = fmt.Errorf("%s", describe(o))
			}
			return err
		},
		"compile": func() error { _, err := Compile([]byte(src), Options{}); return err },
	} {
		b.Run(name, func(b *testing.B) {
			before := cpuTime()
			n := 0
			for b.Loop() {
				if err := run(); err != nil {
					b.Fatal(err)
				}
				n++
			}
			b.ReportMetric(float64((cpuTime()-before).Nanoseconds())/1000/float64(n), "cpu-µs/op")
		})
	}
}

// cpuTime is what the process has used, in user and system mode.
func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
