package vfs

import (
	"maps"
	"slices"
	"syscall"
)

// memJournal is what a file system with an ordered journal adds to Mem, by the rules of ext4 and XFS as crash images
// of them showed (tests/powercut):
//
//   - Each change of metadata has a place in the journal, in the order in which they were made. What is durable is a prefix
//     of the journal, always.
//   - SyncDir and Sync make it durable up to the last change of that very directory or file, and no further: what was
//     done elsewhere after that may be lost.
//   - The data of a file that was written and not synced is on no device, whatever the journal says of the file: after a
//     power cut it is empty.
//   - SyncData puts the data on the device, and the size and place of the data into the journal, as a change like any
//     other: until it is durable, the file is as empty as before.
type memJournal struct {
	seq     uint64 // of the last change
	done    uint64 // durable up to here
	pending []memEntry
}

// memEntry is one change of metadata: all of it or none.
type memEntry struct {
	seq     uint64
	changes []memChange
}

// memChange is an entry of a directory (node nil: removed), or the data of a file (dir nil).
type memChange struct {
	dir  *memNode
	name string
	node *memNode
	data []byte
}

// SetJournal makes m a local file system with an ordered journal. It must be called before anything is in it.
func (m *Mem) SetJournal() { m.log = &memJournal{} }

// note puts a change into the journal.
func (m *Mem) note(changes ...memChange) {
	if m.log == nil {
		return
	}
	m.log.seq++
	for _, c := range changes {
		if c.dir != nil {
			c.dir.seq = m.log.seq
		}
		if c.node != nil {
			c.node.seq = m.log.seq
		}
	}
	m.log.pending = append(m.log.pending, memEntry{m.log.seq, changes})
}

// noteData is SyncData: the data is on the device, and where it lies goes into the journal.
func (m *Mem) noteData(n *memNode) {
	m.note(memChange{node: n, data: n.data})
}

// commit makes the journal durable up to seq.
func (m *Mem) commit(seq uint64) {
	l := m.log
	i := 0
	for ; i < len(l.pending) && l.pending[i].seq <= seq; i++ {
		for _, c := range l.pending[i].changes {
			switch {
			case c.dir == nil:
				c.node.safe = c.data
			case c.node == nil:
				delete(c.dir.durable, c.name)
			default:
				c.dir.durable[c.name] = c.node
			}
		}
	}
	l.pending = slices.Clone(l.pending[i:])
	l.done = max(l.done, seq)
}

// memImage is what a power cut leaves: what is durable, and of the rest of the journal a prefix.
type memImage struct {
	dirs  map[*memNode]map[string]*memNode
	files map[*memNode][]byte
}

func (m *Mem) image(keep func() bool) *memImage {
	x := &memImage{map[*memNode]map[string]*memNode{}, map[*memNode][]byte{}}
	if m.log == nil {
		return x
	}
	for _, e := range m.log.pending {
		if !keep() {
			break
		}
		for _, c := range e.changes {
			switch {
			case c.dir == nil:
				x.files[c.node] = c.data
				continue
			case x.dirs[c.dir] == nil:
				x.dirs[c.dir] = maps.Clone(c.dir.durable)
			}
			if c.node == nil {
				delete(x.dirs[c.dir], c.name)
			} else {
				x.dirs[c.dir][c.name] = c.node
			}
		}
	}
	return x
}

func (x *memImage) dir(n *memNode) map[string]*memNode {
	if d := x.dirs[n]; d != nil {
		return d
	}
	return n.durable
}

func (x *memImage) data(n *memNode) []byte {
	if d, ok := x.files[n]; ok {
		return d
	}
	return n.safe
}

func (f *memFile) SyncData() error {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	if f.closed {
		return syscall.EBADF
	}
	if f.m.log != nil {
		f.m.noteData(f.n)
	}
	return nil
}

// SyncJournal makes everything durable if m has a journal; otherwise it is SyncDir, which is all that the touched directory is worth.
func (m *Mem) SyncJournal(p string) error {
	m.mu.Lock()
	n, err := m.lookup(p)
	if err == nil && n.kind == KindDir && m.log != nil {
		m.note()
		n.seq = m.log.seq
	}
	m.mu.Unlock()
	if err != nil {
		return err
	}
	return m.SyncDir(p)
}
