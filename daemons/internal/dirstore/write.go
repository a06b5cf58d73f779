package dirstore

import (
	"encoding/binary"
	"errors"
	"fmt"
	"syscall"
	"time"

	"go.etcd.io/bbolt"

	"shoal/daemons/internal/dirschema"
	"shoal/daemons/internal/ldapwire"
)

// Operation is a change of one entry (*Add, *Modify, *Delete, *Rename; of a replica *Replicate, *Remove),
// *Context, a *Batch, a part of the work on indexes, or the end of a Load.
type Operation interface {
	// apply checks the operation, then makes it. An *ldapwire.Error refuses it, with nothing changed;
	// any other error fails the transaction.
	apply(w *writing) error
}

// Write is an operation on its way to the disk.
type Write struct {
	// By is the DN that goes to creatorsName and modifiersName.
	By string
	Op Operation
	Conditions

	before, after []byte

	done chan struct{}
	err  error
	csn  string
}

// Wait waits for the end of the write. The error is an *ldapwire.Error.
func (w *Write) Wait() error {
	<-w.done
	return w.err
}

// Done is closed at the end of the write; Wait then returns at once.
func (w *Write) Done() <-chan struct{} { return w.done }

// CSN is the entryCSN that the write got; "" for a refused one. Call it after Wait.
func (w *Write) CSN() string { return w.csn }

// Submit queues a write. Writes take effect in the order of the Submit calls. It blocks while the
// queue is full.
func (s *Store) Submit(w *Write) {
	w.done = make(chan struct{})
	s.closing.RLock()
	defer s.closing.RUnlock()
	if s.closed {
		w.finish(&ldapwire.Error{Code: ldapwire.Unavailable, Message: ErrClosed.Error()})
		return
	}
	if s.frozen.Load() && !goesOn(w) {
		w.finish(errFrozen)
		return
	}
	s.queue <- w
}

// Do submits an operation and waits for it.
func (s *Store) Do(by string, op Operation) error {
	w := &Write{By: by, Op: op}
	s.Submit(w)
	return w.Wait()
}

func (w *Write) finish(err error) {
	w.err = err
	close(w.done)
}

// writer makes transactions of what waits, until the queue is closed and empty.
func (s *Store) writer() {
	defer close(s.writerDone)
	group := make([]*Write, 0, s.opt.GroupCommit)
	for w := range s.queue {
		group = append(group[:0], w)
	more:
		for len(group) < s.opt.GroupCommit && !alone(w) {
			var open bool
			select {
			case w, open = <-s.queue:
				if !open {
					break more
				}
				group = append(group, w)
			default:
				break more
			}
		}
		if last := group[len(group)-1]; alone(last) {
			s.commitGroup(group[:len(group)-1])
			if replaces(last) {
				s.replace(last)
			} else {
				s.commitGroup(group[len(group)-1:])
			}
			continue
		}
		s.commitGroup(group)
	}
}

// errCommit is in the error of a transaction whose changes may have been made or not.
var errCommit = errors.New("commit failed")

// commitGroup makes one transaction of the group. If that fails for another reason than a refusal, before its commit,
// each write gets a transaction of its own, so that one damaged entry does not stop its neighbours.
func (s *Store) commitGroup(group []*Write) {
	if len(group) == 0 {
		return
	}
	err := s.commit(group)
	if err != nil && len(group) > 1 && !errors.Is(err, errCommit) {
		s.opt.Log.Warn("directory: a group of writes failed, trying them one by one", "writes", len(group), "error", err)
		for _, w := range group {
			s.commitGroup([]*Write{w})
		}
		return
	}
	if err != nil {
		s.opt.Log.Error("directory: write failed", "error", err)
	}
	for _, w := range group {
		if err != nil {
			w.csn = ""
			w.err = &ldapwire.Error{Code: ldapwire.Unavailable, Message: "the directory cannot write: see the server's log"}
			if errors.Is(err, syscall.ENOSPC) {
				w.err = &ldapwire.Error{Code: ldapwire.Unavailable, Message: "the disk of the directory is full: make room on the server"}
			}
		}
		s.metrics.wrote(w)
		w.finish(w.err)
	}
}

