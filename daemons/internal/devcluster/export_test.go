package devcluster

import "io"

// Prepare makes everything on disk that Run makes before it starts the servers.
func Prepare(l Layout) error {
	c := &cluster{Options: Options{Layout: l, Out: io.Discard}}
	if err := c.claim(); err != nil {
		return err
	}
	if err := c.ensureCerts(); err != nil {
		return err
	}
	if _, err := c.ensureUsers(); err != nil {
		return err
	}
	id, err := c.ensureVolume()
	if err != nil {
		return err
	}
	return c.writeConfigs(id)
}
