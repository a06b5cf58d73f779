package replica

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"shoal/daemons/internal/dirstore"
	"shoal/daemons/internal/ldapwire"
)

// The attributes by which a vaultd says in its root DSE who it is in the directory.
const (
	AttributeMode   = "shoalDirectoryMode"
	AttributeEpoch  = "shoalDirectoryEpoch"
	AttributeMaster = "shoalDirectoryMaster"
	// AttributeContent is the agreement by which it has a part of the directory only.
	AttributeContent = "shoalDirectoryContent"
)

// Modes in the root DSE.
const (
	ModeMaster    = "master"
	ModeShadow    = "shadow"
	ModeCandidate = "candidate" // voted for itself, and is not the master yet
)

// Message ids of the questions before the synchronization.
const (
	rootID    = 5
	contextID = 6
	ownID     = 7
)

// Introduce asks the vault at a URI who it is, without a bind.
func Introduce(ctx context.Context, uri string, verify *tls.Config, timeout time.Duration) (*Provider, error) {
	e, err := parseURI(uri)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	c, err := dial(ctx, e, verify, timeout)
	if err != nil {
		return nil, err
	}
	defer c.close()
	stop := context.AfterFunc(ctx, c.close)
	defer stop()
	p := &Provider{URI: uri}
	return p, c.root(p)
}

// introduce asks a server who it is. It is bound, and nothing else is under way. A server without such attributes is
// no vaultd.
func (c *conn) introduce(s *dirstore.Store, own string) (*Provider, error) {
	p, suffix := &Provider{}, s.Suffix()
	if err := c.root(p); err != nil {
		return nil, err
	}
	err := c.lookUp(ownID, own, dirstore.AgreementAttributes, func(name, value string) { p.Agreement.Set(s.Schema(), name, value) })
	var refused *ldapwire.Error
	if errors.As(err, &refused) && refused.Code == ldapwire.InsufficientAccessRights && !p.Vault {
		err = nil // a server of another kind, which has no agreements
	}
	if err != nil {
		return nil, err
	}
	if !p.agrees && !p.Agreement.Whole() {
		return nil, fmt.Errorf("%s has an agreement, which this provider does not keep to: OpenLDAP and older versions of vaultd do not", own)
	}
	return p, c.lookUp(contextID, suffix, []string{"contextCSN"}, func(_, value string) { p.Context = append(p.Context, value) })
}

// root reads the root DSE.
func (c *conn) root(p *Provider) error {
	return c.lookUp(rootID, "", []string{AttributeMode, AttributeEpoch, AttributeMaster, AttributeContent, "supportedFeatures"}, func(name, value string) {
		switch {
		case strings.EqualFold(name, AttributeMode):
			p.Vault, p.Mode = true, value
		case strings.EqualFold(name, AttributeEpoch):
			p.Epoch, _ = strconv.ParseUint(value, 10, 64) // of the schema's syntax
		case strings.EqualFold(name, AttributeMaster):
			p.Master = value
		case strings.EqualFold(name, "supportedFeatures"):
			p.agrees = p.agrees || value == ldapwire.OIDAgreements
		case strings.EqualFold(name, AttributeContent):
			p.Content = value
		}
	})
}

// lookUp reads attributes of one entry; none if there is no such entry.
func (c *conn) lookUp(id int32, base string, attributes []string, each func(name, value string)) error {
	if err := c.write(ldapwire.AppendSearchRequest(nil, id, base, ldapwire.BaseObject, attributes, nil)); err != nil {
		return err
	}
	for {
		m, err := c.read(c.timeout)
		if err != nil {
			return err
		}
		switch {
		case m.ID == id && m.Op == ldapwire.OpSearchResultEntry:
			var e ldapwire.Entry
			if err := ldapwire.ParseEntry(&e, m.Body, wireLimits); err != nil {
				return err
			}
			for _, a := range e.Attributes {
				for _, v := range a.Values {
					each(string(a.Type), string(v))
				}
			}
		case m.Op == ldapwire.OpSearchResultDone || m.ID == 0:
			var res ldapwire.Result
			if err := res.Parse(m.Body); err != nil {
				return err
			}
			if res.Code == ldapwire.NoSuchObject {
				return nil
			}
			return res.Err()
		}
	}
}
