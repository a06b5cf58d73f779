package ldapsession

import (
	"bytes"
	"errors"
	"slices"

	"shoal/daemons/internal/access"
	"shoal/daemons/internal/dirstore"
	"shoal/daemons/internal/ldapwire"
)

// controls are those of one request that are understood. Their bytes lie in the request.
type controls struct {
	used       bool // any of the others
	paged      bool
	pageSize   int32
	pageCookie []byte
	manage     bool // ManageDsaIT
	policy     bool
	synced     bool
	sync       ldapwire.SyncRequest
	asserted   bool
	assertion  ldapwire.Filter
	before     *selected // pre-read
	after      *selected // post-read
	subentries bool      // the control is there
	visible    bool      // and asks for subentries
	noOp       bool
	original   bool // RFC 6171: no copy will do
	tree       bool
	proxied    bool
	proxy      []byte
	valued     bool
	values     ldapwire.Filter
	sorted     bool
	mustSort   bool
	sort       []ldapwire.SortKey
	viewed     bool
	view       ldapwire.ListView
	inTxn      bool
	txn        []byte
}

// selected is a list of attributes that a control carries.
type selected struct {
	raw  []byte
	list [][]byte
}

// control is a control that this server knows: what its value means, and for which operations.
type control struct {
	oid   string
	ops   []ldapwire.Op
	value bool // must have one
	parse func(c *controls, k *ldapwire.Control, lim ldapwire.Limits) error
}

var (
	onSearch  = []ldapwire.Op{ldapwire.OpSearchRequest}
	onUpdates = []ldapwire.Op{ldapwire.OpAddRequest, ldapwire.OpModifyRequest, ldapwire.OpDelRequest, ldapwire.OpModifyDNRequest}
	onEntries = append([]ldapwire.Op{ldapwire.OpSearchRequest, ldapwire.OpCompareRequest}, onUpdates...)
	onAll     = append([]ldapwire.Op{ldapwire.OpExtendedRequest}, onEntries...)
)

// supported is the table of controls, in the order in which the root DSE names them.
var supported = []control{
	{ldapwire.OIDPagedResults, onSearch, true, func(c *controls, k *ldapwire.Control, _ ldapwire.Limits) (err error) {
		c.paged = true
		c.pageSize, c.pageCookie, err = ldapwire.ParsePaged(k.Value)
		return err
	}},
	{ldapwire.OIDSortRequest, onSearch, true, func(c *controls, k *ldapwire.Control, _ ldapwire.Limits) (err error) {
		c.sorted, c.mustSort = true, k.Critical
		c.sort, err = ldapwire.ParseSort(k.Value)
		return err
	}},
	{ldapwire.OIDListViewRequest, onSearch, true, func(c *controls, k *ldapwire.Control, _ ldapwire.Limits) error {
		c.viewed = true
		return c.view.Parse(k.Value)
	}},
	{ldapwire.OIDMatchedValues, onSearch, true, func(c *controls, k *ldapwire.Control, lim ldapwire.Limits) error {
		c.valued = true
		return c.values.ParseValues(k.Value, lim)
	}},
	{ldapwire.OIDSubentries, onSearch, true, func(c *controls, k *ldapwire.Control, _ ldapwire.Limits) (err error) {
		c.subentries = true
		c.visible, err = ldapwire.ParseVisibility(k.Value)
		return err
	}},
	{ldapwire.OIDSyncRequest, onSearch, true, func(c *controls, k *ldapwire.Control, _ ldapwire.Limits) error {
		c.synced = true
		return c.sync.Parse(k.Value)
	}},
	{ldapwire.OIDManageDsaIT, onAll, false, func(c *controls, _ *ldapwire.Control, _ ldapwire.Limits) error {
		c.manage = true
		return nil
	}},
	// What there is to say comes with binds and changes of passwords; elsewhere it is nothing.
	{ldapwire.OIDPasswordPolicy, append([]ldapwire.Op{ldapwire.OpBindRequest}, onAll...), false, func(c *controls, _ *ldapwire.Control, _ ldapwire.Limits) error {
		c.policy = true
		return nil
	}},
	{ldapwire.OIDAssertion, onEntries, true, func(c *controls, k *ldapwire.Control, lim ldapwire.Limits) error {
		c.asserted = true
		return c.assertion.Parse(k.Value, lim)
	}},
	{ldapwire.OIDPreRead, []ldapwire.Op{ldapwire.OpModifyRequest, ldapwire.OpDelRequest, ldapwire.OpModifyDNRequest}, true,
		func(c *controls, k *ldapwire.Control, lim ldapwire.Limits) (err error) {
			c.before = &selected{}
			c.before.raw, c.before.list, err = ldapwire.ParseSelection(k.Value, lim)
			return err
		}},
	{ldapwire.OIDPostRead, []ldapwire.Op{ldapwire.OpAddRequest, ldapwire.OpModifyRequest, ldapwire.OpModifyDNRequest}, true,
		func(c *controls, k *ldapwire.Control, lim ldapwire.Limits) (err error) {
			c.after = &selected{}
			c.after.raw, c.after.list, err = ldapwire.ParseSelection(k.Value, lim)
			return err
		}},
	{ldapwire.OIDNoOp, onUpdates, false, noOp},
	{ldapwire.OIDNoOpOpenLDAP, onUpdates, false, noOp},
	{ldapwire.OIDTreeDelete, []ldapwire.Op{ldapwire.OpDelRequest}, false, func(c *controls, _ *ldapwire.Control, _ ldapwire.Limits) error {
		c.tree = true
		return nil
	}},
	{ldapwire.OIDProxiedAuth, onAll, true, func(c *controls, k *ldapwire.Control, _ ldapwire.Limits) error {
		c.proxied, c.proxy = true, k.Value
		if !k.Critical { // RFC 4370 §3
			return errors.New("it must be critical")
		}
		return nil
	}},
	{ldapwire.OIDDontUseCopy, []ldapwire.Op{ldapwire.OpSearchRequest, ldapwire.OpCompareRequest}, false, func(c *controls, k *ldapwire.Control, _ ldapwire.Limits) error {
		c.original = true
		if !k.Critical { // RFC 6171 §3
			return errors.New("it must be critical")
		}
		return nil
	}},
	{ldapwire.OIDTransaction, onUpdates, true, func(c *controls, k *ldapwire.Control, _ ldapwire.Limits) error {
		c.inTxn, c.txn = true, k.Value
		if !k.Critical { // RFC 5805 §2.2
			return errors.New("it must be critical")
		}
		return nil
	}},
}

