package cluster

import (
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// Time and senders of the crash test.
const (
	crashFor     = 75 * time.Second
	crashSenders = 4
)

// sent is what a sender knows of one message.
type sent struct {
	acknowledged bool // a 250 after the data was seen
	unsure       bool // an attempt ended without a 250 after the data: a duplicate is allowed
	queued       bool // the 250 said that the message is queued: its box may have died with the answer
}

// TestKillAfter250 kills boxes and switches with SIGKILL, sometimes in the moment after a 250 was seen and
// sometimes at any moment, while several senders send. A sender whose attempt fails tries again, as mail servers
// do. Then every acknowledged message must be there, from either box, and only those twice whose first 250
// was not seen by the sender: what a switch tries again because a box died with its answer comes once.
func TestKillAfter250(t *testing.T) {
	s := shared(t)
	u := s.newAccount(t)
	k := &killer{s: s, victims: []string{"box1", "switch1", "box2", "switch2"}, ask: make(chan struct{}, 1)}
	stop := make(chan struct{})
	var killing sync.WaitGroup
	killing.Go(func() { k.run(stop) })

	var mu sync.Mutex
	all := map[string]*sent{}
	var senders sync.WaitGroup
	deadline := time.Now().Add(crashFor)
	for n := range crashSenders {
		senders.Go(func() {
			for i := 0; time.Now().Before(deadline); i++ {
				id := fmt.Sprintf("crash-%d-%d", n, i)
				state := &sent{}
				mu.Lock()
				all[id] = state
				mu.Unlock()
				for !state.acknowledged && time.Now().Before(deadline.Add(30*time.Second)) {
					s.attempt(u, id, state)
				}
				if rand.IntN(3) == 0 {
					k.now() // right after the 250
				}
			}
		})
	}
	senders.Wait()
	close(stop)
	killing.Wait()
	s.waitUp(t)
	eventually(t, 2*time.Minute, func() error { // what was queued while boxes were away
		s.shoalctl(t, "queue", "retry", "--all")
		if n, out := s.queued(t); n != 0 {
			return fmt.Errorf("%d entries are queued:\n%s", n, out)
		}
		return nil
	})

	s.drainQueue(t)
	acknowledged := s.nothingLost(t, u, all)
	kills := k.kills.Load()
	t.Logf("%d kills", kills)
	if kills < 20 || acknowledged < 100 {
		t.Errorf("%d kills and %d messages are too few to show anything", kills, acknowledged)
	}
}

// attempt sends a message once and notes what is known afterwards.
func (s *service) attempt(u user, id string, state *sent) {
	c, err := dialSMTP(s.address("smtp"))
	if err != nil {
		return
	}
	defer c.Close()
	if c.begin("sender@example.org", u.Address) != nil {
		return
	}
	_ = c.finish(message(id, 500+rand.IntN(20000)), state) // the state says
}

// finish sends the message after begin, and notes what is known then.
func (c *smtpSession) finish(message string, state *sent) error {
	if _, err := io.WriteString(c.conn, message+".\r\n"); err != nil {
		state.unsure = true
		return err
	}
	_, text, err := c.ReadResponse(250)
	if err != nil {
		state.unsure = true // also after a 451: the switch may have lost the box's answer
		return err
	}
	state.acknowledged, state.queued = true, strings.Contains(text, "Queued")
	return nil
}

// killer ends one server after the other, never all boxes or all switches at once: a victim is chosen only
// when every server has come back.
type killer struct {
	s       *service
	victims []string
	ask     chan struct{}
	kills   atomic.Int64
}

// now asks for a kill at once.
func (k *killer) now() {
	select {
	case k.ask <- struct{}{}:
	default:
	}
}

func (k *killer) run(stop chan struct{}) {
	for i := 0; ; i++ {
		select {
		case <-stop:
			return
		case <-k.ask:
		case <-time.After(time.Duration(300+rand.IntN(900)) * time.Millisecond):
		}
		// One of a kind at a time; in every third round a box and a switch together.
		names := []string{k.victims[i%len(k.victims)]}
		if i%3 == 0 {
			names = append(names, k.victims[(i+1)%len(k.victims)])
		}
		before := map[string]int{}
		for _, name := range names {
			if pid := k.s.pid(name); pid != 0 {
				before[name] = pid
				_ = syscall.Kill(pid, syscall.SIGKILL)
				k.kills.Add(1)
			}
		}
		for name, pid := range before {
			for n := 0; n < 1000; n++ { // started again, with a new process
				if now := k.s.pid(name); now != 0 && now != pid {
					break
				}
				select {
				case <-stop:
					return
				case <-time.After(10 * time.Millisecond):
				}
			}
		}
	}
}
