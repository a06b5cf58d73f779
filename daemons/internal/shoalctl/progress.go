package shoalctl

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/term"
)

// Intervals of what is shown while a long command works.
const (
	barEvery  = 100 * time.Millisecond
	lineEvery = 5 * time.Second
)

// progress shows how far a long command is: a bar on a terminal, otherwise a line every few seconds; in JSON
// one object a line.
type progress struct {
	what    string
	total   int64 // bytes
	out     io.Writer
	width   int // of the terminal; 0: no terminal
	json    bool
	began   time.Time
	stopped chan struct{}
	done    chan struct{}

	mu       sync.Mutex
	bytes    int64
	messages int64
}

// newProgress begins to show; finish must be called.
func (t *tool) newProgress(what string, total int64) *progress {
	p := &progress{what: what, total: total, out: t.err, json: t.json, began: time.Now(), stopped: make(chan struct{}), done: make(chan struct{})}
	every := lineEvery
	if f, ok := t.err.(*os.File); ok && !t.json && term.IsTerminal(int(f.Fd())) {
		every = barEvery
		p.width = 80
		if w, _, err := term.GetSize(int(f.Fd())); err == nil && w > 0 {
			p.width = w
		}
	}
	go func() {
		defer close(p.done)
		tick := time.NewTicker(every)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				p.print()
			case <-p.stopped:
				return
			}
		}
	}()
	return p
}

func (p *progress) set(bytes, messages int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.bytes, p.messages = bytes, messages
}

// finish ends the display; on a terminal the bar is wiped away.
func (p *progress) finish() {
	close(p.stopped)
	<-p.done
	if p.width > 0 {
		fmt.Fprintf(p.out, "\r%s\r", strings.Repeat(" ", p.width-1))
	}
}

func (p *progress) print() {
	p.mu.Lock()
	bytes, messages := p.bytes, p.messages
	p.mu.Unlock()
	spent := time.Since(p.began).Seconds()
	rate := float64(messages) / max(spent, 0.001)
	left := -1.0 // unknown
	if bytes > 0 {
		left = spent * float64(p.total-bytes) / float64(bytes)
	}
	switch {
	case p.json:
		_ = json.NewEncoder(p.out).Encode(map[string]any{
			"progress": p.what, "bytes": bytes, "bytes_total": p.total, "messages": messages,
			"seconds": spent, "seconds_left": left,
		})
	case p.width > 0:
		fmt.Fprintf(p.out, "\r%s", p.bar(bytes, messages, rate, left))
	default:
		fmt.Fprintf(p.out, "%s: %s of %s, %d messages, %.0f messages/s, %s left\n",
			p.what, bytesText(bytes), bytesText(p.total), messages, rate, duration(left))
	}
}

// bar fits the terminal: what, a bar, per cent, amounts, rate, time left.
func (p *progress) bar(bytes, messages int64, rate, left float64) string {
	share := 1.0
	if p.total > 0 {
		share = min(float64(bytes)/float64(p.total), 1)
	}
	tail := fmt.Sprintf("] %3.0f%% %s/%s %d msg %.0f/s %s", 100*share, bytesText(bytes), bytesText(p.total), messages, rate, duration(left))
	head := p.what + " ["
	room := p.width - 1 - len(head) - len(tail)
	if room < 5 {
		head, room = "[", p.width-2-len(tail)
	}
	if room < 1 {
		return tail[2:min(len(tail), p.width+1)]
	}
	full := int(share * float64(room))
	return head + strings.Repeat("#", full) + strings.Repeat(".", room-full) + tail
}

func duration(seconds float64) string {
	if seconds < 0 {
		return "?"
	}
	d := time.Duration(seconds) * time.Second
	if d >= time.Hour {
		return fmt.Sprintf("%d:%02d:%02d", int(d.Hours()), int(d.Minutes())%60, int(d.Seconds())%60)
	}
	return fmt.Sprintf("%d:%02d", int(d.Minutes()), int(d.Seconds())%60)
}
