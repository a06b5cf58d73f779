package cluster

import (
	"crypto/tls"
	"net"
	"testing"
	"time"

	"shoal/tests/dialogue"
)

// boxTargets are the boxes' IMAP at the balancer, each by name, with TLS from the first byte.
func (s *service) boxTargets(t *testing.T) map[string]dialogue.Dial {
	t.Helper()
	all := map[string]dialogue.Dial{}
	config := s.tls(t)
	for _, box := range []string{"box1", "box2"} {
		address := s.address("imaps", box)
		all[box] = func() (net.Conn, error) { return tls.Dial("tcp", address, config) }
	}
	return all
}

// Scripts with a client at each box. NOTIFY: a client is told what happens through the other box, in the mailbox that it has
// selected, in others, and to the list of mailboxes. QRESYNC: a client that comes back to the other box is told what has changed
// since, and nothing else.
func TestClientsAtBothBoxes(t *testing.T) {
	s := shared(t)
	for _, name := range []string{"notify", "resync"} {
		u := s.newAccount(t)
		dialogue.RunFiles(t, "testdata/boxes-"+name+".txt", s.boxTargets(t), dialogue.Vars(map[string]string{"user": u.Address, "password": u.Password}),
			dialogue.Timeout(20*time.Second))
	}
}
