package dirstore

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"
)

// given and family names of made-up people: some trigrams are common, some are not.
var (
	givenNames  = strings.Fields("Alice Bob Carol Dieter Elena François Greta Håkon Irina Jürgen Katarzyna Luís Mehmet Ngozi Olga Pierre Quentin Rosa Søren Tereza Ulrich Věra Wanda Xavier Yusuf Zoë")
	familyNames = strings.Fields("Ahlberg Becker Castellanos Dvořák Eriksen Fitzgerald Grünwald Hoffmann Ivanova Jankowski Kovács Lindqvist Montgomery Nakamura Okonkwo Pettersson Quintero Rasmussen Schneider Takahashi Ullmann Vandenberg Wojciechowski Xanthopoulos Yamamoto Zimmermann")
)

// benchEntry is entry n of a directory in which 0 to 2 are the top, and the rest are accounts.
func benchEntry(n int) *Replicate {
	op := &Replicate{}
	binary.BigEndian.PutUint64(op.UUID[8:], uint64(n)*0x9e3779b97f4a7c15)
	binary.BigEndian.PutUint64(op.UUID[:], uint64(n)*0xbf58476d1ce4e5b9+1)
	operational := []string{"entryUUID", uuid.UUID(op.UUID).String(), "creatorsName", "cn=admin,o=shoal", "modifiersName", "cn=admin,o=shoal",
		"createTimestamp", "20261123120000Z", "modifyTimestamp", "20261123120000Z",
		"entryCSN", fmt.Sprintf("20261123%02d%02d%02d.%06dZ#000000#000#000000", n/3600%24, n/60%60, n%60, n%1000000)}
	switch n {
	case 0:
		op.DN, op.Attributes = []byte("o=shoal"), attrs(append(operational, "objectClass", "organization", "structuralObjectClass", "organization", "o", "shoal")...)
	case 1:
		op.DN, op.Attributes = []byte("ou=domains,o=shoal"), attrs(append(operational, "objectClass", "organizationalUnit", "structuralObjectClass", "organizationalUnit", "ou", "domains")...)
	case 2:
		op.DN, op.Attributes = []byte("associatedDomain=a.test,ou=domains,o=shoal"), attrs(append(operational, "objectClass", "shoalDomain",
			"objectClass", "domainRelatedObject", "structuralObjectClass", "shoalDomain", "associatedDomain", "a.test")...)
	default:
		given, family := givenNames[n*7%len(givenNames)], familyNames[n*11%len(familyNames)]
		uid := fmt.Sprintf("u%07d", n)
		mail := fmt.Sprintf("%s.%s%d@a.test", strings.ToLower(given), strings.ToLower(family), n)
		op.DN = []byte("uid=" + uid + ",associatedDomain=a.test,ou=domains,o=shoal")
		op.Attributes = attrs(append(operational, "objectClass", "inetOrgPerson", "objectClass", "inetLocalMailRecipient", "objectClass", "shoalAccount",
			"structuralObjectClass", "inetOrgPerson", "uid", uid, "cn", given+" "+family, "sn", family, "givenName", given, "mail", mail, "mailLocalAddress", mail,
			"shoalAccountId", fmt.Sprintf("acct-%010d", n), "shoalVolumeName", "vol01", "shoalAccountStatus", "active", "shoalQuotaStorage", "2147483648",
			"userPassword", "{ARGON2}$argon2id$v=19$m=19456,t=2,p=1$c29tZXNhbHRzb21lc2FsdA$wWKIMhR9lyDFvRz9YTZweHKfftftcj+qf+YFY4NeBtA")...)
	}
	return op
}

func cpu() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// residentPeak is the most memory the process had, in MiB, since reset.
func residentPeak() float64 {
	raw, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(raw)) {
		var kib float64
		if n, _ := fmt.Sscanf(line, "VmHWM: %f kB", &kib); n == 1 {
			return kib / 1024
		}
	}
	return 0
}

// BenchmarkLoad loads a directory of accounts into an empty store, with all flushing. The peak includes the pages of the new file.
func BenchmarkLoad(b *testing.B) {
	for _, n := range []int{100_000, 1_000_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			for b.Loop() {
				b.StopTimer()
				s := open(b, func(o *Options) { o.Path = filepath.Join(b.TempDir(), "db"); o.Unsynced = false })
				_ = os.WriteFile("/proc/self/clear_refs", []byte("5"), 0)
				heap := watchHeap()
				begun := cpu()
				b.StartTimer()
				l, err := s.Load()
				if err != nil {
					b.Fatal(err)
				}
				for i := range n {
					if err := l.Add(benchEntry(i)); err != nil {
						b.Fatal(err)
					}
				}
				streamed := cpu()
				if _, _, err := l.Build(); err != nil {
					b.Fatal(err)
				}
				csn := "20261123120000.000000Z#000000#000#000000"
				if err := l.Replace(&Context{CSNs: []string{csn}, Cookie: []byte("rid=001,csn=" + csn), Refresh: RefreshEnds}); err != nil {
					b.Fatal(err)
				}
				b.StopTimer()
				b.ReportMetric((cpu() - begun).Seconds(), "cpu-s")
				b.ReportMetric((streamed - begun).Seconds(), "cpu-s-adding")
				b.ReportMetric(heap(), "heap-MiB")
				b.ReportMetric(residentPeak(), "resident-MiB")
				b.ReportMetric(float64(s.Size())/(1<<20), "file-MiB")
				if s.Entries() != int64(n) {
					b.Fatalf("%d entries", s.Entries())
				}
				if err := s.Close(); err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
			}
		})
	}
}

// watchHeap samples the heap; the function returned tells the most that was seen, in MiB.
func watchHeap() func() float64 {
	stop, most := make(chan struct{}), make(chan uint64)
	go func() {
		var max uint64
		t := time.NewTicker(50 * time.Millisecond)
		defer t.Stop()
		for {
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			if m.HeapInuse > max {
				max = m.HeapInuse
			}
			select {
			case <-t.C:
			case <-stop:
				most <- max
				return
			}
		}
	}()
	return func() float64 { close(stop); return float64(<-most) / (1 << 20) }
}
