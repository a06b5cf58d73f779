package devcluster

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"shoal/daemons/internal/pki"
	"shoal/daemons/internal/queue"
	"shoal/daemons/internal/vfs"
)

// queueFolder is where the switches keep what they cannot deliver at once. All of them have the same one.
func (l Layout) queueFolder() string { return l.path("queue") }

// ensureQueue makes the queue at the first start and returns its id. Once its id is noted the queue is never made again:
// where its marker is missing then, something is wrong, and switchd is to say so.
func (l Layout) ensureQueue() (id string, err error) {
	note := l.path("queue.id")
	text, err := os.ReadFile(note)
	if err == nil {
		return strings.TrimSpace(string(text)), nil
	}
	if !errors.Is(err, os.ErrNotExist) {
		return "", fmt.Errorf("queue: %w", err)
	}
	if id, err = markedID(l.path("queue", "shoal-queue")); errors.Is(err, os.ErrNotExist) {
		id = newUUID()
		if err := os.MkdirAll(l.queueFolder(), 0o700); err != nil {
			return "", fmt.Errorf("queue: %w", err)
		}
		err = queue.Init(vfs.OS(), l.queueFolder(), id)
	}
	if err != nil {
		return "", fmt.Errorf("queue: %w", err)
	}
	return id, pki.WriteFile(note, []byte(id+"\n"), 0o644)
}

// queueBlocks is the part of a switch's configuration about the queue. The others wait for a switch that died for a
// few seconds only: here nobody mistakes a slow file server for a dead switch.
func (l Layout) queueBlocks(id string) string {
	return fmt.Sprintf(`
queue {
  path       = %s
  id         = %s
  beat       = "1s"
  dead_after = "10s"
}
`, quote(l.queueFolder()), quote(id)) + l.outboundBlock()
}

// outboundBlock sends mail for other systems to the host in SHOAL_SMART_HOST (host:port), if it is set; otherwise it goes to the mail
// exchangers of each domain.
func (l Layout) outboundBlock() string {
	host := os.Getenv("SHOAL_SMART_HOST")
	if host == "" {
		return ""
	}
	return fmt.Sprintf(`
outbound {
  smart_host = %s
}
`, quote(host))
}
