package replica_test

import (
	"encoding/binary"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"

	"shoal/daemons/internal/dirstore"
	"shoal/daemons/internal/replica"
)

var (
	givenNames  = strings.Fields("Alice Bob Carol Dieter Elena François Greta Håkon Irina Jürgen Katarzyna Luís Mehmet Ngozi Olga Pierre Quentin Rosa Søren Tereza Ulrich Věra Wanda Xavier Yusuf Zoë")
	familyNames = strings.Fields("Ahlberg Becker Castellanos Dvořák Eriksen Fitzgerald Grünwald Hoffmann Ivanova Jankowski Kovács Lindqvist Montgomery Nakamura Okonkwo Pettersson Quintero Rasmussen Schneider Takahashi Ullmann Vandenberg Wojciechowski Xanthopoulos Yamamoto Zimmermann")
)

// account is entry n as another server would send it.
func account(n int) *dirstore.Replicate {
	op := &dirstore.Replicate{}
	binary.BigEndian.PutUint64(op.UUID[8:], uint64(n)*0x9e3779b97f4a7c15)
	binary.BigEndian.PutUint64(op.UUID[:], uint64(n)*0xbf58476d1ce4e5b9+1)
	given, family, uid := givenNames[n*7%len(givenNames)], familyNames[n*11%len(familyNames)], fmt.Sprintf("u%07d", n)
	mail := fmt.Sprintf("%s.%s%d@a.test", strings.ToLower(given), strings.ToLower(family), n)
	op.DN = []byte("uid=" + uid + ",ou=people,o=shoal")
	op.Attributes = attributes("entryUUID", uuid.UUID(op.UUID).String(), "creatorsName", root, "modifiersName", root,
		"createTimestamp", "20261123120000Z", "modifyTimestamp", "20261123120000Z",
		"entryCSN", fmt.Sprintf("20261123%02d%02d%02d.%06dZ#000000#000#000000", n/3600%24, n/60%60, n%60, n%1000000),
		"objectClass", "inetOrgPerson", "objectClass", "inetLocalMailRecipient", "objectClass", "shoalAccount",
		"structuralObjectClass", "inetOrgPerson", "uid", uid, "cn", given+" "+family, "sn", family, "givenName", given, "mail", mail, "mailLocalAddress", mail,
		"shoalAccountId", fmt.Sprintf("acct-%010d", n), "shoalVolumeName", "vol01", "shoalAccountStatus", "active", "shoalQuotaStorage", "2147483648",
		"userPassword", "{ARGON2}$argon2id$v=19$m=19456,t=2,p=1$c29tZXNhbHRzb21lc2FsdA$wWKIMhR9lyDFvRz9YTZweHKfftftcj+qf+YFY4NeBtA")
	return op
}

// stock replaces the content of the master by a large one. Its few own entries are taken over.
func (m *master) stock(n int) {
	m.t.Helper()
	var own []*dirstore.Replicate
	r, err := m.store.Read()
	check(m.t, err)
	for _, dn := range []string{"o=shoal", "ou=people,o=shoal", "cn=vault2,o=shoal"} {
		norm, err := m.store.CheckDN([]byte(dn))
		check(m.t, err)
		id, err := r.Resolve(norm)
		check(m.t, err)
		f, _, err := r.Get(id)
		check(m.t, err)
		e, err := r.Entry(&f)
		check(m.t, err)
		op := &dirstore.Replicate{UUID: r.UUID(&f), DN: []byte(e.DN)}
		for _, a := range e.Attributes {
			op.Attributes = append(op.Attributes, attributes(a.Desc.String(), "")...)
			op.Attributes[len(op.Attributes)-1].Values = a.Values
		}
		own = append(own, op)
	}
	r.Close()
	csns := m.store.ContextCSN()
	load, err := m.store.Load()
	check(m.t, err)
	for _, op := range own {
		check(m.t, load.Add(op))
	}
	for i := range n {
		check(m.t, load.Add(account(i)))
	}
	_, _, err = load.Build()
	check(m.t, err)
	check(m.t, load.Replace(&dirstore.Context{CSNs: csns, Refresh: dirstore.RefreshEnds}))
}

// BenchmarkRefresh copies a whole directory over TLS to a new shadow, with all flushing. Master and shadow are
// one process here: the CPU is of both together.
func BenchmarkRefresh(b *testing.B) {
	for _, n := range []int{100_000, 1_000_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			m := newMaster(b)
			m.stock(n)
			for b.Loop() {
				b.StopTimer()
				s := &shadow{t: b, m: m, dir: b.TempDir(), dn: "cn=vault2,o=shoal", pass: "vaultpass", synced: true}
				_ = os.WriteFile("/proc/self/clear_refs", []byte("5"), 0)
				begun := used()
				b.StartTimer()
				s.start()
				tick := time.NewTicker(5 * time.Millisecond)
				for s.replica.Status().State != replica.Following {
					<-tick.C
				}
				tick.Stop()
				b.StopTimer()
				b.ReportMetric((used() - begun).Seconds(), "cpu-s")
				b.ReportMetric(anonymous(), "anonymous-MiB")
				if s.store.Entries() != int64(n)+3 {
					b.Fatalf("%d entries", s.store.Entries())
				}
				s.stop()
				b.StartTimer()
			}
		})
	}
}

func used() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// anonymous is the memory of the process that no file stands behind, in MiB.
func anonymous() float64 {
	raw, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(raw)) {
		var kib float64
		if n, _ := fmt.Sscanf(line, "RssAnon: %f kB", &kib); n == 1 {
			return kib / 1024
		}
	}
	return 0
}
