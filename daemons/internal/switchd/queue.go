package switchd

import (
	"context"
	"sync"

	"shoal/daemons/internal/outbound"
	"shoal/daemons/internal/queue"
	"shoal/daemons/internal/relay"
	"shoal/daemons/internal/vfs"
)

// buildQueue opens the queue and makes what works it.
func (s *mailSwitch) buildQueue(c *Config) (err error) {
	s.remote, err = outbound.New(outbound.Options{
		Settings: c.Outbound, Hostname: c.hostname(), OwnNames: []string{c.Server.Name}, Log: s.env.Log, Metrics: s.env.Metrics, Clock: s.env.Clock,
	})
	if err != nil {
		return err
	}
	s.Undone(s.remote.Close)
	s.queue, err = queue.Open(queue.Options{
		Server: s.env.Server, Path: c.Queue.Path, ID: c.Queue.ID, FS: vfs.OS(), Clock: s.env.Clock, Log: s.env.Log, Metrics: s.env.Metrics,
		Beat: c.Queue.Beat, DeadAfter: c.Queue.DeadAfter, MaxEntries: c.Queue.MaxEntries,
	})
	if err != nil {
		return err
	}
	s.Undone(s.queue.Close)
	runner, err := relay.New(relay.Options{
		Queue: s.queue, Router: s.router, Local: relay.LMTP{Transport: s.boxes}, Remote: s.remote, Settings: c.Relay, Hostname: c.hostname(),
		NewID: s.traces.Next, Log: s.env.Log, Metrics: s.env.Metrics, Clock: s.env.Clock,
	})
	if err != nil {
		return err
	}
	s.work = newWorker(runner)
	s.Undone(s.work.close)
	s.controlQueue()
	return nil
}

// worker runs a relay.Runner until it is stopped.
type worker struct {
	runner *relay.Runner
	ctx    context.Context
	cancel context.CancelFunc
	runs   sync.WaitGroup
}

func newWorker(r *relay.Runner) *worker {
	w := &worker{runner: r}
	w.ctx, w.cancel = context.WithCancel(context.Background())
	return w
}

// start works the queue in the background; an error that ends it goes to failed, which has room for it.
func (w *worker) start(failed chan<- error) {
	w.runs.Go(func() {
		if err := w.runner.Run(w.ctx); err != nil {
			failed <- err
		}
	})
}

// stop takes no more entries, lets the attempts under way end until ctx does, and breaks off the rest.
func (w *worker) stop(ctx context.Context) {
	w.cancel()
	w.runs.Wait()
	_ = w.runner.Close(ctx)
}

// close breaks off the attempts under way.
func (w *worker) close() error {
	over, cancel := context.WithCancel(context.Background())
	cancel()
	w.stop(over)
	return nil
}
