package replica

import (
	"fmt"
	"strings"
	"time"

	"shoal/daemons/internal/ldapwire"
)

// The renewal of a lease is an extended operation (ldapwire.OIDLease) from a shadow to its master, on the connection of
// the synchronization. Both values are text:
//
//	request   "1 <epoch> <milliseconds> <stamp> <voters>"    stamp: of the last answer on this connection, "-" for none;
//	                                                         voters: whom the shadow knows to have a vote, as a digest
//	answer    "1 <epoch> <stamp>"                            stamp: when the master got the request, by its clock since boot
//
// With a request the shadow promises to vote for no other master for so many milliseconds from when it sends it. The
// master counts them from the stamp that the request gives back, which was made before the request was sent: no clocks
// are compared, and a request that was long on its way grants little.

// LeaseRequest is a renewal as the master reads it.
type LeaseRequest struct {
	Epoch uint64
	For   time.Duration
	Stamp string // "" for none
	// Voters is the digest of the electorate that the shadow knows; "" of an older version.
	Voters string
}

// String makes the value of a request.
func (l *LeaseRequest) String() string {
	stamp := l.Stamp
	if stamp == "" {
		stamp = "-"
	}
	return strings.TrimSuffix(fmt.Sprintf("1 %d %d %s %s", l.Epoch, l.For.Milliseconds(), stamp, l.Voters), " ")
}

// ParseLeaseRequest reads the value of a request. The error is an *ldapwire.Error.
func ParseLeaseRequest(value []byte) (l LeaseRequest, err error) {
	var version int
	var ms int64
	if len(value) > 256 {
		return l, ldapwire.Errorf(ldapwire.ProtocolError, "lease: %d octets", len(value))
	}
	if _, err := fmt.Sscanf(string(value), "%d %d %d %s", &version, &l.Epoch, &ms, &l.Stamp); err != nil || version != 1 || ms < 0 || ms > int64(time.Hour/time.Millisecond) {
		return l, ldapwire.Errorf(ldapwire.ProtocolError, "lease: %.64q is no request of version 1", value)
	}
	if f := strings.Fields(string(value)); len(f) > 4 {
		l.Voters = f[4]
	}
	if l.Stamp == "-" {
		l.Stamp = ""
	}
	l.For = time.Duration(ms) * time.Millisecond
	return l, nil
}

// LeaseAnswer makes the value of an answer.
func LeaseAnswer(epoch uint64, stamp string) string { return fmt.Sprintf("1 %d %s", epoch, stamp) }

// renew renews the lease of the provider until the session ends. The second request follows the first answer at once:
// only it grants something.
func (s *session) renew() {
	stamp := ""
	for {
		value, ok := s.r.opt.Lease(stamp)
		answered := false
		if ok {
			if err := s.c.write(ldapwire.AppendExtendedRequest(nil, leaseID, ldapwire.OIDLease, []byte(value))); err != nil {
				s.cancel(fmt.Errorf("lease: %w", err))
				s.c.close()
				return
			}
			select {
			case <-s.ctx.Done():
				return
			case next := <-s.stamps:
				answered = stamp == "" && next != ""
				stamp = next
			}
		}
		if answered {
			continue
		}
		t := s.r.opt.Clock.NewTimer(s.r.opt.Renew)
		select {
		case <-s.ctx.Done():
			t.Stop()
			return
		case <-t.C():
		}
	}
}

// leaseAnswer takes the answer to a renewal. A provider that refuses it, because it knows of no leases or of another
// epoch, is followed all the same: what it may write is its matter.
func (s *session) leaseAnswer(m *ldapwire.Message) error {
	var res ldapwire.Result
	if err := res.Parse(m.Body); err != nil {
		return fmt.Errorf("lease: %w", err)
	}
	stamp := ""
	if res.Code == ldapwire.Success {
		if f := strings.Fields(string(ldapwire.ExtendedValue(m.Body))); len(f) == 3 && f[0] == "1" {
			stamp = f[2]
		}
	}
	select {
	case s.stamps <- stamp:
	default: // nobody asked
	}
	return nil
}
