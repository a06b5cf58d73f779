package imapsession

import (
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"shoal/daemons/internal/clock"
	"shoal/daemons/internal/mailstore"
	"shoal/daemons/internal/vfs"
)

// cluster is several boxes on one volume, which send each other hints.
type cluster struct {
	boxes []*rig
}

func newCluster(t testing.TB, n int) *cluster {
	t.Helper()
	dir := t.TempDir()
	fs := vfs.OS()
	if err := mailstore.InitVolume(fs, dir, volumeID); err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	stores := map[string]*mailstore.Store{}
	c := new(cluster)
	for i := range n {
		name := "box" + itoa(uint64(i+1))
		store, err := mailstore.New(mailstore.Options{
			Server: name, FS: fs, Clock: clock.System(), Log: quiet(), HintAddress: name, Metrics: prometheus.NewRegistry(),
			Notify: func(addr string, ref mailstore.Ref) {
				mu.Lock()
				to := stores[addr]
				mu.Unlock()
				if to != nil {
					to.Hint(ref)
				}
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := store.AddVolume("vol01", dir, volumeID); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { store.Close() })
		mu.Lock()
		stores[name] = store
		mu.Unlock()
		c.boxes = append(c.boxes, newRigOn(t, store, nil))
	}
	return c
}

// What happens through one box is told to an idling client of another, each kind of change within a
// short time, which is printed.
func TestPushAcrossBoxes(t *testing.T) {
	c := newCluster(t, 2)
	watch := c.boxes[0].connect("alice")
	watch.ok("SELECT INBOX")
	watch.send("x IDLE\r\n")
	watch.expect("+ ")
	change := c.boxes[1].connect("alice")
	change.ok("SELECT INBOX")
	var delays []time.Duration
	step := func(command string, answers ...string) {
		t.Helper()
		begin := time.Now()
		change.ok(command)
		for _, a := range answers {
			watch.expect(a)
		}
		delays = append(delays, time.Since(begin))
	}
	for range 20 {
		step("APPEND INBOX {6+}\r\na: b\r\n", "* 1 EXISTS", "* 1 RECENT")
		step(`STORE 1 FLAGS (\Flagged)`, `* 1 FETCH (FLAGS (\Flagged \Recent))`)
		step(`STORE 1 FLAGS (\Deleted)`, `* 1 FETCH (FLAGS (\Deleted \Recent))`)
		step("EXPUNGE", "* 1 EXPUNGE")
	}
	slices.Sort(delays)
	t.Logf("from the command to its answer at the other box: median %v, 95%% %v, longest %v",
		delays[len(delays)/2], delays[len(delays)*95/100], delays[len(delays)-1])
}

// The same over TLS.
func TestPushOverTLS(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	conn, err := r.dialTLS()
	c := newClient(t, conn, err)
	c.expect("* OK")
	c.ok("LOGIN alice secret")
	c.ok("SELECT INBOX")
	for range 3 {
		c.send("x IDLE\r\n")
		c.expect("+ ")
		r.deliver("alice", "INBOX", "a: b\r\n")
		c.expect("* ")
		c.expect("* ")
		c.send("DONE\r\n")
		c.expect("x OK")
	}
}
