// Package powercut is what tests/powercut does with the message store: deliver mail and keep the receipts, and look after
// a power cut whether what they promise is there. It is no part of any program.
package powercut

import (
	"context"
	"fmt"
	"hash/crc32"
	"log/slog"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"shoal/daemons/internal/clock"
	"shoal/daemons/internal/mailstore"
	"shoal/daemons/internal/vfs"
)

const (
	volumeID = "11111111-2222-3333-4444-555555555555"
	// Accounts is how many accounts the mail goes to.
	Accounts = 24
)

// A Volume is a volume that one server has open.
type Volume struct {
	s *mailstore.Store
}

// Open makes dir a volume if it is none, and opens it. With broken, the data of messages is not put onto the device before
// their records are made.
func Open(dir, server string, broken bool) (*Volume, error) {
	fs := vfs.OS()
	if broken {
		fs = noData{fs}
	}
	if err := mailstore.InitVolume(fs, dir, volumeID); err != nil {
		return nil, err
	}
	s, err := mailstore.New(mailstore.Options{Server: server, FS: fs, Clock: clock.System(), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return nil, err
	}
	return &Volume{s}, s.AddVolume("vol01", dir, volumeID)
}

// Close closes the volume.
func (v *Volume) Close() error { return v.s.Close() }

type noData struct{ vfs.FS }

type noDataFile struct{ vfs.File }

func (noDataFile) SyncData() error { return nil }

func (f noData) Create(path string) (vfs.File, error) {
	x, err := f.FS.Create(path)
	return noDataFile{x}, err
}

// Receipt is an acknowledged delivery.
type Receipt struct {
	Moment  int // what moment said at the acknowledgement
	account string
	uid     uint32
	id      string // says size and checksum too
}

// Deliver delivers n messages of 4 KB, each fiftieth of 700 KB, in a number of sessions.
func (v *Volume) Deliver(sessions, n int, moment func() int) ([]Receipt, error) {
	var (
		mu    sync.Mutex
		out   []Receipt
		first error
		wg    sync.WaitGroup
		at    atomic.Int64
	)
	for w := range sessions {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(uint64(w), 7))
			for i := at.Add(1); i <= int64(n); i = at.Add(1) {
				account := fmt.Sprintf("account-%d", r.IntN(Accounts))
				got, err := v.deliver(account, i)
				at := moment()
				mu.Lock()
				out = append(out, Receipt{at, account, got.UID, got.ID})
				if first == nil && err != nil {
					first = fmt.Errorf("delivery %d to %s: %w", i, account, err)
				}
				mu.Unlock()
				if err != nil {
					return
				}
			}
		})
	}
	wg.Wait()
	return out, first
}

func (v *Volume) deliver(account string, i int64) (mailstore.Result, error) {
	ctx := context.Background()
	size := 4096
	if i%50 == 0 {
		size = 700 << 10
	}
	text := fmt.Sprintf("Subject: number %d\r\n\r\n", i)
	msg, err := v.s.Stage(ctx, "vol01", strings.NewReader(text+strings.Repeat("x", size-len(text))), 0)
	if err != nil {
		return mailstore.Result{}, err
	}
	defer msg.Close()
	a, err := v.s.Account(ctx, "vol01", account)
	if err != nil {
		return mailstore.Result{}, err
	}
	r := v.s.Deliver(ctx, msg, []mailstore.Target{{Account: a}})[0]
	return r, r.Err
}

// Lost counts the receipts that the volume does not honour. If there is none, it also verifies the whole volume and
// delivers another message: an error says what is wrong.
func (v *Volume) Lost(receipts []Receipt) (int, error) {
	lost := 0
	for _, r := range receipts {
		if !v.honours(r) {
			lost++
		}
	}
	if lost > 0 {
		return lost, nil
	}
	report, err := v.s.Verify(context.Background(), "vol01", mailstore.VerifyOptions{Content: true})
	if err != nil {
		return 0, err
	}
	if len(report.Problems) > 0 {
		return 0, fmt.Errorf("%d problems, the first: %v", len(report.Problems), report.Problems[0])
	}
	if _, err := v.deliver("account-0", 1); err != nil {
		return 0, fmt.Errorf("the next delivery: %w", err)
	}
	return 0, nil
}

// honours tells whether the message of a receipt is there, whole.
func (v *Volume) honours(r Receipt) bool {
	ctx := context.Background()
	a, err := v.s.Account(ctx, "vol01", r.account)
	if err != nil {
		return false
	}
	box, err := a.Open(ctx, mailstore.Inbox)
	if err != nil {
		return false
	}
	st, err := box.State(ctx)
	if err != nil {
		return false
	}
	msg, ok := st.ByUID(r.uid)
	if !ok || msg.ID() != r.id {
		return false
	}
	f, err := box.OpenFile(ctx, msg)
	if err != nil {
		return false
	}
	defer f.Close()
	b := make([]byte, f.Size())
	if n, _ := f.ReadAt(b, 0); int64(n) != f.Size() {
		return false
	}
	sum := crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli))
	return strings.HasSuffix(r.id, "."+strconv.FormatUint(uint64(sum), 36))
}