func noOp(c *controls, _ *ldapwire.Control, _ ldapwire.Limits) error {
	c.noOp = true
	return nil
}

// supportedControls are published in the root DSE.
func supportedControls() (out []string) {
	for _, s := range supported {
		out = append(out, s.oid)
	}
	return out
}

// parse reads the controls of a request. A critical one that is unknown, or that does not belong to
// the operation, refuses the request (RFC 4511 §4.1.11).
func (c *controls) parse(m *ldapwire.Message, lim ldapwire.Limits) error {
	if len(m.Controls) == 0 {
		if c.used {
			*c = controls{}
		}
		return nil
	}
	*c = controls{}
	for i := range m.Controls {
		k := &m.Controls[i]
		at := slices.IndexFunc(supported, func(s control) bool { return s.oid == string(k.Type) })
		if at < 0 || !slices.Contains(supported[at].ops, m.Op) {
			if k.Critical && m.Op != ldapwire.OpAbandonRequest && m.Op != ldapwire.OpUnbindRequest {
				return ldapwire.Errorf(ldapwire.UnavailableCriticalExtension, "control %.64q", k.Type)
			}
			continue
		}
		for j := range i {
			if bytes.Equal(m.Controls[j].Type, k.Type) {
				return ldapwire.Errorf(ldapwire.ProtocolError, "control %s is given twice", k.Type)
			}
		}
		err := error(nil)
		if supported[at].value && !k.HasValue {
			err = errors.New("it has no value")
		} else {
			err = supported[at].parse(c, k, lim)
		}
		var e *ldapwire.Error
		if errors.As(err, &e) {
			return err
		}
		if err != nil {
			return ldapwire.Errorf(ldapwire.ProtocolError, "control %s: %v", k.Type, err)
		}
		c.used = true
	}
	return nil
}

// conditions makes what the store is to look at of the controls of an update.
func (x *session) conditions(w *work) dirstore.Conditions {
	c, store := &w.ctl, x.s.opt.Store
	out := dirstore.Conditions{Dry: c.noOp, Manage: c.manage}
	if v := x.view(); v != nil {
		out.Permit = access.Permit{View: v}
	}
	if c.asserted {
		out.Assert = store.Compile(&c.assertion, nil)
	}
	if c.before != nil {
		out.Before = store.Select(c.before.raw, c.before.list)
	}
	if c.after != nil {
		out.After = store.Select(c.after.raw, c.after.list)
	}
	return out
}

// readControls are the response controls of an update that was carried out.
func readControls(write *dirstore.Write) (out []byte) {
	before, after := write.Seen()
	if before != nil {
		out = ldapwire.AppendReadEntry(out, ldapwire.OIDPreRead, before)
	}
	if after != nil {
		out = ldapwire.AppendReadEntry(out, ldapwire.OIDPostRead, after)
	}
	return out
}
