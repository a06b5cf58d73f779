package boxd

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"shoal/daemons/internal/clock"
	"shoal/daemons/internal/dirclient"
	"shoal/daemons/internal/kit"
	"shoal/daemons/internal/pki"
)

// watchEvery is how often the directory's words about this box are looked at.
const watchEvery = 30 * time.Second

// directoryWatch compares what the directory says of this box with its configuration.
type directoryWatch struct {
	*dirclient.Presence
	dir     *dirclient.Client
	env     *kit.Env
	address string  // where this box takes hints
	volumes *served // those that are served
	closed  func(volume string, closed bool)

	mu       sync.Mutex
	problems []string // what differs
	fatal    error    // what must not go on: a volume with another id
}

func newDirectoryWatch(dir *dirclient.Client, env *kit.Env, address string, volumes *served, grace time.Duration, closed func(volume string, closed bool)) *directoryWatch {
	return &directoryWatch{Presence: dirclient.NewPresence(dir, grace), dir: dir, env: env, address: address, volumes: volumes, closed: closed}
}

// run looks now and then until ctx ends: soon again while the directory was never reached.
func (w *directoryWatch) run(ctx context.Context) {
	said := ""
	for {
		problems, fatal, err := w.look(ctx)
		if err == nil {
			w.mu.Lock()
			w.problems, w.fatal = problems, fatal
			w.mu.Unlock()
		}
		now := strings.Join(problems, "; ")
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			now = said
			if !w.Reached() && said == "" {
				now = "unreached"
				w.env.Log.Error("the directory cannot be reached: logins and deliveries are answered \"try again later\" until it is: check directory { uris } and that a directory server runs there",
					"event", "directory-unreached", "error", err)
			}
		case now != said && now != "":
			w.env.Log.Error("the directory and the configuration of this box differ", "event", "directory-differs", "problems", now)
		}
		said = now
		if clock.Sleep(ctx, w.env.Clock, w.Wait(watchEvery)) != nil {
			return
		}
	}
}

// look compares. An error means that the directory could not be asked.
func (w *directoryWatch) look(ctx context.Context) (problems []string, fatal error, err error) {
	if err := w.Ping(ctx); err != nil {
		return nil, nil, err
	}
	boxes, err := w.dir.Servers(ctx, pki.RoleBox)
	if err != nil {
		return nil, nil, err
	}
	i := slices.IndexFunc(boxes, func(s dirclient.Server) bool { return s.Name == w.env.Server })
	switch {
	case i < 0:
		problems = append(problems, fmt.Sprintf("no entry for box %s: other boxes will send it no hints: add it (shoalAddress: hint %s)", w.env.Server, w.address))
	case !slices.Contains(boxes[i].Addresses[dirclient.ServiceHint], w.address):
		problems = append(problems, fmt.Sprintf("entry %s does not list \"hint %s\": other boxes will send no hints there: add it to shoalAddress, or set hints { address }",
			boxes[i].DN, w.address))
	}
	volumes, err := w.dir.Volumes(ctx)
	if err != nil {
		return nil, nil, err
	}
	for _, v := range volumes {
		id, ok := w.volumes.id(v.Name)
		if ok {
			w.closed(v.Name, v.State == dirclient.VolumeClosed)
		}
		switch {
		case !ok && v.State != dirclient.VolumeClosed:
			problems = append(problems, fmt.Sprintf("volume %s is not configured here: its accounts cannot be served: mount it and add a volume block, or mount it in the volume_folder under its name", v.Name))
		case ok && !strings.EqualFold(id, v.ID):
			fatal = fmt.Errorf("volume %s: the directory says its id is %s, the configuration says %s: correct the wrong one", v.Name, v.ID, id)
			problems = append(problems, fatal.Error())
		}
	}
	return problems, fatal, nil
}

// usable is the directory's part of readiness: that it is there, and that nothing it says forbids to go on.
func (w *directoryWatch) usable(ctx context.Context) error {
	err := w.Ready(ctx)
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.fatal != nil {
		return w.fatal
	}
	return err
}

// volumePatience is how long a volume may take to answer a question about its health.
const volumePatience = 2 * time.Second

// checkVolumes asks all volumes at once.
func (b *box) checkVolumes(ctx context.Context) map[string]error {
	ctx, cancel := context.WithTimeout(ctx, volumePatience)
	defer cancel()
	var mu sync.Mutex
	var wg sync.WaitGroup
	out := map[string]error{}
	for _, v := range b.volumes.names() {
		wg.Go(func() {
			err := b.store.Check(ctx, v)
			if errors.Is(err, context.DeadlineExceeded) {
				err = fmt.Errorf("volume %s: no answer for %v", v, volumePatience)
			}
			mu.Lock()
			defer mu.Unlock()
			out[v] = err
		})
	}
	wg.Wait()
	return out
}

// Ready returns nil when mailboxes can be served: those of one volume at least. A volume that does not answer is no reason
// to take the others' accounts away from this server.
func (b *box) Ready(ctx context.Context) error {
	if err := b.watch.usable(ctx); err != nil {
		return err
	}
	var errs []error
	for _, err := range b.checkVolumes(ctx) {
		if err == nil {
			return nil
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// Status is shown to operators.
func (b *box) Status(ctx context.Context) map[string]any {
	volumes := map[string]string{}
	use := map[string]any{}
	for v, err := range b.checkVolumes(ctx) {
		volumes[v] = "ok"
		if err != nil {
			volumes[v] = err.Error()
			continue
		}
		if st, err := b.store.Space(ctx, v); err == nil {
			use[v] = map[string]uint64{"bytes": st.Total, "bytes_free": st.Free, "inodes": st.Files, "inodes_free": st.FilesFree}
		}
	}
	directory := "ok"
	if err := b.watch.Ping(ctx); err != nil {
		directory = err.Error()
	}
	b.watch.mu.Lock()
	problems := slices.Clone(b.watch.problems)
	b.watch.mu.Unlock()
	sums, open := b.sample()
	return map[string]any{
		"directory":   directory,
		"problems":    problems,
		"volumes":     volumes,
		"volume_use":  use,
		"connections": open,
		"idling":      sums["shoal_imap_idling_connections"],
		"hints": map[string]float64{
			"sent": sums["shoal_hint_sent_total"], "received": sums["shoal_hint_received_total"],
			"dropped": sums["shoal_hint_dropped_total"], "refused": sums["shoal_hint_refused_total"],
		},
	}
}

// sample reads this process's own metrics: counters and gauges summed over their labels, by name, and the open
// connections by listener.
func (b *box) sample() (sums, open map[string]float64) {
	sums, open = map[string]float64{}, map[string]float64{}
	families, err := b.env.Metrics.Gather()
	if err != nil {
		b.env.Log.Warn("metrics cannot be gathered", "error", err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			v := m.GetCounter().GetValue() + m.GetGauge().GetValue()
			sums[f.GetName()] += v
			if f.GetName() == "shoal_listener_open_connections" && len(m.GetLabel()) == 1 {
				open[m.GetLabel()[0].GetValue()] = v
			}
		}
	}
	return sums, open
}
