package queue

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"strconv"
	"strings"
	"time"
)

// The version of the format (docs/queue.md). Every minor version of this major version is read.
const (
	formatMajor = 1
	markerName  = "shoal-queue"
	batchMagic  = "shoal-batch 1.0\n"
	trailerLen  = 4 + 16 + 1 + 16 + 1 + 8 + 1
)

// Bounds of what is read.
const (
	maxIndex = 64 << 20 // bytes of a batch's index
	maxLine  = 16 << 20 // bytes of one entry or one progress line
)

// Errors of the queue, to be told apart with errors.Is.
var (
	// ErrNotQueue: the directory carries no marker file: most likely the volume is not mounted.
	ErrNotQueue = errors.New("not a shoal queue")
	// ErrWrongQueue: the marker names another queue than the configuration.
	ErrWrongQueue = errors.New("wrong queue")
	// ErrNewerFormat: written by a version with a newer major format.
	ErrNewerFormat = errors.New("format is newer than this version can read")
	// ErrCorrupt: something stored does not parse or fails its checksum.
	ErrCorrupt = errors.New("corrupt")
	// ErrNoSpace: the queue's volume is full. Nothing was accepted.
	ErrNoSpace = errors.New("no space left for the queue")
	// ErrLost: the entry belongs to another switch now.
	ErrLost = errors.New("claimed by another switch")
	// ErrNoEntry: no such entry here.
	ErrNoEntry = errors.New("no such entry")
	// ErrClosed: the queue has been closed.
	ErrClosed = errors.New("queue closed")
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Recipient of an entry.
type Recipient struct {
	Address string `json:"a"`
	Notify  string `json:"n,omitempty"` // RFC 3461 §4.1, as given
	ORcpt   string `json:"o,omitempty"` // RFC 3461 §4.2, as given
	From    string `json:"f,omitempty"` // address it was forwarded or expanded from
}

// Envelope is what an entry is besides its content.
type Envelope struct {
	From       string      `json:"from"`
	Recipients []Recipient `json:"to"`
	EnvID      string      `json:"envid,omitempty"`
	Return     string      `json:"ret,omitempty"` // FULL or HDRS (RFC 3461 §4.3)
	UTF8       bool        `json:"utf8,omitempty"`
	Body       string      `json:"body,omitempty"` // 7BIT, 8BITMIME or BINARYMIME
	Trace      string      `json:"trace,omitempty"`
	Accepted   int64       `json:"at"`  // Unix seconds
	Expires    int64       `json:"exp"` // Unix seconds
	// Again: the message was tried before it was queued, and for some of its recipients no answer came.
	Again bool `json:"again,omitempty"`
}

// indexEntry is one line of a batch's index.
type indexEntry struct {
	Offset   int64  `json:"off"`
	Length   int64  `json:"len"`
	Checksum uint32 `json:"crc"`
	Envelope
}

// appendIndex appends the index of a batch and its trailer; offset is where it begins.
func appendIndex(b []byte, offset int64, entries []indexEntry) ([]byte, error) {
	start := len(b)
	for i := range entries {
		line, err := json.Marshal(&entries[i])
		if err != nil {
			return nil, fmt.Errorf("entry %d: %w", i, err)
		}
		b = append(append(b, line...), '\n')
	}
	index := b[start:]
	return fmt.Appendf(b, "end %016x %016x %08x\n", offset, len(index), crc32.Checksum(index, castagnoli)), nil
}

// parseTrailer reads the last trailerLen bytes of a batch of the given size.
func parseTrailer(b []byte, size int64) (offset, length int64, crc uint32, err error) {
	bad := fmt.Errorf("trailer of a batch: %w", ErrCorrupt)
	if len(b) != trailerLen || b[trailerLen-1] != '\n' || string(b[:4]) != "end " || b[20] != ' ' || b[37] != ' ' {
		return 0, 0, 0, bad
	}
	o, err1 := strconv.ParseUint(string(b[4:20]), 16, 63)
	l, err2 := strconv.ParseUint(string(b[21:37]), 16, 63)
	c, err3 := strconv.ParseUint(string(b[38:46]), 16, 32)
	if err1 != nil || err2 != nil || err3 != nil || l > maxIndex || o < uint64(len(batchMagic)) || o+l+trailerLen != uint64(size) {
		return 0, 0, 0, bad
	}
	return int64(o), int64(l), uint32(c), nil
}

// parseIndex reads the lines of an index. contents is the number of bytes before it.
func parseIndex(b []byte, contents int64, crc uint32) ([]indexEntry, error) {
	if crc32.Checksum(b, castagnoli) != crc {
		return nil, fmt.Errorf("index of a batch: checksum: %w", ErrCorrupt)
	}
	var out []indexEntry
	for len(b) > 0 {
		line, rest, ok := bytes.Cut(b, []byte{'\n'})
		if !ok || len(line) > maxLine {
			return nil, fmt.Errorf("index of a batch: %w", ErrCorrupt)
		}
		b = rest
		var e indexEntry
		if err := json.Unmarshal(line, &e); err != nil {
			return nil, fmt.Errorf("entry %d of a batch: %w: %w", len(out), ErrCorrupt, err)
		}
		if e.Offset < int64(len(batchMagic)) || e.Length < 0 || e.Offset+e.Length > contents || e.Offset+e.Length < e.Offset || len(e.Recipients) == 0 {
			return nil, fmt.Errorf("entry %d of a batch: %w", len(out), ErrCorrupt)
		}
		out = append(out, e)
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("a batch without entries: %w", ErrCorrupt)
	}
	return out, nil
}

// State of a recipient.
type State string

// The states. All but Deferred are final.
const (
	Deferred  State = "deferred"
	Delivered State = "delivered" // taken by a box: in the mailbox
	Relayed   State = "relayed"   // taken by another mail system
	Expanded  State = "expanded"  // replaced by other recipients in an entry of their own
	Failed    State = "failed"    // refused for good, or given up
	Deleted   State = "deleted"   // by an operator
)

// Final tells whether nothing more will be tried.
func (s State) Final() bool {
	switch s {
	case Delivered, Relayed, Expanded, Failed, Deleted:
		return true
	}
	return false
}

// Outcome of an attempt for one recipient.
type Outcome struct {
	Index int    `json:"i"`
	State State  `json:"s"`
	Code  string `json:"c,omitempty"` // enhanced status code (RFC 3463)
	Text  string `json:"t,omitempty"` // answer of the other side, or our own reason
}

// progress is one line of a log.
type progress struct {
	Entry    string    `json:"e"` // <seq>.<i>
	Attempts int       `json:"n"`
	Due      int64     `json:"due,omitempty"`
	Outcomes []Outcome `json:"r,omitempty"`
	Warned   bool      `json:"w,omitempty"`
}

func (p *progress) appendLine(b []byte) ([]byte, error) {
	text, err := json.Marshal(p)
	if err != nil {
		return nil, err
	}
	b = fmt.Appendf(b, "%08x ", crc32.Checksum(text, castagnoli))
	return append(append(b, text...), '\n'), nil
}

// parseLog calls f for every whole line; a line that fails its checksum ends the log.
func parseLog(b []byte, f func(progress)) {
	for {
		line, rest, ok := bytes.Cut(b, []byte{'\n'})
		if !ok || len(line) < 10 || len(line) > maxLine || line[8] != ' ' {
			return
		}
		crc, err := strconv.ParseUint(string(line[:8]), 16, 32)
		if err != nil || crc32.Checksum(line[9:], castagnoli) != uint32(crc) {
			return
		}
		var p progress
		if json.Unmarshal(line[9:], &p) != nil {
			return
		}
		f(p)
		b = rest
	}
}

// name is an entry within the directory of a run.
type name struct {
	seq   uint64
	index int
}

func (n name) String() string {
	return strconv.FormatUint(n.seq, 10) + "." + strconv.Itoa(n.index)
}

func parseName(s string) (name, bool) {
	a, b, ok := strings.Cut(s, ".")
	seq, ok1 := parseNumber(a)
	i, ok2 := parseNumber(b)
	return name{seq, int(i)}, ok && ok1 && ok2 && seq > 0 && i < 1<<31
}

func parseNumber(s string) (uint64, bool) {
	if s == "" || len(s) > 1 && s[0] == '0' || s[0] == '+' || s[0] == '-' {
		return 0, false
	}
	n, err := strconv.ParseUint(s, 10, 63)
	return n, err == nil
}

// parseClaim splits the name of a claim into entry and generation.
func parseClaim(s string) (name, int, bool) {
	i := strings.LastIndexByte(s, '.')
	if i < 0 {
		return name{}, 0, false
	}
	n, ok1 := parseName(s[:i])
	g, ok2 := parseNumber(s[i+1:])
	return n, int(g), ok1 && ok2 && g > 0 && g < 1<<31
}

// parseID splits an entry's id into the run that wrote it and its name there.
func parseID(id string) (origin string, n name, ok bool) {
	i := strings.LastIndexByte(id, '.')
	if i < 0 {
		return "", name{}, false
	}
	j := strings.LastIndexByte(id[:i], '.')
	if j < 0 {
		return "", name{}, false
	}
	n, ok = parseName(id[j+1:])
	return id[:j], n, ok && validOrigin(id[:j])
}

var bootEpoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// originAt names a run that begins at t.
func originAt(server string, t time.Time) string {
	return server + "." + strconv.FormatInt(max(t.Sub(bootEpoch).Milliseconds(), 1), 36)
}

func validOrigin(s string) bool {
	server, boot, ok := strings.Cut(s, ".")
	if !ok || !validServer(server) || boot == "" || len(boot) > 13 {
		return false
	}
	_, err := strconv.ParseUint(boot, 36, 63)
	return err == nil && boot == strings.ToLower(boot)
}

func validServer(s string) bool {
	if len(s) == 0 || len(s) > 15 || s[0] == '-' {
		return false
	}
	for i := 0; i < len(s); i++ {
		if c := s[i]; !(c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-') {
			return false
		}
	}
	return true
}

func serverOf(origin string) string {
	s, _, _ := strings.Cut(origin, ".")
	return s
}

// parseMarker checks a marker file and returns the queue's id.
func parseMarker(text string) (id string, err error) {
	head, rest, _ := strings.Cut(text, "\n")
	version, ok := strings.CutPrefix(head, "shoal-queue ")
	major, _, ok2 := strings.Cut(version, ".")
	n, ok3 := parseNumber(major)
	if !ok || !ok2 || !ok3 {
		return "", fmt.Errorf("%w: first line %.40q", ErrNotQueue, head)
	}
	if n > formatMajor {
		return "", fmt.Errorf("version %s: %w", version, ErrNewerFormat)
	}
	for _, line := range strings.Split(rest, "\n") {
		if v, ok := strings.CutPrefix(line, "id "); ok && v != "" {
			return v, nil
		}
	}
	return "", fmt.Errorf("%w: the marker has no id", ErrNotQueue)
}