// writing is the state of one write transaction.
type writing struct {
	*Reader // of the same transaction, without the cache of nodes
	store   *Store
	wtx     *writeTx
	meta    *bucket
	entryB  *bucket
	treeB   *bucket
	indexB  *bucket
	logB    *bucket
	now     time.Time
	by      string

	csn      csn // of the current operation
	clock    csnClock
	entries  int64
	sequence uint64
	context  []csn
	floor    csn
	cookie   string
	changed  bool
	nodes    bool // names of nodes changed: the cache must go

	write *Write // under way; nil in a load
	last  uint64 // id of the entry that put wrote last

	touched bool // something that is watched changed
}

func (s *Store) commit(group []*Write) (err error) {
	started := s.opt.Clock.Boot()
	redo, err := s.beginRecord()
	if err != nil {
		return fmt.Errorf("%w: %w", errCommit, err)
	}
	tx, err := s.base.bolt.Begin(true) // only the writer puts another base there
	if err != nil {
		return err
	}
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v", p)
		}
		if err != nil {
			_ = tx.Rollback() // after a failed Commit there is nothing to roll back
		}
	}()
	r := &Reader{store: s, indexes: *s.usable.Load()}
	r.open(tx, nil)
	wtx := &writeTx{Tx: tx, redo: redo}
	w := &writing{Reader: r, store: s, wtx: wtx, meta: wtx.Bucket(bucketMeta), entryB: wtx.Bucket(bucketEntry),
		treeB: wtx.Bucket(bucketTree), indexB: wtx.Bucket(bucketIndex), logB: wtx.Bucket(bucketLog),
		now: s.opt.Clock.Now().UTC(), clock: s.clock, entries: s.entries.Load(),
		sequence: s.logSequence.Load(), context: s.ContextCSN(), floor: s.logFloor, cookie: s.Cookie()}
	w.clock.sid = int(s.sid.Load())
	w.entryB.FillPercent = 0.9 // ids ascend
	w.logB.FillPercent = 0.9
	for _, x := range group {
		var refused *ldapwire.Error
		if err := w.carryOut(x); errors.As(err, &refused) {
			x.err = refused
			if _, batch := x.Op.(*Batch); batch { // it is alone in its transaction
				return tx.Rollback()
			}
		} else if err != nil {
			return err
		}
	}
	if !w.changed {
		return tx.Rollback()
	}
	limit := w.now.Add(-s.opt.ChangeLog).Format(csnTime)
	if w.floor, err = trimLog(wtx, w.floor, limit); err != nil {
		return err
	}
	if err = s.saveAttributes(wtx); err != nil {
		return err
	}
	if err = w.meta.Put(keyContextCSN, []byte(joinCSNs(w.context))); err != nil {
		return err
	}
	if err = w.meta.Put(keyEntries, idKey(nil, uint64(w.entries))); err != nil {
		return err
	}
	if w.nodes {
		s.base.nodes.Store(newNodeCache(uint64(tx.ID())))
	}
	saved, number := len(s.attrs.table.Load().list), tx.ID()
	if s.redo != nil {
		if err = s.redo.harden(); err != nil {
			return fmt.Errorf("%w: %w", errCommit, err)
		}
	}
	err = tx.Commit()
	if s.redo != nil && (err == nil || s.holds(number)) {
		err = errors.Join(err, s.redo.committed())
	}
	if err != nil {
		s.relearn()
		s.base.nodes.Store(newNodeCache(uint64(number)))
		return fmt.Errorf("%w: %w", errCommit, err)
	}
	s.attrs.saved, s.clock, s.logFloor = saved, w.clock, w.floor
	s.cookie.Store(&w.cookie)
	s.entries.Store(w.entries)
	s.logSequence.Store(w.sequence)
	s.context.Store(&w.context)
	if w.touched || w.nodes {
		s.watched.Add(1)
	}
	for _, x := range group {
		if op, ok := x.Op.(interface{ committed(*Store) }); ok && x.err == nil {
			op.committed(s)
		}
	}
	s.metrics.committed(len(group), s.opt.Clock.Boot()-started)
	s.announce()
	if s.redo != nil {
		if err := s.redo.tidy(); err != nil {
			s.opt.Log.Error("directory: no checkpoint could be made", "error", err)
		}
	}
	return nil
}

