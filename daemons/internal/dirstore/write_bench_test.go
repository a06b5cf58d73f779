package dirstore

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"shoal/daemons/internal/ldapwire"
)

// BenchmarkWrites makes durable changes of a directory of 100,000 entries, by 8 at once: CPU, flushes of the log and of the
// database, and how many changes share a commit.
func BenchmarkWrites(b *testing.B) {
	var flushes, checkpoints, commits atomic.Int64
	s := open(b, func(o *Options) {
		o.Unsynced = false
		o.logFile = func(l logFile) logFile { return countedLog{l, &flushes} }
		o.flushing = func() { checkpoints.Add(1) }
	})
	l, err := s.Load()
	if err != nil {
		b.Fatal(err)
	}
	for n := range 100000 {
		if err := l.Add(benchEntry(n)); err != nil {
			b.Fatal(err)
		}
	}
	if _, _, err := l.Build(); err != nil {
		b.Fatal(err)
	}
	if err := l.Replace(&Context{CSNs: s.ContextCSN()}); err != nil {
		b.Fatal(err)
	}
	round := 0
	const parent = "associatedDomain=a.test,ou=domains,o=shoal"
	for _, c := range []struct {
		name string
		op   func(n int) Operation
	}{
		{"add", func(n int) Operation {
			return &Add{DN: fmt.Appendf(nil, "uid=new%d-%d,%s", round, n, parent), Attributes: attrs("objectClass", "inetOrgPerson",
				"uid", fmt.Sprintf("new%d-%d", round, n), "cn", fmt.Sprintf("New %d", n), "sn", "New", "mail", fmt.Sprintf("new%d.%d@bench.test", round, n))}
		}},
		{"modify", func(n int) Operation {
			return &Modify{DN: fmt.Appendf(nil, "uid=u%07d,%s", 3+n%90000, parent), Changes: []ldapwire.Change{{Op: ldapwire.ChangeReplace,
				Attribute: ldapwire.Attribute{Type: []byte("telephoneNumber"), Values: [][]byte{fmt.Appendf(nil, "+1 555 %07d", n)}}}}}
		}},
	} {
		b.Run(c.name, func(b *testing.B) {
			round++
			flushes.Store(0)
			checkpoints.Store(0)
			commits.Store(int64(s.commits()))
			var next atomic.Int64
			var all sync.WaitGroup
			began := cpu()
			b.ResetTimer()
			for range 8 {
				all.Go(func() {
					for n := next.Add(1); n <= int64(b.N); n = next.Add(1) {
						if err := s.Do("cn=admin,o=shoal", c.op(int(n))); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			all.Wait()
			b.ReportMetric(float64((cpu()-began).Microseconds())/float64(b.N), "cpu-µs/op")
			b.ReportMetric(float64(flushes.Load())/float64(b.N), "flushes/op")
			b.ReportMetric(float64(checkpoints.Load()), "checkpoints")
			b.ReportMetric(float64(b.N)/float64(int64(s.commits())-commits.Load()), "ops/commit")
		})
	}
}

// commits is the number of the newest transaction.
func (s *Store) commits() int {
	r, err := s.Read()
	if err != nil {
		return 0
	}
	defer r.Close()
	return r.tx.ID()
}

type countedLog struct {
	logFile
	n *atomic.Int64
}

func (c countedLog) Sync() error {
	c.n.Add(1)
	return c.logFile.Sync()
}
