package kit

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
)

// testSlack is the slack of the daemon of these tests.
const testSlack = 777 * time.Microsecond

// The runtime's monitor thread, which is started before main, has the slack.
func TestTimerSlack(t *testing.T) {
	d := start(t, echoListener)
	pid := d.cmd.Process.Pid
	d.connect("echo")
	tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil || len(tasks) < 2 {
		t.Fatal(tasks, err)
	}
	for _, task := range tasks {
		b, err := os.ReadFile("/proc/" + task.Name() + "/timerslack_ns")
		if err != nil {
			t.Fatal(err)
		}
		if have := strings.TrimSpace(string(b)); have != strconv.FormatInt(int64(testSlack), 10) {
			t.Errorf("thread %s: slack of %s ns", task.Name(), have)
		}
	}
	comm, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	if err != nil || strings.HasPrefix(string(comm), "exe") {
		t.Errorf("the process is called %q, %v", comm, err)
	}
}
