package mailstore

import (
	"fmt"
	"slices"
	"sort"
	"strings"
)

// A snapshot is a text file, snap/<N>: the fold of a log up to record N.
//
//	snapshot = "shoal-snapshot " version SP kind LF *( line LF ) "end " crc LF
//	kind     = "mailbox" / "account"
//	line     = letter SP rest                 crc = CRC32C, base 36, of all that stands before "end "
//
//	n <N>                         always the first line
//	b <N0>                        this snapshot continues snap/<N0>, which may itself continue another:
//	                              only r lines follow
//	r <N> <nonce> <ops>           a record as it stands in the log (spilled ones spelt out): N0+1, N0+2 ... N
//	s <origin> <ctr> <N>          the last record that run of a server committed; for each server the
//	                              runs that committed last (snapshotRuns)
//	k <N> <op>                    an op in lower case unknown to the writer, as it stood in record N
//
// The other lines are those of the kind (mailsnap.go, acctsnap.go). A reader keeps the lines whose letter is
// unknown and in lower case, and writes them into its own snapshots; an unknown letter in upper
// case refuses the snapshot. A snapshot is never replaced and its name never used again.
type snapshot struct {
	n     uint64
	base  uint64 // 0: complete
	tail  []tailRecord
	marks marks
	lines []string // of the kind, in order
	other []string // unknown lines
	kept  []keptOp
}

// tailRecord is a record as read.
type tailRecord struct {
	n     uint64
	nonce nonce
	body  string
}

// snapshotRuns is how many runs of each server the table of last records holds. One would do if a server
// never overlapped with its own predecessor.
const snapshotRuns = 4

// mark is the last record of one run.
type mark struct {
	origin string
	ctr    uint64
	n      uint64
}

// marks holds the last record of each run, sorted by origin. A server has one commit in flight per log, so
// "is my record at N in the history" is answered by its own mark, whatever has been compacted.
type marks []mark

func (m marks) find(origin string) (int, bool) {
	return slices.BinarySearchFunc(m, origin, func(k mark, o string) int { return strings.Compare(k.origin, o) })
}

func (m *marks) add(nc nonce, n uint64) {
	i, ok := m.find(nc.origin)
	if !ok {
		*m = slices.Insert(*m, i, mark{origin: nc.origin})
	}
	if k := &(*m)[i]; k.n < n {
		k.ctr, k.n = nc.ctr, n
	}
}

// has tells whether record n of the history is the one with this nonce.
func (m marks) has(nc nonce, n uint64) bool {
	i, ok := m.find(nc.origin)
	return ok && m[i].n == n && m[i].ctr == nc.ctr
}

// trim keeps the runs of each server that committed last.
func (m *marks) trim() {
	byServer := map[string][]mark{}
	for _, k := range *m {
		s := originServer(k.origin)
		byServer[s] = append(byServer[s], k)
	}
	drop := map[string]bool{}
	for _, runs := range byServer {
		if len(runs) <= snapshotRuns {
			continue
		}
		sort.Slice(runs, func(i, j int) bool { return runs[i].n > runs[j].n })
		for _, k := range runs[snapshotRuns:] {
			drop[k.origin] = true
		}
	}
	*m = slices.DeleteFunc(*m, func(k mark) bool { return drop[k.origin] })
}

const (
	kindMailbox = "mailbox"
	kindAccount = "account"
)

func appendSnapshotHead(b []byte, kind string, n uint64) []byte {
	return fmt.Appendf(b, "shoal-snapshot %d.%d %s\nn %d\n", formatMajor, formatMinor, kind, n)
}

// appendCommon writes what snapshots of both kinds have.
func appendCommon(b []byte, m marks, kept []keptOp, other []string) []byte {
	for _, k := range m {
		b = append(append(b, "s "...), k.origin...)
		b = append36(append(b, ' '), k.ctr)
		b = appendDec(append(b, ' '), k.n)
		b = append(b, '\n')
	}
	for _, k := range kept {
		b = fmt.Appendf(b, "k %d %s\n", k.n, k.op)
	}
	for _, l := range other {
		b = append(append(b, l...), '\n')
	}
	return b
}

func appendSnapshotEnd(b []byte) []byte {
	crc := checksum(b)
	b = append36(append(b, "end "...), uint64(crc))
	return append(b, '\n')
}

