package mailstore

import "context"

// Check asks whether the volume answers and is still the mounted one. ErrUnavailable.
func (s *Store) Check(ctx context.Context, volume string) error {
	v, err := s.volume(volume)
	if err != nil {
		return err
	}
	return v.do(ctx, v.present)
}
