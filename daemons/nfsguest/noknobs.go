//go:build !shoalknobs

package main

import "shoal/daemons/internal/mailstore"

// setKnobs is for the rig, which builds this program with the tag shoalknobs.
func setKnobs(*mailstore.Store, bool) { panic("nfsguest: built without the tag shoalknobs") }
