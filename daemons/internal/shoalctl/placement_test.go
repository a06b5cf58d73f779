package shoalctl

import (
	"encoding/json"
	"testing"
)

func TestRoomiest(t *testing.T) {
	const boxes = `{
	 "box1": {"volumes": {"a": "ok", "b": "ok", "c": "ok", "d": "no answer"}, "volume_use": {"a": {"bytes_free": 10}, "b": {"bytes_free": 30}, "c": {"bytes_free": 99}}},
	 "box2": {"volumes": {"a": "ok", "b": "ok", "c": "volume c: no answer for 2s"}, "volume_use": {"a": {"bytes_free": 11}, "b": {"bytes_free": 29}}}}`
	var all map[string]boxStatus
	if err := json.Unmarshal([]byte(boxes), &all); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		want   string
		active []string
	}{
		{"b", []string{"a", "b"}},
		{"b", []string{"c", "b", "a"}}, // c has more room, but box2 does not serve it
		{"c", []string{"c", "d"}},
		{"", []string{"d"}},
	} {
		if got := roomiest(c.active, all); got != c.want {
			t.Errorf("%v: %q, want %q", c.active, got, c.want)
		}
	}
}