// beginRecord makes ready to note a transaction; nil: it is not noted.
func (s *Store) beginRecord() (*changes, error) {
	if s.redo == nil {
		return nil, nil
	}
	return s.redo.begin()
}

// holds reports whether the database has a transaction whose commit failed.
func (s *Store) holds(number int) (has bool) {
	_ = s.base.bolt.View(func(tx *bbolt.Tx) error { // it fails for a closed database only
		has = tx.ID() >= number
		return nil
	})
	return has
}

func joinCSNs(list []csn) string {
	out := ""
	for i, c := range list {
		if i > 0 {
			out += ";"
		}
		out += c
	}
	return out
}

// saveAttributes writes the descriptions that got an id since the last commit.
func (s *Store) saveAttributes(tx *writeTx) error {
	b := tx.Bucket(bucketAttr)
	list := s.attrs.table.Load().list
	for id := s.attrs.saved; id < len(list); id++ {
		if err := b.Put(binary.BigEndian.AppendUint16(nil, uint16(id)), []byte(list[id].name)); err != nil {
			return err
		}
	}
	return nil
}

// stamp gives the operation its CSN.
func (w *writing) stamp() {
	w.csn = w.clock.next(w.now)
	w.noteContext(w.csn)
}

// noteContext raises contextCSN, the part of the CSN's server id.
func (w *writing) noteContext(c csn) {
	list := append([]csn(nil), w.context...)
	for i, have := range list {
		if CSNServer(have) == CSNServer(c) {
			list[i] = max(have, c)
			w.context = list
			return
		}
	}
	w.context = append(list, c)
}

// log enters a change into the log. The CSN is that of the entry, or of its deletion.
func (w *writing) log(kind ChangeKind, id uint64, uuid []byte, c csn) error {
	w.sequence++
	w.changed = true
	ch := LoggedChange{Sequence: w.sequence, Kind: kind, ID: id, CSN: c}
	copy(ch.UUID[:], uuid)
	return w.logB.Put(idKey(nil, ch.Sequence), ch.encode())
}

// put writes the record of an entry and brings the indexes from what was to what is.
func (w *writing) put(id, parent uint64, rdn []byte, was, is []Attribute) error {
	raw, err := encodeRecord(&w.store.attrs, parent, rdn, is)
	if err != nil {
		return err
	}
	if err := w.entryB.Put(idKey(nil, id), raw); err != nil {
		return err
	}
	w.last = id
	w.store.noteSpecial(is)
	w.watch(was, is)
	was, is = changedTypes(was, is)
	return updateIndex(w.indexB, id, w.store.keysOf(was), w.store.keysOf(is))
}

// find resolves a DN in its string form.
func (w *writing) find(dn []byte) (dirschema.DN, uint64, error) {
	name, norm, err := w.store.parseName(dn)
	if err != nil {
		return nil, 0, err
	}
	id, err := w.Resolve(norm)
	return name, id, err
}

// parseName parses a DN for an operation on an entry.
func (s *Store) parseName(dn []byte) (dirschema.DN, []byte, error) {
	name, err := s.schema.ParseDN(dn)
	if err != nil {
		return nil, nil, refuse(err)
	}
	norm, err := name.AppendNormal(nil)
	if err != nil {
		return nil, nil, refuse(err)
	}
	return name, norm, nil
}

// refuse turns a violation of the schema into the answer for it.
func refuse(err error) error {
	var v *dirschema.Violation
	if !errors.As(err, &v) {
		return err
	}
	code := map[dirschema.ViolationKind]ldapwire.Code{
		dirschema.UndefinedType:        ldapwire.UndefinedAttributeType,
		dirschema.InvalidSyntax:        ldapwire.InvalidAttributeSyntax,
		dirschema.ConstraintViolation:  ldapwire.ConstraintViolation,
		dirschema.ObjectClassViolation: ldapwire.ObjectClassViolation,
		dirschema.InvalidDN:            ldapwire.InvalidDNSyntax,
	}[v.Kind]
	return &ldapwire.Error{Code: code, Message: v.Message}
}

// CheckDN parses a DN and gives its normal form. The error is an *ldapwire.Error.
func (s *Store) CheckDN(dn []byte) ([]byte, error) {
	_, norm, err := s.parseName(dn)
	return norm, err
}
