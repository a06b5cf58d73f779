package mailstore

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"shoal/daemons/internal/vfs"
)

// TestPowerCut cuts the power after each file operation: what had been acknowledged is there, and what was in
// progress is there whole or not at all, whichever of the unsynced pieces happened to reach the disk.
func TestPowerCut(t *testing.T) {
	for _, kind := range []volumeKind{onPosix, onJournal} {
		for _, sc := range scenarios() {
			t.Run(string(kind)+"/"+sc.name, func(t *testing.T) { powerCut(t, kind, &sc) })
		}
	}
}

func powerCut(t *testing.T, kind volumeKind, sc *scenario) {
	failed, done := sc.outcomes(t)
	r := rand.New(rand.NewPCG(1, 2))
	for i := 0; ; i++ {
		w := sc.prepare(t, kind)
		w.fault.Hook(func(c vfs.Call) vfs.Action { return vfs.Action{Crash: c.I >= i} })
		err := sc.run(w)
		images := []*vfs.Mem{w.mem.Crash(nil), w.mem.Crash(func() bool { return true })}
		for range 3 {
			images = append(images, w.mem.Crash(func() bool { return r.IntN(4) > 0 }))
		}
		for n, image := range images {
			got := w.look(image)
			if err == nil && got != done {
				t.Fatalf("image %d after operation %d: acknowledged, but\n%s\nwant\n%s", n, i, got, done)
			}
			if !slices.Contains(failed, got) {
				t.Fatalf("image %d after operation %d: %v\n%s\nwant one of\n%s", n, i, err, got, strings.Join(failed, "or\n"))
			}
			w.check(image)
			if t.Failed() {
				t.Fatalf("image %d after operation %d", n, i)
			}
		}
		if !w.fault.Crashed() {
			return
		}
	}
}

// TestPowerCutWithoutSync shows that the test above can fail.
func TestPowerCutWithoutSync(t *testing.T) {
	for _, kind := range []volumeKind{onPosix, onJournal} {
		w := newWorld(t, kind)
		w.s.knobs.noSync = true
		before := w.look(w.mem)
		appendOne(t, w.box, "acknowledged", 0)
		if got := w.look(w.mem.Crash(nil)); got != before {
			t.Errorf("%s: the record was not synced and survived a power cut all the same:\n%s", kind, got)
		}
	}
}

// TestPowerCutWithoutData: likewise for the data of a message, whose record alone was made durable.
func TestPowerCutWithoutData(t *testing.T) {
	for _, kind := range []volumeKind{onPosix, onJournal} {
		w := newWorld(t, kind)
		w.s.knobs.noData = true
		appendOne(t, w.box, "acknowledged", 0)
		s := w.store(w.mem.Crash(nil), "verifier")
		r, err := s.Verify(t.Context(), "vol01", VerifyOptions{Content: true})
		if err != nil {
			t.Fatal(err)
		}
		if len(r.Problems) == 0 {
			t.Errorf("%s: the data was not synced, and nothing is missing after a power cut", kind)
		}
	}
}
