//go:build shoalknobs

package mailstore

// SetTestKnobs makes the rare frequent (segments of a few records, snapshots all the time), and on demand leaves the fence out, to
// show that a test would notice. It exists only in programs built with the tag shoalknobs, which are never shipped; every server
// of a volume must have the same knobs. To be called before the store is used.
func (s *Store) SetTestKnobs(noFence bool) {
	s.knobs.segmentLen, s.knobs.completeEvery, s.knobs.deltaEvery, s.knobs.noFence = 8, 12, 5, noFence
}
