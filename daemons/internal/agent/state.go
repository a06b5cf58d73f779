package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"shoal/daemons/internal/pki"
)

// maxState bounds a state file, in bytes.
const maxState = 16 << 20

// stateVersion is that of the state files; a newer one is refused.
const stateVersion = 1

// loadState reads {"version": 1, ...} into a struct with a field Version. A file that is not there leaves it alone.
func loadState(path string, into any, version *int) error {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		*version = stateVersion
		return nil
	}
	if err != nil {
		return fmt.Errorf("state: %w", err)
	}
	defer f.Close()
	if err := json.NewDecoder(io.LimitReader(f, maxState)).Decode(into); err != nil {
		return fmt.Errorf("state %s: %w", path, err)
	}
	if *version != stateVersion {
		return fmt.Errorf("state %s is of version %d, this program reads version %d", path, *version, stateVersion)
	}
	return nil
}

// saveState replaces a state file whole.
func saveState(path string, state any) error {
	text, err := json.MarshalIndent(state, "", "  ")
	if err != nil {
		return fmt.Errorf("state: %w", err)
	}
	return pki.WriteFile(path, append(text, '\n'), 0o600)
}

func statePath(folder, name string) (string, error) {
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return "", fmt.Errorf("state: %w", err)
	}
	return filepath.Join(folder, name), nil
}
