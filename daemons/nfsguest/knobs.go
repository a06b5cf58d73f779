//go:build shoalknobs

package main

import "shoal/daemons/internal/mailstore"

func setKnobs(s *mailstore.Store, noFence bool) { s.SetTestKnobs(noFence) }
