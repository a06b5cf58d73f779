package dirstore

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"go.etcd.io/bbolt"

	"shoal/daemons/internal/dirschema"
	"shoal/daemons/internal/ldapwire"
)

// Indexes are built while the store serves. Three sets tell what there is:
//
//	kept    the indexes that every change keeps up: those that are wanted
//	usable  those of them that are complete, which searches use
//	on disk "indexes" names the usable ones, "droppedindexes" those whose keys are to be removed
//
// A new index is kept from the beginning; then the builder, in small steps among the writes, removes what an
// earlier build left of it, enters the entries in the order of their ids, and in the step that finds no more
// names it in "indexes". An entry that changes in the meantime is entered by its change; being entered twice
// is the same as once. Substring keys are added to a complete index in the same way, and it stays usable for
// the rest. An index that is not wanted any more is taken out of usable and of the list first: nobody looks
// at it when its keys go. A crash in between leaves a list that is true; the build begins anew.
//
// The index of entryUUID is needed to serve at all and is built by Open.

// buildTime is how long one step of a build may hold the writer, buildKeys how many keys it removes at most.
const (
	buildTime = 10 * time.Millisecond
	buildKeys = 5000
)

// IndexBuild tells how far the build of indexes is.
type IndexBuild struct {
	Indexes []string // that are being built, as in Options.Indexes; none: nothing is being built
	Done    int64    // entries read
	Total   int64    // entries to be read, about
}

// Building tells which indexes are being built now.
func (s *Store) Building() IndexBuild {
	if b := s.building.Load(); b != nil {
		return *b
	}
	return IndexBuild{}
}

// Indexes are the indexes that searches use, sorted.
func (s *Store) Indexes() []string { return strings.Fields(listOf(*s.usable.Load())) }

func listOf(set indexSet) string {
	names := make([]string, 0, len(set))
	for _, x := range set {
		names = append(names, x.String())
	}
	slices.Sort(names)
	return strings.Join(names, "\n")
}

// ErrIndexing is returned by SetIndexes while a bulk load is under way.
var ErrIndexing = errors.New("indexes cannot be changed while the content is being replaced")

// SetIndexes makes the wanted indexes DefaultIndexes and those of the list. New ones are built in the background.
func (s *Store) SetIndexes(list []string) error {
	wanted, err := s.parseIndexes(append(slices.Clone(DefaultIndexes), list...))
	if err != nil {
		return err
	}
	if !s.loading.CompareAndSwap(false, true) {
		return ErrIndexing
	}
	defer s.loading.Store(false)
	s.stopBuild()
	if err := s.Do("", &indexList{wanted: wanted}); err != nil {
		return fmt.Errorf("indexes: %w", err)
	}
	s.opt.Indexes = slices.Clone(list)
	s.startBuild()
	return nil
}

// indexList is a change of the wanted indexes.
type indexList struct {
	wanted       []*index
	kept, usable indexSet // once it was applied
}

func (op *indexList) apply(w *writing) (err error) {
	w.changed = true
	return op.on(w.store, w.wtx, false)
}

// on finds out what will be kept and usable, and writes the lists.
func (op *indexList) on(s *Store, tx *writeTx, empty bool) error {
	meta := tx.Bucket(bucketMeta)
	have := strings.Fields(string(meta.Get(keyIndexes)))
	drop := strings.Fields(string(meta.Get(keyDropped)))
	kept, usable := indexSet{}, indexSet{}
	for _, x := range op.wanted {
		id, err := s.attrs.id(dirschema.Description{Type: x.typ})
		if err != nil {
			return err
		}
		x.id = id
		kept[x.typ] = x
		plain := x.typ.Name()
		switch {
		case empty || slices.Contains(have, x.String()):
			usable[x.typ] = x
		case x.sub && slices.Contains(have, plain):
			usable[x.typ] = &index{typ: x.typ, id: id}
		case !x.sub && slices.Contains(have, plain+":sub"):
			usable[x.typ] = x
			drop = append(drop, plain+":sub")
		}
	}
	for _, name := range have {
		plain, _, _ := strings.Cut(name, ":")
		if t := s.schema.Attribute([]byte(plain)); t == nil || kept[t] == nil {
			drop = append(drop, plain)
		}
	}
	slices.Sort(drop)
	if err := meta.Put(keyDropped, []byte(strings.Join(slices.Compact(drop), "\n"))); err != nil {
		return err
	}
	if err := meta.Put(keyIndexes, []byte(listOf(usable))); err != nil {
		return err
	}
	op.kept, op.usable = kept, usable
	return nil
}

