package shoalctl

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"shoal/daemons/internal/dirclient"
)

// roomiestVolume asks the boxes which of the volumes has the most free space. Volumes that not all boxes serve come last.
func (t *tool) roomiestVolume(ctx context.Context, active []string) (name string, err error) {
	c, err := t.load()
	if err != nil {
		return "", err
	}
	err = t.withAdmin(ctx, func(a *dirclient.Admin) error {
		k, err := c.control()
		if err != nil {
			return err
		}
		defer k.close()
		boxes, _, err := t.boxes(ctx, a, k)
		if err != nil {
			return err
		}
		name = roomiest(active, boxes)
		return nil
	})
	if err == nil && name == "" {
		err = fmt.Errorf("no box says how full the volumes are: name one of %s with --volume", strings.Join(active, ", "))
	}
	return name, err
}

// roomiest is the volume with the most free space among those that most of the boxes serve; empty when none does.
func roomiest(active []string, boxes map[string]boxStatus) string {
	best, most, free := "", 0, uint64(0)
	for _, name := range slices.Sorted(slices.Values(active)) {
		served, room := 0, uint64(0)
		for _, b := range boxes {
			if u, ok := b.Use[name]; ok && b.Volumes[name] == "ok" {
				served++
				room = max(room, u.Free)
			}
		}
		if served > most || served == most && served > 0 && room > free {
			best, most, free = name, served, room
		}
	}
	return best
}
