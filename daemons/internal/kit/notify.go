package kit

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sys/unix"
)

// systemd is the service manager, if one started us; otherwise all methods do nothing. The states are
// those of sd_notify(3).
type systemd struct {
	log      *slog.Logger
	watchdog time.Duration // how often to feed; 0: never
}

func newSystemd(log *slog.Logger) *systemd {
	s := &systemd{log: log}
	limit, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		log.Warn("systemd's watchdog is not fed", "error", err)
	}
	s.watchdog = limit / 2
	return s
}

func (s *systemd) notify(state string) {
	if _, err := daemon.SdNotify(false, state); err != nil {
		s.log.Warn("cannot tell systemd", "state", state, "error", err)
	}
}

func (s *systemd) ready(status string) { s.notify("READY=1\nSTATUS=" + status) }

// reloading must carry the monotonic time, so that systemd can tell old notices from new ones.
func (s *systemd) reloading() {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		s.log.Warn("cannot tell systemd of the reload", "error", err)
		return
	}
	s.notify(fmt.Sprintf("RELOADING=1\nMONOTONIC_USEC=%d\nSTATUS=Reloading", ts.Nano()/1000))
}

// stopping also asks for the time that the drain may take.
func (s *systemd) stopping(bound time.Duration) {
	s.notify(fmt.Sprintf("STOPPING=1\nSTATUS=Draining\nEXTEND_TIMEOUT_USEC=%d", bound.Microseconds()))
}

// feed feeds the watchdog if the service is alive. It is called from the main loop, so a main loop that
// hangs starves the watchdog too.
func (s *systemd) feed(ctx context.Context, service Service) {
	if l, ok := service.(Liver); ok {
		ctx, cancel := context.WithTimeout(ctx, s.watchdog/2)
		defer cancel()
		if err := within(ctx, func() error { return l.Alive(ctx) }); err != nil {
			s.log.Error("not alive: systemd's watchdog is not fed", "error", err)
			return
		}
	}
	s.notify(daemon.SdNotifyWatchdog)
}

// within runs f and waits for it, but not longer than ctx, whose error it then returns.
func within(ctx context.Context, f func() error) error {
	done := make(chan error, 1)
	go func() { done <- f() }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}
