package mailstore

import (
	"context"
	"fmt"

	"shoal/daemons/internal/vfs"
)

// Check asks whether the volume answers and is still the mounted one. ErrUnavailable.
func (s *Store) Check(ctx context.Context, volume string) error {
	v, err := s.volume(volume)
	if err != nil {
		return err
	}
	return v.do(ctx, v.present)
}

// Space tells how large the volume's file system is, and how full. ErrUnavailable.
func (s *Store) Space(ctx context.Context, volume string) (vfs.StatFS, error) {
	v, err := s.volume(volume)
	if err != nil {
		return vfs.StatFS{}, err
	}
	got := make(chan vfs.StatFS, 1)
	err = v.do(ctx, func() error {
		st, err := v.fs.Statfs(v.root)
		got <- st
		return err
	})
	if err != nil {
		return vfs.StatFS{}, fmt.Errorf("volume %s: %w", volume, err)
	}
	return <-got, nil
}
