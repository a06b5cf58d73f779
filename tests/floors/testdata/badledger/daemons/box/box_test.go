package box

import "testing"

func TestIdle(t *testing.T) { t.Log("not run") }