// committed makes the sets those of the store, once the lists are on the disk.
func (op *indexList) committed(s *Store) {
	s.kept.Store(&op.kept)
	s.swap.Lock() // who begins to read after the keys are removed does not use them
	s.usable.Store(&op.usable)
	s.swap.Unlock()
}

// openIndexes makes of the indexes on disk those that are wanted, as far as it must be before serving.
func (s *Store) openIndexes(wanted []*index) error {
	list := &indexList{wanted: wanted}
	err := s.bolt().Update(func(plain *bbolt.Tx) error {
		tx := &writeTx{Tx: plain}
		if err := list.on(s, tx, tx.Bucket(bucketEntry).Sequence() == 0); err != nil {
			return err
		}
		return s.saveAttributes(tx)
	})
	if err != nil {
		return err
	}
	list.committed(s)
	s.attrs.saved = len(s.attrs.table.Load().list)
	uuids := indexSet{s.entryUUID: (*s.kept.Load())[s.entryUUID]}
	if (*s.usable.Load())[s.entryUUID] != nil {
		return nil
	}
	step := &buildStep{set: uuids, drop: []string{"entryUUID"}}
	for !step.complete {
		if err := s.bolt().Update(func(tx *bbolt.Tx) error { return step.on(s, &writeTx{Tx: tx}, time.Second) }); err != nil {
			return err
		}
		step.drop, step.next = step.left, step.after
	}
	step.committed(s)
	return nil
}

// buildStep is one step of a build. Whoever makes it goes on with what it says after it was done.
type buildStep struct {
	set  indexSet  // that are being built; none: only to drop
	drop []string  // whose keys are to be removed, before anything else
	next uint64    // first id that was not entered
	of   *bbolt.DB // another one, with all indexes, may have taken its place

	// After a step.
	left     []string // of drop
	after    uint64   // next of the next step
	entered  int64    // entries in this step
	complete bool
}

func (op *buildStep) apply(w *writing) error {
	if w.tx.DB() != op.of {
		return nil
	}
	w.changed = true
	return op.on(w.store, w.wtx, buildTime)
}

// on makes the step in a transaction.
func (op *buildStep) on(s *Store, tx *writeTx, most time.Duration) error {
	op.left, op.after, op.entered, op.complete = op.drop, op.next, 0, false
	index := tx.Bucket(bucketIndex)
	if len(op.drop) > 0 {
		plain, kind, _ := strings.Cut(op.drop[0], ":")
		gone := true
		if id, ok := s.attrs.table.Load().byName[plain]; ok {
			prefix := binary.BigEndian.AppendUint16(nil, id)
			if kind != "" {
				prefix = append(prefix, kindSubstring)
			}
			var err error
			if gone, err = dropKeys(index, prefix); err != nil {
				return err
			}
		}
		if gone {
			op.left = op.drop[1:]
			meta := tx.Bucket(bucketMeta)
			list := slices.DeleteFunc(strings.Fields(string(meta.Get(keyDropped))), func(n string) bool { return n == op.drop[0] })
			if err := meta.Put(keyDropped, []byte(strings.Join(list, "\n"))); err != nil {
				return err
			}
		}
		op.complete = len(op.left) == 0 && len(op.set) == 0
		return nil
	}
	began := s.opt.Clock.Boot()
	c := tx.Bucket(bucketEntry).Cursor()
	for k, v := c.Seek(idKey(nil, op.next)); k != nil; k, v = c.Next() {
		if op.entered%16 == 15 && s.opt.Clock.Boot()-began > most {
			return nil
		}
		rec, err := parseRecord(v)
		if err != nil {
			return err
		}
		attrs, err := decodeAttributes(s.attrs.table.Load(), &rec)
		if err != nil {
			return err
		}
		id := binary.BigEndian.Uint64(k)
		keys := map[string]struct{}{}
		s.keysFor(op.set, attrs, func(key []byte) { keys[string(key)] = struct{}{} })
		if err := updateIndex(index, id, nil, keys); err != nil {
			return err
		}
		op.after = id + 1
		op.entered++
	}
	op.complete = true
	usable := maps.Clone(*s.usable.Load())
	maps.Copy(usable, op.set)
	return tx.Bucket(bucketMeta).Put(keyIndexes, []byte(listOf(usable)))
}

