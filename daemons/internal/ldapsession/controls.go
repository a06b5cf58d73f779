package ldapsession

import (
	"shoal/daemons/internal/ldapwire"
)

// controls are those of one request that are understood.
type controls struct {
	paged      bool
	pageSize   int32
	pageCookie []byte
	manageDSA  bool
	synced     bool
	sync       ldapwire.SyncRequest
}

// supportedControls are published in the root DSE.
var supportedControls = []string{ldapwire.OIDPagedResults, ldapwire.OIDManageDsaIT, ldapwire.OIDSyncRequest}

// parse reads the controls of a request. A critical one that is unknown, or that does not belong to
// the operation, refuses the request (RFC 4511 §4.1.11).
func (c *controls) parse(m *ldapwire.Message) error {
	*c = controls{}
	for _, k := range m.Controls {
		known := false
		switch string(k.Type) {
		case ldapwire.OIDPagedResults:
			if known = m.Op == ldapwire.OpSearchRequest; known {
				if c.paged {
					return ldapwire.Errorf(ldapwire.ProtocolError, "paged results control given twice")
				}
				var err error
				if c.pageSize, c.pageCookie, err = ldapwire.ParsePaged(k.Value); err != nil {
					return ldapwire.Errorf(ldapwire.ProtocolError, "paged results control: %v", err)
				}
				c.paged = true
			}
		case ldapwire.OIDSyncRequest:
			if known = m.Op == ldapwire.OpSearchRequest; known {
				if c.synced {
					return ldapwire.Errorf(ldapwire.ProtocolError, "sync request control given twice")
				}
				if err := c.sync.Parse(k.Value); err != nil {
					return ldapwire.Errorf(ldapwire.ProtocolError, "sync request control: %v", err)
				}
				c.synced = true
			}
		case ldapwire.OIDManageDsaIT:
			// There are no referral objects that it would uncover.
			known, c.manageDSA = true, true
		}
		if !known && k.Critical && m.Op != ldapwire.OpAbandonRequest && m.Op != ldapwire.OpUnbindRequest {
			return ldapwire.Errorf(ldapwire.UnavailableCriticalExtension, "control %.64q", k.Type)
		}
	}
	return nil
}
