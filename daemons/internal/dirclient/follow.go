package dirclient

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/go-ldap/ldap/v3"

	"shoal/daemons/internal/ldapwire"
)

// The client hears of changes by a persist search (RFC 4533) on a connection of its own, and forgets the answers
// that they concern. It begins at the directory's present contextCSN, so that nothing but changes comes, and asks for
// names only. Where the directory does not know that search, or while none answers, the short life of the cache
// is what remains.
//
// The server that is followed may be another one than the next lookup asks, and that one may hear of the change a
// little later: what was forgotten is therefore forgotten once more after settleTime.
const (
	gatherTime  = 20 * time.Millisecond // changes that come together are looked at together
	settleTime  = 500 * time.Millisecond
	maxGathered = 1000 // more names than this: everything is forgotten
	followFirst = 100 * time.Millisecond
	followLast  = 10 * time.Second
)

// follow follows the directory until the client is closed.
func (c *Client) follow() {
	wait := followFirst
	for {
		for _, ep := range c.endpoints {
			began, err := c.followOne(ep)
			if c.ctx.Err() != nil {
				return
			}
			if began {
				wait = followFirst
			}
			c.log.Debug("directory changes are not followed", "uri", ep.uri, "error", err)
		}
		t := time.NewTimer(wait/2 + rand.N(wait/2+1))
		select {
		case <-c.ctx.Done():
			t.Stop()
			return
		case <-t.C:
		}
		wait = min(2*wait, followLast)
	}
}

// followOne follows one server until that fails. began tells that it worked at first.
func (c *Client) followOne(ep *endpoint) (began bool, err error) {
	ctx, cancel := context.WithCancel(c.ctx)
	defer cancel()
	cn, err := c.connect(ctx, ep, true)
	if err != nil {
		return false, err
	}
	defer cn.close()
	cookie, err := c.position(ctx, cn)
	if err != nil {
		return false, err
	}
	stop := context.AfterFunc(ctx, cn.close)
	defer stop()
	request := ldap.NewSearchRequest(c.opt.Suffix, ldap.ScopeWholeSubtree, ldap.NeverDerefAliases, 0, 0, false, "(objectClass=*)", []string{"1.1"}, nil)
	changes := cn.l.Syncrepl(ctx, request, 64, ldap.SyncRequestModeRefreshAndPersist, cookie, false)
	names := make(chan string, 64)
	ended := make(chan error, 1)
	go func() { ended <- c.listen(ctx, cn, changes, names) }()
	return c.forgetting(names), <-ended
}

// position is a cookie for what the directory holds now.
func (c *Client) position(ctx context.Context, cn *conn) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, c.opt.Timeout)
	defer cancel()
	var csns []string
	err := cn.do(ctx, func(l *ldap.Conn) error {
		res, err := l.Search(ldap.NewSearchRequest(c.opt.Suffix, ldap.ScopeBaseObject, ldap.NeverDerefAliases, 1, 0, false, "(objectClass=*)", []string{"contextCSN"}, nil))
		if err == nil && len(res.Entries) > 0 {
			csns = res.Entries[0].GetAttributeValues("contextCSN")
		}
		return err
	})
	if err == nil && len(csns) == 0 {
		err = errors.New("the directory shows no contextCSN")
	}
	slices.Sort(csns)
	return (&ldapwire.SyncCookie{CSNs: csns}).Append(nil), err
}

// everything is a name that stands for all.
const everything = ""

// listen turns messages into names of changed entries, until the search ends. The end of the refresh stage is
// everything, too: what changed before it was not heard.
func (c *Client) listen(ctx context.Context, cn *conn, changes ldap.Response, names chan<- string) error {
	defer close(names)
	refreshing := true
	for changes.Next() {
		cn.raw.budget.Store(maxAnswer)
		name, tell := everything, false
		if e := changes.Entry(); e != nil {
			name, tell = e.DN, true
		}
		for _, control := range changes.Controls() {
			info, ok := control.(*ldap.ControlSyncInfo)
			if !ok {
				continue
			}
			switch info.Value {
			case ldap.SyncInfoSyncIdSet: // deletions, of which nobody knows the names
				tell = tell || !refreshing
			case ldap.SyncInfoRefreshDelete, ldap.SyncInfoRefreshPresent:
				refreshing, tell = false, true
			}
		}
		if !tell {
			continue
		}
		select {
		case names <- name:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if err := changes.Err(); err != nil {
		return fmt.Errorf("persist search: %w", err)
	}
	return errors.New("persist search ended")
}

// forgetting forgets what names tell, until there are no more; began tells that one came.
func (c *Client) forgetting(names <-chan string) (began bool) {
	gathered, settling := map[string]bool{}, map[string]bool{}
	var now, again <-chan time.Time
	for {
		select {
		case name, more := <-names:
			if !more {
				return began
			}
			if !began {
				began = true
				c.log.Debug("directory changes are followed")
			}
			if len(gathered) > maxGathered {
				name = everything
			}
			gathered[lower(name)] = true
			if now == nil {
				now = time.After(gatherTime)
			}
		case <-now:
			c.forget(gathered)
			for name := range gathered {
				settling[name] = true
			}
			clear(gathered)
			now = nil
			if again == nil {
				again = time.After(settleTime)
			}
		case <-again:
			c.forget(settling)
			clear(settling)
			again = nil
		}
	}
}

// forget ends the life of the answers that the entries with these names may have changed. An account is known by its own
// name; any other entry may have a part in many answers.
func (c *Client) forget(names map[string]bool) {
	accounts := "," + strings.ToLower(domainsDN(c.opt.Suffix))
	if c.opt.Changed != nil {
		if names[everything] {
			c.opt.Changed(nil)
		} else {
			c.opt.Changed(names)
		}
	}
	for name := range names {
		if _, _, ok := appPasswordName(name, accounts); ok {
			continue
		}
		if !strings.HasPrefix(name, attrUID+"=") || !strings.HasSuffix(name, accounts) {
			c.Flush()
			return
		}
	}
	of := func(a *Account) bool { return a != nil && names[lower(a.DN)] }
	c.accounts.end(of)
	c.ids.end(of)
	c.apps.end(func(p *AppPassword) bool { return p != nil && names[lower(p.DN)] })
}
