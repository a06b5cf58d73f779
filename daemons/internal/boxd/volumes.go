package boxd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"shoal/daemons/internal/clock"
	"shoal/daemons/internal/conf"
	"shoal/daemons/internal/mailstore"
)

// addVolume opens a volume of a configuration. Its error names the volume and what to do.
func addVolume(s *mailstore.Store, v conf.Volume) error {
	err := s.AddVolume(v.Name, v.Path, v.ID)
	switch {
	case errors.Is(err, mailstore.ErrNotVolume):
		return fmt.Errorf("%w: mount volume %s at %s, or correct path in its volume block", err, v.Name, v.Path)
	case errors.Is(err, mailstore.ErrWrongVolume):
		return fmt.Errorf("%w: mount the right volume at %s, or correct id in the volume block %q", err, v.Path, v.Name)
	}
	return err
}

// addVolumes opens all volumes; the first that is not right is the error.
func addVolumes(s *mailstore.Store, volumes []conf.Volume) error {
	for _, v := range volumes {
		if err := addVolume(s, v); err != nil {
			return err
		}
	}
	return nil
}

// openVolumes opens the volumes, all at once. Those that are not mounted or do not answer are returned: their accounts are
// refused until they are there. It is an error if a volume is the wrong one, or if none is there.
func openVolumes(s *mailstore.Store, volumes []conf.Volume, log *slog.Logger) (absent []conf.Volume, err error) {
	errs := make([]error, len(volumes))
	var wg sync.WaitGroup
	for i, v := range volumes {
		wg.Go(func() { errs[i] = addVolume(s, v) })
	}
	wg.Wait()
	for i, err := range errs {
		switch {
		case err == nil:
		case mayAppear(err):
			absent = append(absent, volumes[i])
		default:
			return nil, err
		}
	}
	if len(absent) == len(volumes) && len(volumes) > 0 {
		return nil, errs[0]
	}
	for _, v := range absent {
		i := slices.IndexFunc(volumes, func(x conf.Volume) bool { return x.Name == v.Name })
		log.Error("volume is not there: its accounts are refused until it is", "event", "volume-absent", "volume", v.Name, "path", v.Path, "error", errs[i])
	}
	return absent, nil
}

// mayAppear tells whether an error is one that passes when a file system is mounted or answers again.
func mayAppear(err error) bool {
	return errors.Is(err, mailstore.ErrNotVolume) || errors.Is(err, mailstore.ErrUnavailable)
}

// awaitEvery is how often an absent volume is looked for.
const awaitEvery = 5 * time.Second

// awaitVolumes opens absent volumes when they appear.
func awaitVolumes(ctx context.Context, clk clock.Clock, s *mailstore.Store, absent []conf.Volume, log *slog.Logger) {
	for len(absent) > 0 && clock.Sleep(ctx, clk, awaitEvery) == nil {
		absent = slices.DeleteFunc(absent, func(v conf.Volume) bool {
			err := addVolume(s, v)
			switch {
			case err == nil:
				log.Info("volume is there", "event", "volume-found", "volume", v.Name, "path", v.Path)
			case !mayAppear(err):
				log.Error("volume is not the right one", "event", "volume-wrong", "volume", v.Name, "path", v.Path, "error", err)
			}
			return err == nil
		})
	}
}
