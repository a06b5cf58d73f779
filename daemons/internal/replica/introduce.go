package replica

import (
	"context"
	"crypto/tls"
	"strconv"
	"strings"
	"time"

	"shoal/daemons/internal/ldapwire"
)

// The attributes by which a vaultd says in its root DSE who it is in the directory.
const (
	AttributeMode   = "shoalDirectoryMode"
	AttributeEpoch  = "shoalDirectoryEpoch"
	AttributeMaster = "shoalDirectoryMaster"
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
func (c *conn) introduce(suffix string) (*Provider, error) {
	p := &Provider{}
	if err := c.root(p); err != nil {
		return nil, err
	}
	return p, c.lookUp(contextID, suffix, []string{"contextCSN"}, func(_, value string) { p.Context = append(p.Context, value) })
}

// root reads the root DSE.
func (c *conn) root(p *Provider) error {
	return c.lookUp(rootID, "", []string{AttributeMode, AttributeEpoch, AttributeMaster}, func(name, value string) {
		switch {
		case strings.EqualFold(name, AttributeMode):
			p.Vault, p.Mode = true, value
		case strings.EqualFold(name, AttributeEpoch):
			p.Epoch, _ = strconv.ParseUint(value, 10, 64) // of the schema's syntax
		case strings.EqualFold(name, AttributeMaster):
			p.Master = value
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