// dropKeys removes some keys of an index; gone tells that there are no more.
func dropKeys(b *bucket, prefix []byte) (gone bool, err error) {
	var keys [][]byte
	c := b.Cursor()
	for k, _ := c.Seek(prefix); bytes.HasPrefix(k, prefix) && len(keys) < buildKeys; k, _ = c.Next() {
		keys = append(keys, bytes.Clone(k))
	}
	for _, k := range keys {
		if err := b.Delete(k); err != nil {
			return false, err
		}
	}
	return len(keys) < buildKeys, nil
}

// startBuild begins to build what is wanted and not usable. A build that is under way must be stopped before.
func (s *Store) startBuild() {
	kept, usable := *s.kept.Load(), *s.usable.Load()
	set := indexSet{}
	var drop []string
	for t, x := range kept {
		switch have := usable[t]; {
		case have == nil:
			set[t] = x
			drop = append(drop, t.Name())
		case have.sub != x.sub:
			set[t] = x
			drop = append(drop, t.Name()+":sub")
		}
	}
	var left []string
	_ = s.bolt().View(func(tx *bbolt.Tx) error { // it fails for a closed database only, which has nothing to build
		left = strings.Fields(string(tx.Bucket(bucketMeta).Get(keyDropped)))
		return nil
	})
	for _, name := range left {
		plain, kind, _ := strings.Cut(name, ":")
		t := s.schema.Attribute([]byte(plain))
		if x := usable[t]; t == nil || x == nil || kind != "" && !x.sub {
			drop = append(drop, name)
		}
	}
	slices.Sort(drop)
	drop = slices.Compact(drop)
	if len(set) == 0 && len(drop) == 0 {
		return
	}
	b := &builder{s: s, stop: make(chan struct{}), done: make(chan struct{})}
	s.builder.Store(b)
	b.tell(set, 0)
	go b.run(set, drop)
}

// stopBuild stops a build that is under way and waits for its end.
func (s *Store) stopBuild() {
	if b := s.builder.Swap(nil); b != nil {
		close(b.stop)
		<-b.done
		s.building.Store(nil)
	}
}

// builder is a build under way.
type builder struct {
	s          *Store
	stop, done chan struct{}
}

func (b *builder) tell(set indexSet, done int64) {
	b.s.building.Store(&IndexBuild{Indexes: strings.Fields(listOf(set)), Done: done, Total: max(b.s.entries.Load(), done)})
}

// buildPause is how long a build that could not write waits before it tries again.
const buildPause = 10 * time.Second

func (b *builder) run(set indexSet, drop []string) {
	defer close(b.done)
	s := b.s
	began, told := s.opt.Clock.Boot(), s.opt.Clock.Boot()
	log := s.opt.Log.With("indexes", strings.ReplaceAll(listOf(set), "\n", " "))
	log.Info("directory: indexes are being built", "entries", s.entries.Load(), "removed", strings.Join(drop, " "))
	content := s.bolt()
	step := &buildStep{set: set, drop: drop, of: content}
	for done := int64(0); ; {
		select {
		case <-b.stop:
			return
		default:
		}
		w := &Write{Op: step}
		err := s.fault("index")
		if err == nil {
			s.Submit(w)
			err = w.Wait()
		}
		if err != nil {
			var e *ldapwire.Error
			if errors.As(err, &e) && e.Message == ErrClosed.Error() {
				return
			}
			log.Warn("directory: the build of indexes waits: the database cannot be written", "error", err)
			t := s.opt.Clock.NewTimer(buildPause)
			select {
			case <-t.C():
			case <-b.stop:
				t.Stop()
				return
			}
			continue
		}
		if s.bolt() != content {
			log.Info("directory: the content was replaced by one that has all indexes")
			s.building.Store(nil)
			return
		}
		done += step.entered
		b.tell(set, done)
		if step.complete {
			break
		}
		if now := s.opt.Clock.Boot(); now-told > buildPause {
			told = now
			log.Info("directory: indexes are being built", "done", done, "of", s.entries.Load())
		}
		step = &buildStep{set: set, drop: step.left, next: step.after, of: content}
	}
	s.building.Store(nil)
	log.Info("directory: indexes built", "entries", step.after, "took", (s.opt.Clock.Boot() - began).Round(time.Millisecond).String())
}

// committed makes indexes usable whose last step is on the disk. The writer calls it, before anybody hears of
// the step's end.
func (op *buildStep) committed(s *Store) {
	if !op.complete || len(op.set) == 0 {
		return
	}
	usable := maps.Clone(*s.usable.Load())
	maps.Copy(usable, op.set)
	s.usable.Store(&usable)
}
