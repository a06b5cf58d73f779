package boxd

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"shoal/daemons/internal/clock"
	"shoal/daemons/internal/conf"
	"shoal/daemons/internal/dirclient"
	"shoal/daemons/internal/kit"
	"shoal/daemons/internal/mailstore"
)

// served are the volumes of this box; there may be more of them while it runs.
type served struct {
	mu  sync.Mutex
	all map[string]conf.Volume
}

func (v *served) add(x conf.Volume) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.all == nil {
		v.all = map[string]conf.Volume{}
	}
	v.all[x.Name] = x
}

func (v *served) names() []string {
	v.mu.Lock()
	defer v.mu.Unlock()
	return slices.Sorted(maps.Keys(v.all))
}

func (v *served) id(name string) (string, bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	x, ok := v.all[name]
	return x.ID, ok
}

// addVolumes opens the volumes that a reloaded configuration has more.
func (b *box) addVolumes(c *Config) error {
	here := map[string]bool{}
	for _, v := range c.Volumes {
		here[v.Name] = true
		if id, ok := b.volumes.id(v.Name); ok {
			if id != v.ID {
				return fmt.Errorf("volume %s is served as %s: another one under its name takes a restart", v.Name, id)
			}
			continue
		}
		if err := addVolumes(b.store, []conf.Volume{v}); err != nil {
			return err
		}
		b.volumes.add(v)
		b.env.Log.Info("volume opened", "event", "volume-opened", "volume", v.Name, "path", v.Path)
	}
	for _, name := range b.volumes.names() {
		if !here[name] && b.finder.folder == "" {
			return fmt.Errorf("volume %s is no more in the file: it takes a restart to let go of a volume", name)
		}
	}
	return nil
}

// finder serves volumes that appear in the volume folder and the directory.
type finder struct {
	folder  string
	store   *mailstore.Store
	dir     *dirclient.Client
	volumes *served
	env     *kit.Env

	said map[string]string // what was wrong with a volume last
}

// findEvery is how often the directory's list is looked at. It is cached, and forgotten when it changes.
const findEvery = time.Second

func (f *finder) run(ctx context.Context) {
	if f.folder == "" {
		return
	}
	f.said = map[string]string{}
	for {
		if list, err := f.dir.Volumes(ctx); err == nil {
			for _, v := range list {
				f.look(v)
			}
		}
		if clock.Sleep(ctx, f.env.Clock, findEvery) != nil {
			return
		}
	}
}

// look opens a volume that is not served yet, if it is there.
func (f *finder) look(v dirclient.Volume) {
	if _, ok := f.volumes.id(v.Name); ok || v.State == dirclient.VolumeClosed || strings.ContainsAny(v.Name, "/\x00") || strings.HasPrefix(v.Name, ".") {
		return
	}
	path := filepath.Join(f.folder, v.Name)
	if _, err := os.Lstat(path); os.IsNotExist(err) {
		return // the directory's words about this box tell of it (health.go)
	}
	x := conf.Volume{Name: v.Name, Path: path, ID: v.ID}
	err := addVolumes(f.store, []conf.Volume{x})
	if err == nil {
		f.volumes.add(x)
		f.env.Log.Info("volume opened", "event", "volume-opened", "volume", v.Name, "path", path)
		return
	}
	if f.said[v.Name] != err.Error() {
		f.said[v.Name] = err.Error()
		f.env.Log.Error("volume not opened", "event", "volume-refused", "volume", v.Name, "error", err)
	}
}
