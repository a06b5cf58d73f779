package switchd

import (
	"context"
	"time"

	"shoal/daemons/internal/clock"
)

// watchEvery is how often the directory is asked whether it is there.
const watchEvery = 30 * time.Second

// watchDirectory asks for the directory now and then until ctx ends, and says it once if it was never there.
func (s *mailSwitch) watchDirectory(ctx context.Context) {
	said := false
	for {
		err := s.directory.Ping(ctx)
		if err != nil && !s.directory.Reached() && !said && ctx.Err() == nil {
			said = true
			s.env.Log.Error("the directory cannot be reached: mail and logins are answered \"try again later\" until it is: check directory { uris } and that a directory server runs there",
				"event", "directory-unreached", "error", err)
		}
		if clock.Sleep(ctx, s.env.Clock, s.directory.Wait(watchEvery)) != nil {
			return
		}
	}
}

// Ready returns nil when mail can be taken.
func (s *mailSwitch) Ready(ctx context.Context) error {
	return s.directory.Ready(ctx)
}

// Status is shown to operators.
func (s *mailSwitch) Status(ctx context.Context) map[string]any {
	state := func(err error) string {
		if err != nil {
			return err.Error()
		}
		return "ok"
	}
	sums, open := s.sample()
	status := map[string]any{
		"directory":   state(s.directory.Ping(ctx)),
		"boxes":       state(s.boxes.Ping(ctx)),
		"connections": open,
		"messages":    sums["shoal_smtp_messages_total"],
		"recipients":  sums["shoal_smtp_recipients_total"],
		"deliveries":  sums["shoal_deliver_recipients_total"],
	}
	if s.queue != nil {
		q := map[string]any{"entries": s.queue.Len(), "run": s.queue.Origin()}
		if oldest := s.queue.Oldest(); !oldest.IsZero() {
			q["oldest"] = oldest
		}
		status["queue"], status["relayed"] = q, sums["shoal_relay_recipients_total"]
	}
	return status
}

// sample reads this process's own metrics: counters summed over all labels but the result, and the open
// connections by listener.
func (s *mailSwitch) sample() (sums map[string]map[string]float64, open map[string]float64) {
	sums, open = map[string]map[string]float64{}, map[string]float64{}
	families, err := s.env.Metrics.Gather()
	if err != nil {
		s.env.Log.Warn("metrics cannot be gathered", "error", err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			for _, label := range m.GetLabel() {
				switch {
				case label.GetName() == "result" && m.GetCounter() != nil:
					if sums[f.GetName()] == nil {
						sums[f.GetName()] = map[string]float64{}
					}
					sums[f.GetName()][label.GetValue()] += m.GetCounter().GetValue()
				case f.GetName() == "shoal_listener_open_connections" && label.GetName() == "listener":
					open[label.GetValue()] += m.GetGauge().GetValue()
				}
			}
		}
	}
	return sums, open
}
