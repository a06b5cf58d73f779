package lmtpsession

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"

	"shoal/daemons/internal/mailstore"
)

// store stages the message on each volume that the recipients are on, and delivers it. An error is for
// the message as a whole: nobody has it. Otherwise each target has its result.
func (s *session) store(ctx context.Context, tx *transaction, r io.Reader) (size int64, err error) {
	byVolume := make(map[string][]int, 1)
	var volumes []string
	for i := range tx.targets {
		v := tx.targets[i].account.Volume
		if byVolume[v] == nil {
			volumes = append(volumes, v)
		}
		byVolume[v] = append(byVolume[v], i)
	}
	limit := s.s.o.MaxMessageBytes
	r, id := s.watch(tx, r)
	r = io.MultiReader(strings.NewReader(tx.prefix()), r)
	staged := make([]*mailstore.Staged, len(volumes))
	failed := make([]error, len(volumes))
	defer func() {
		for _, m := range staged {
			if m != nil {
				m.Close()
			}
		}
	}()
	if len(volumes) == 1 {
		staged[0], failed[0] = s.s.o.Store.Stage(ctx, volumes[0], r, limit)
	} else if err := s.stageAll(ctx, volumes, r, limit, staged, failed); err != nil {
		return 0, err
	}
	if len(volumes) == 1 && failed[0] != nil {
		return 0, fmt.Errorf("stage on volume %s: %w", volumes[0], failed[0])
	}
	for i, v := range volumes {
		places := byVolume[v]
		if failed[i] != nil {
			for _, p := range places {
				tx.targets[p].result.Err = fmt.Errorf("stage on volume %s: %w", v, failed[i])
			}
			continue
		}
		size = staged[i].Size()
		targets := make([]mailstore.Target, 0, len(places))
		left := places[:0]
		for _, p := range places {
			t := mailstore.Target{Account: tx.targets[p].handle, Date: s.s.o.Clock.Now(), Once: s.once(tx, p, id)}
			if err := s.subfolder(ctx, &tx.targets[p], &t); err != nil {
				tx.targets[p].result.Err = err
				continue
			}
			if !s.before(ctx, tx, p, staged[i], &t) && !s.filter(ctx, tx, p, staged[i], &t) {
				targets, left = append(targets, t), append(left, p)
			}
		}
		for j, result := range s.s.o.Store.Deliver(ctx, staged[i], targets) {
			tx.targets[left[j]].result = result
		}
	}
	return size, nil
}

// prefix is what the final delivery puts in front of a message. The addresses hold no control
// characters (mailaddr's invariant), so they cannot end the line.
func (tx *transaction) prefix() string {
	p := tx.returnPath()
	if len(tx.targets) == 1 {
		p += deliveredTo(tx.targets[0].rcpt)
	}
	return p
}

func (tx *transaction) returnPath() string { return "Return-Path: " + tx.from.Path() + "\r\n" }

func deliveredTo(address string) string { return "Delivered-To: " + address + "\r\n" }

// stageAll reads r once and stages it on several volumes at once. A volume that fails does not stop the
// others; the error is r's.
func (s *session) stageAll(ctx context.Context, volumes []string, r io.Reader, limit int64, staged []*mailstore.Staged, failed []error) error {
	writers := make([]*io.PipeWriter, len(volumes))
	var wg sync.WaitGroup
	for i, v := range volumes {
		var pr *io.PipeReader
		pr, writers[i] = io.Pipe()
		wg.Go(func() {
			staged[i], failed[i] = s.s.o.Store.Stage(ctx, v, pr, limit)
			pr.CloseWithError(errStaged) // who writes on is not to wait
		})
	}
	buf := make([]byte, 32<<10)
	var err error
	for err == nil {
		var n int
		n, err = r.Read(buf)
		for _, w := range writers {
			if _, werr := w.Write(buf[:n]); werr != nil && !errors.Is(werr, errStaged) {
				err = werr
			}
		}
	}
	for _, w := range writers {
		w.CloseWithError(err) // io.EOF is a clean end
	}
	wg.Wait()
	if err == io.EOF {
		return nil
	}
	return err
}

var errStaged = errors.New("staging has ended")
