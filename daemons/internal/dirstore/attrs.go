package dirstore

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"

	"shoal/daemons/internal/dirschema"
)

// attrClass is where an attribute stands in a record.
type attrClass uint8

const (
	userAttr attrClass = iota
	operationalAttr
	secretAttr
)

type attrInfo struct {
	desc  dirschema.Description
	name  string
	class attrClass
}

// attrTable maps attribute descriptions to the ids that records use. A table is immutable; a longer
// one takes its place. Ids are dense and count from 0.
type attrTable struct {
	list   []attrInfo
	byName map[string]uint16
}

func (t *attrTable) with(d dirschema.Description) *attrTable {
	n := &attrTable{list: append(t.list[:len(t.list):len(t.list)], attrInfo{d, d.String(), classOf(d.Type)}),
		byName: make(map[string]uint16, len(t.list)+1)}
	for i, a := range n.list {
		n.byName[a.name] = uint16(i)
	}
	return n
}

const userPassword = "2.5.4.35"

// secrets are the types whose values are never shown or compared; the value tells whether they are verifiers, which
// servers that log users in may get.
var secrets = map[string]bool{
	userPassword:                                       false,
	"1.3.6.1.4.1.42.2.27.8.1.20":                       false, // pwdHistory
	"1.3.6.1.4.1.4203.1.3.4":                           true,  // authPassword
	"2.25.24322987064403074951861717892443018913.1.31": true,  // shoalScramKey
}

// classOf decides by type: passwords are secret, whatever their options.
func classOf(a *dirschema.AttributeType) attrClass {
	_, secret := secrets[a.OID]
	switch {
	case secret:
		return secretAttr
	case a.Operational():
		return operationalAttr
	}
	return userAttr
}

// attrRef is an attribute description that a request names, with the ids of everything stored that it
// covers. It stays valid while the table grows.
type attrRef struct {
	desc    dirschema.Description
	virtual virtual
	secret  bool
	now     atomic.Pointer[resolved]
}

type resolved struct {
	table *attrTable
	ids   []uint16
	types []*dirschema.AttributeType // of the ids, each once
}

func (r *attrRef) resolve(t *attrTable) *resolved {
	if v := r.now.Load(); v != nil && v.table == t {
		return v
	}
	v := &resolved{table: t}
	for id, a := range t.list {
		if !r.desc.Covers(a.desc) {
			continue
		}
		v.ids = append(v.ids, uint16(id))
		known := false
		for _, x := range v.types {
			known = known || x == a.desc.Type
		}
		if !known {
			v.types = append(v.types, a.desc.Type)
		}
	}
	r.now.Store(v)
	return v
}

// attributes is the store's view of attribute descriptions: the table, and what requests name.
type attributes struct {
	schema *dirschema.Schema
	table  atomic.Pointer[attrTable]
	grow   sync.Mutex // held while a longer table takes the place of table
	saved  int        // ids below are on disk; only the writer uses it

	mu   sync.RWMutex
	refs map[string]*attrRef // by the description as written in requests; nil for unknown ones
}

const maxRefs = 8192

func (a *attributes) init(s *dirschema.Schema) {
	a.schema = s
	a.refs = map[string]*attrRef{}
	a.table.Store(&attrTable{byName: map[string]uint16{}})
}

// ref finds the description b, nil if the schema does not know it.
func (a *attributes) ref(b []byte) *attrRef {
	a.mu.RLock()
	r, ok := a.refs[string(b)]
	a.mu.RUnlock()
	if ok {
		return r
	}
	if d, err := a.schema.Describe(b); err == nil {
		r = &attrRef{desc: d, secret: classOf(d.Type) == secretAttr, virtual: virtualOf[d.Type.Name()]}
	}
	if len(b) > 128 {
		return r
	}
	a.mu.Lock()
	if len(a.refs) >= maxRefs {
		clear(a.refs)
	}
	a.refs[string(b)] = r
	a.mu.Unlock()
	return r
}

// id gives the id of a description, a new one if it has none yet.
func (a *attributes) id(d dirschema.Description) (uint16, error) {
	if id, ok := a.table.Load().byName[d.String()]; ok {
		return id, nil
	}
	a.grow.Lock()
	defer a.grow.Unlock()
	t := a.table.Load()
	if id, ok := t.byName[d.String()]; ok {
		return id, nil
	}
	if len(t.list) >= 1<<16-1 {
		return 0, fmt.Errorf("more than %d attribute descriptions", len(t.list))
	}
	a.table.Store(t.with(d))
	return uint16(len(t.list)), nil
}

// load enters a description read from disk.
func (a *attributes) load(id int, name string) error {
	if id != len(a.table.Load().list) {
		return fmt.Errorf("attribute table: id %d out of order", id)
	}
	d, err := a.schema.Describe([]byte(name))
	if err != nil {
		return fmt.Errorf("attribute table: the database has entries with %s, which the schema does not define: %w", strings.ToValidUTF8(name, "?"), err)
	}
	a.table.Store(a.table.Load().with(d))
	a.saved = id + 1
	return nil
}

// Secret reports whether values of the type are never shown or compared.
func Secret(a *dirschema.AttributeType) bool { return classOf(a) == secretAttr }
