package kit

import (
	"os"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// slackSet is in the environment of the second execution: whatever became of the slack, there is no third.
const slackSet = "SHOAL_TIMER_SLACK_SET"

// coalesceTimers lets the kernel wake this process's threads up to slack late (PR_SET_TIMERSLACK). The runtime's monitor thread
// sleeps for 20 µs at a time while there is little to do, and with the usual slack of 50 µs that is an eighth of the CPU of a
// box under mail. A thread hands its slack on to those that it starts, and the monitor has been started long before
// main: so the program is executed once more, in the same process, with the slack in place. Where that is not allowed
// it goes on as it is.
func coalesceTimers(slack time.Duration) {
	if slack <= 0 || os.Getenv(slackSet) != "" {
		_ = os.Unsetenv(slackSet)
		return
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	have, err := unix.PrctlRetInt(unix.PR_GET_TIMERSLACK, 0, 0, 0, 0)
	if err != nil || time.Duration(have) >= slack {
		return
	}
	exe, err := os.Executable()
	if err != nil || unix.Prctl(unix.PR_SET_TIMERSLACK, uintptr(slack), 0, 0, 0) != nil {
		return
	}
	_ = syscall.Exec(exe, os.Args, append(os.Environ(), slackSet+"=1"))
}
