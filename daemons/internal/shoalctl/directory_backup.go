package shoalctl

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
)

func (t *tool) cmdDirectoryBackup() *cobra.Command {
	var from string
	cmd := &cobra.Command{
		Use:   "backup FILE",
		Short: "Save the whole directory, passwords too, while it is in use",
		Long: `Save the database of a vault into a new file (mode 0600), as it is at one moment, while it is in use. The file holds
everything, the hashes of passwords too: keep it like those. A shadow's is as good as the master's if it is in step.`,
		Example: `  shoalctl directory backup /srv/backup/directory-2026-11-23.db
  shoalctl directory backup --from vault2 directory.db`,
		Args: exactArgs("a file"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return t.withVaults(cmd.Context(), func(_ *Config, k *control, all []*vaultView) error {
				v, err := chooseVault(all, from)
				if err != nil {
					return err
				}
				n, err := k.fetch(cmd.Context(), v.address, "/v1/directory/backup", args[0])
				if err != nil {
					return fmt.Errorf("%s: %w", v.Name, err)
				}
				result := map[string]any{"vault": v.Name, "file": args[0], "bytes": n, "context_csn": v.ContextCSN}
				return t.show(result, func() { t.say("%s of %s written to %s", bytesText(n), v.Name, args[0]) })
			})
		},
	}
	cmd.Flags().StringVar(&from, "from", "", "the vault to save (default: the master)")
	return cmd
}

func (t *tool) cmdDirectoryRestore() *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use:   "restore FILE",
		Short: "Make a backup the content of the directory",
		Long: `Make a backup the content of the master. Everything that was changed since the backup is gone from the directory; the
shadows fetch it anew. Reads go on meanwhile, updates are refused until it is done. A file that is damaged or not whole
changes nothing.`,
		Example: `  shoalctl directory restore /srv/backup/directory-2026-11-23.db`,
		Args:    exactArgs("a file"),
		RunE: func(cmd *cobra.Command, args []string) error {
			f, err := os.Open(args[0])
			if err != nil {
				return err
			}
			defer f.Close()
			return t.withVaults(cmd.Context(), func(_ *Config, k *control, all []*vaultView) error {
				v, err := chooseVault(all, "")
				if err != nil {
					return err
				}
				if !yes {
					if err := t.confirm(fmt.Sprintf("Replace the whole directory (%d entries at %s) by %s? [y/N] ", v.Entries, v.Name, args[0])); err != nil {
						return err
					}
				}
				n, err := k.put(cmd.Context(), v.address, "/v1/directory/restore", f, func(n int64) {
					fmt.Fprintf(t.err, "%d entries\n", n)
				})
				if err != nil {
					return fmt.Errorf("%s: %w", v.Name, err)
				}
				return t.show(map[string]any{"vault": v.Name, "entries": n}, func() { t.say("%d entries restored at %s", n, v.Name) })
			})
		},
	}
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	return cmd
}

// chooseVault finds a vault by name, or the master.
func chooseVault(all []*vaultView, name string) (*vaultView, error) {
	for _, v := range all {
		if name == v.Name || name == "" && v.Mode == "master" {
			if v.Mode == "" {
				return nil, fmt.Errorf("%w: %s does not answer: %s", errUnreachable, v.Name, v.Problem)
			}
			return v, nil
		}
	}
	if name == "" {
		return nil, fmt.Errorf("%w: no vault that answers is the master", errUnreachable)
	}
	return nil, fmt.Errorf("%w: vault %s", errNoSuchEntry, name)
}

// long asks without a time limit, for what takes as long as it takes; whatever is no success is an error.
func (k *control) long(ctx context.Context, method, address, path string, body io.Reader) (*http.Response, error) {
	request, err := http.NewRequestWithContext(ctx, method, "https://"+address+path, body)
	if err != nil {
		return nil, err
	}
	if f, ok := body.(*os.File); ok { // so that what is too large is refused before it is sent
		if st, err := f.Stat(); err == nil && st.Mode().IsRegular() && st.Size() > 0 {
			request.ContentLength = st.Size()
		}
	}
	unhurried := &http.Client{Transport: k.client.Transport}
	response, err := unhurried.Do(request)
	if err != nil {
		return nil, err
	}
	if response.StatusCode != http.StatusOK {
		defer response.Body.Close()
		return nil, refused(response)
	}
	return response, nil
}

// refused makes an error of an answer that is no success.
func refused(response *http.Response) error {
	text, _ := io.ReadAll(io.LimitReader(response.Body, 4096))
	var told struct{ Error string }
	if json.Unmarshal(text, &told) == nil && told.Error != "" {
		text = []byte(told.Error)
	}
	return &controlError{response.StatusCode, response.Status + ": " + printable(string(text))}
}

// fetch writes an answer into a new file, which has its name when it is whole.
func (k *control) fetch(ctx context.Context, address, path, name string) (n int64, err error) {
	if _, err := os.Lstat(name); err == nil {
		return 0, fmt.Errorf("%w: %s", errTargetExists, name)
	}
	response, err := k.long(ctx, http.MethodGet, address, path, nil)
	if err != nil {
		return 0, err
	}
	defer response.Body.Close()
	f, err := os.CreateTemp(filepath.Dir(name), filepath.Base(name)+".part-") // mode 0600
	if err != nil {
		return 0, err
	}
	defer os.Remove(f.Name()) // nothing to remove once it has its name
	if n, err = io.Copy(f, response.Body); err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return n, err
	}
	return n, os.Link(f.Name(), name) // refuses what came there meanwhile
}

// put sends a file and reads lines of progress; it returns the number of the last.
func (k *control) put(ctx context.Context, address, path string, body io.Reader, progress func(int64)) (n int64, err error) {
	response, err := k.long(ctx, http.MethodPut, address, path, body)
	if err != nil {
		return 0, err
	}
	defer response.Body.Close()
	for lines := bufio.NewScanner(response.Body); lines.Scan(); {
		var step struct {
			Entries int64
			Done    bool
			Error   string
		}
		if err := json.Unmarshal(lines.Bytes(), &step); err != nil {
			return n, fmt.Errorf("its answer is not readable: %w", err)
		}
		switch n = step.Entries; {
		case step.Error != "":
			return n, errors.New(printable(step.Error))
		case step.Done:
			return n, nil
		}
		progress(n)
	}
	return n, errors.New("the answer ended before it was done")
}
