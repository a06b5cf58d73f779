package migrate

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"time"

	"shoal/daemons/internal/mailstore"
)

// What is kept between rounds, as attributes of the account:
//
//	migration            progress, JSON
//	migration:<key>      mark of a mailbox of the old server, JSON; key: 16 hex digits of SHA-256 of its name there
//
// Unknown members are ignored, and a version above ours ends the round with an error.
const (
	attrProgress = "migration"
	version      = 1
)

// Progress says how far the copying of an account is.
type Progress struct {
	Version int       `json:"v"`
	Phase   string    `json:"phase"` // copying, waiting (for the next round), failed, done
	At      time.Time `json:"at"`
	By      string    `json:"by"` // the server that wrote this
	Rounds  int       `json:"rounds"`
	Copied  int64     `json:"copied"` // messages, in all rounds
	Bytes   int64     `json:"bytes"`
	Of      int64     `json:"of"`             // messages that the old server has
	Left    int64     `json:"left,omitempty"` // messages that cannot be copied
	Error   string    `json:"error,omitempty"`
}

// Phases.
const (
	PhaseCopying = "copying"
	PhaseWaiting = "waiting"
	PhaseFailed  = "failed"
	PhaseDone    = "done"
)

func readProgress(ctx context.Context, a *mailstore.Account) (p Progress, err error) {
	text, err := a.Attribute(ctx, attrProgress)
	if err != nil || text == "" {
		return p, err
	}
	return p, decode(text, &p, &p.Version)
}

func decode(text string, into any, v *int) error {
	if err := json.Unmarshal([]byte(text), into); err != nil {
		return fmt.Errorf("what is noted of the migration: %w", err)
	}
	if *v > version {
		return fmt.Errorf("what is noted of the migration is of version %d: a newer program wrote it", *v)
	}
	return nil
}

func (p *Progress) write(ctx context.Context, a *mailstore.Account) error {
	p.Version = version
	text, err := json.Marshal(p)
	if err != nil {
		return err
	}
	return a.SetAttribute(ctx, attrProgress, string(text))
}

// mark is what is known of a mailbox of the old server.
type mark struct {
	Version  int    `json:"v"`
	Name     string `json:"name"` // there
	ID       string `json:"id"`   // of the mailbox here
	Validity uint32 `json:"uv"`   // there
	High     uint32 `json:"hi"`   // highest UID there that was copied
	ModSeq   uint64 `json:"ms"`   // HIGHESTMODSEQ there when the last round began
	Runs     []run  `json:"r"`    // which UIDs became which
}

// run says that the UIDs First to Last of the old server became Here and the ones after it.
type run [3]uint32

func (r run) first() uint32 { return r[0] }
func (r run) last() uint32  { return r[1] }
func (r run) here() uint32  { return r[2] }

// maxRuns bounds the runs of a mark. Of messages of older ones changes at the old server are not followed any more.
const maxRuns = 50

// add notes that a message was copied. Where UIDs were kept, the holes between them do no harm: no other message can get them.
func (m *mark) add(there, here uint32) {
	if n := len(m.Runs); n > 0 {
		r := &m.Runs[n-1]
		same := r.here()-r.first() == here-there
		if same && there > r.last() && (there == r.last()+1 || there == here) {
			r[1] = there
			return
		}
	}
	m.Runs = append(m.Runs, run{there, there, here})
	if len(m.Runs) > maxRuns {
		m.Runs = m.Runs[len(m.Runs)-maxRuns:]
	}
}

// here gives the UID that a message of the old server has here; 0: it is not known.
func (m *mark) here(there uint32) uint32 {
	for _, r := range m.Runs {
		if there >= r.first() && there <= r.last() {
			return there - r.first() + r.here()
		}
	}
	return 0
}

func markKey(name string) string {
	sum := sha256.Sum256([]byte(name))
	return attrProgress + ":" + hex.EncodeToString(sum[:8])
}

// readMark gives the mark of a mailbox, nil if it has none.
func readMark(ctx context.Context, a *mailstore.Account, name string) (*mark, error) {
	text, err := a.Attribute(ctx, markKey(name))
	if err != nil || text == "" {
		return nil, err
	}
	m := &mark{}
	return m, decode(text, m, &m.Version)
}

func (m *mark) write(ctx context.Context, a *mailstore.Account) error {
	m.Version = version
	text, err := json.Marshal(m)
	if err != nil {
		return err
	}
	return a.SetAttribute(ctx, markKey(m.Name), string(text))
}
