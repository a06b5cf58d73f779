package imapsession

import (
	"testing"
	"time"

	"shoal/tests/dialogue"
)

// TestScripts plays testdata/*.txt, each against a server and a store of its own.
func TestScripts(t *testing.T) {
	for _, name := range scripts(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, func(o *Options) { o.Limits.SubmitUsers = "submitter@example.test" })
			dialogue.Run(t, script(t, name), r.targets(), dialogue.Timeout(5*time.Second))
		})
	}
}
