package devcluster

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"strings"

	"shoal/daemons/internal/mailstore"
	"shoal/daemons/internal/pki"
	"shoal/daemons/internal/vfs"
)

// ensureVolume makes the volume at the first start and returns its id. Once its id is noted, the volume is
// never made again: where its marker is missing then, something is wrong with the volume (it is not mounted,
// perhaps), and boxd is to say so and not to write into an empty folder.
func (l Layout) ensureVolume() (id string, err error) {
	note := l.path("volumes", volumeName+".id")
	text, err := os.ReadFile(note)
	if err == nil {
		return strings.TrimSpace(string(text)), nil
	}
	if !errors.Is(err, os.ErrNotExist) {
		return "", fmt.Errorf("volume: %w", err)
	}
	id, err = markedID(l.path("volumes", volumeName, "shoal-volume"))
	if errors.Is(err, os.ErrNotExist) {
		id = newUUID()
		if err := os.MkdirAll(l.volume(), 0o700); err != nil {
			return "", fmt.Errorf("volume: %w", err)
		}
		err = mailstore.InitVolume(vfs.OS(), l.volume(), id)
	}
	if err != nil {
		return "", fmt.Errorf("volume: %w", err)
	}
	return id, pki.WriteFile(note, []byte(id+"\n"), 0o644)
}

// markedID reads the id in the marker of a volume or queue: a first start may have been killed before it was noted.
func markedID(marker string) (string, error) {
	text, err := os.ReadFile(marker)
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(text)) {
		if id, ok := strings.CutPrefix(strings.TrimSpace(line), "id "); ok {
			return id, nil
		}
	}
	return "", fmt.Errorf("the marker %s names no id", marker)
}

// newUUID is a random UUID (RFC 9562 §5.4).
func newUUID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails: it ends the process instead (crypto/rand)
	b[6] = b[6]&0x0f | 0x40
	b[8] = b[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}
