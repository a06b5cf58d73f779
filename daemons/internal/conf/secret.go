package conf

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
)

// maxSecret bounds a secret file, in bytes.
const maxSecret = 64 << 10

// ReadSecret returns the content of a secret file without the line end at its end. It refuses a file
// that others than its owner and group can read, or that others than its owner can write; one that is
// no regular file; an empty one; and one of several lines, which is a mistake more often than a
// password.
func ReadSecret(path string) ([]byte, error) {
	f, err := os.Open(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("secret file %s: %w: put the secret there, readable by the daemon's user only (mode 0600)", path, fs.ErrNotExist)
	case errors.Is(err, fs.ErrPermission):
		return nil, fmt.Errorf("secret file %s: %w for user id %d: change its owner or group", path, fs.ErrPermission, os.Geteuid())
	case err != nil:
		return nil, fmt.Errorf("secret file: %w", err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("secret file: %w", err)
	}
	if !st.Mode().IsRegular() {
		return nil, fmt.Errorf("secret file %s is not a regular file", path)
	}
	if m := st.Mode().Perm(); m&0o007 != 0 {
		return nil, fmt.Errorf("secret file %s is open to everybody (mode %04o): run chmod 600 %s and change the secret", path, m, path)
	} else if m&0o020 != 0 {
		return nil, fmt.Errorf("secret file %s may be changed by its group (mode %04o): run chmod 640 %s", path, m, path)
	}
	b, err := io.ReadAll(io.LimitReader(f, maxSecret+1))
	if err != nil {
		return nil, fmt.Errorf("secret file: %w", err)
	}
	if len(b) > maxSecret {
		return nil, fmt.Errorf("secret file %s is larger than %d bytes", path, maxSecret)
	}
	b = bytes.TrimSuffix(bytes.TrimSuffix(b, []byte("\n")), []byte("\r"))
	switch {
	case len(b) == 0:
		return nil, fmt.Errorf("secret file %s is empty", path)
	case bytes.ContainsAny(b, "\x00\r\n"):
		return nil, fmt.Errorf("secret file %s has more than one line: it must hold the secret and nothing else", path)
	}
	return b, nil
}