// appendDelta writes a whole snapshot that continues another.
func appendDelta(b []byte, kind string, base uint64, tail []tailRecord) []byte {
	b = appendSnapshotHead(b, kind, tail[len(tail)-1].n)
	b = fmt.Appendf(b, "b %d\n", base)
	for _, r := range tail {
		b = append(b, "r "...)
		b = appendDec(b, r.n)
		b = append(b, ' ')
		b = r.nonce.append(b)
		b = append(b, ' ')
		b = append(b, r.body...)
		b = append(b, '\n')
	}
	return appendSnapshotEnd(b)
}

// parseSnapshot reads the frame of a snapshot; known lists the letters of the kind's own lines.
func parseSnapshot(text, kind, known string) (*snapshot, error) {
	end := strings.LastIndex(text, "\nend ") + 1
	if end == 0 {
		return nil, fmt.Errorf("no end line: %w", ErrCorrupt)
	}
	crc, ok := parse36(strings.TrimSuffix(text[end+4:], "\n"))
	if !ok || !strings.HasSuffix(text, "\n") || crc != uint64(checksum([]byte(text[:end]))) {
		return nil, fmt.Errorf("checksum: %w", ErrCorrupt)
	}
	head, body, _ := strings.Cut(text[:end], "\n")
	word, rest, _ := strings.Cut(head, " ")
	version, k, _ := strings.Cut(rest, " ")
	if word != "shoal-snapshot" {
		return nil, fmt.Errorf("first line %.60q: %w", head, ErrCorrupt)
	}
	if _, _, err := parseVersion(version); err != nil {
		return nil, err
	}
	if k != kind {
		return nil, fmt.Errorf("first line %.60q, want kind %s: %w", head, kind, ErrCorrupt)
	}
	s := &snapshot{marks: marks{}}
	s.lines = make([]string, 0, strings.Count(body, "\n"))
	for body != "" {
		var line string
		line, body, _ = strings.Cut(body, "\n")
		if len(line) < 2 || line[1] != ' ' {
			return nil, fmt.Errorf("line %.60q: %w", line, ErrCorrupt)
		}
		if s.n == 0 && line[0] != 'n' {
			return nil, fmt.Errorf("line %.60q before n: %w", line, ErrCorrupt)
		}
		if err := s.line(line, known); err != nil {
			return nil, err
		}
	}
	if s.n == 0 {
		return nil, fmt.Errorf("no n line: %w", ErrCorrupt)
	}
	if s.base != 0 && (len(s.tail) == 0 || s.tail[len(s.tail)-1].n != s.n) {
		return nil, fmt.Errorf("records end before N: %w", ErrCorrupt)
	}
	return s, nil
}

func (s *snapshot) line(line, known string) error {
	bad := func() error { return fmt.Errorf("line %.60q: %w", line, ErrCorrupt) }
	arg := line[2:]
	var ok bool
	switch c := line[0]; {
	case c == 'n':
		if s.n != 0 {
			return bad()
		}
		if s.n, ok = parseDec(arg); !ok || s.n == 0 {
			return bad()
		}
	case c == 'b':
		if s.base, ok = parseDec(arg); !ok || s.base == 0 || s.base >= s.n || len(s.tail) > 0 {
			return bad()
		}
	case c == 'r':
		num, rest, _ := strings.Cut(arg, " ")
		n, ok := parseDec(num)
		if !ok || s.base == 0 || n != s.base+uint64(len(s.tail))+1 || n > s.n {
			return bad()
		}
		r, err := parseRecord(rest)
		if err != nil {
			return err
		}
		if r.spill {
			return bad()
		}
		s.tail = append(s.tail, tailRecord{n, r.nonce, r.body})
	case c == 's':
		f := strings.Split(arg, " ")
		if len(f) != 3 || !validOrigin(f[0]) {
			return bad()
		}
		ctr, ok1 := parse36(f[1])
		n, ok2 := parseDec(f[2])
		if !ok1 || !ok2 || n > s.n || n == 0 {
			return bad()
		}
		s.marks.add(nonce{strings.Clone(f[0]), ctr}, n)
	case c == 'k':
		num, op, ok := strings.Cut(arg, " ")
		n, ok2 := parseDec(num)
		if !ok || !ok2 || op == "" || n > s.n {
			return bad()
		}
		s.kept = append(s.kept, keptOp{n, strings.Clone(op)})
	case strings.IndexByte(known, c) >= 0:
		s.lines = append(s.lines, line)
	default:
		skip, err := unknownOp(line)
		if err != nil {
			return err
		}
		if skip {
			s.other = append(s.other, strings.Clone(line))
		}
	}
	return nil
}
