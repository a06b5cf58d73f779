package vaultd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"shoal/daemons/internal/access"
	"shoal/daemons/internal/clock"
	"shoal/daemons/internal/dirschema"
	"shoal/daemons/internal/dirstore"
	"shoal/daemons/internal/kit"
)

// Tasks on a database that no vault has in use.

func tasks() []kit.Task {
	return []kit.Task{
		{Flag: "import", Usage: "make the content of the database what the LDIF `file` says (\"-\": standard input), then exit", Run: importTask},
		{Flag: "export", Usage: "write the content of the database as LDIF, with passwords, to a new `file` (\"-\": standard output), then exit", Run: exportTask},
		{Flag: "backup", Usage: "write a copy of the database to a new `file` (\"-\": standard output), then exit", Run: backupTask},
		{Flag: "restore", Usage: "check the backup in `file` (\"-\": standard input), put it in the place of the database, and keep that beside; then exit", Run: restoreTask},
		{Flag: "verify", Usage: "compare everything in the database that must agree, print what was found as JSON, then exit: 1 for damage", Run: verifyTask},
	}
}

// options are those of the store, of a task or of a running vault.
func (c *Config) options(log *slog.Logger) (dirstore.Options, error) {
	schema, err := dirschema.Default()
	if err == nil && c.SchemaFolder != "" {
		err = schema.AddFolder(c.SchemaFolder)
	}
	return dirstore.Options{Path: c.Database.Path, Suffix: c.Suffix, Schema: schema, Indexes: c.Database.Indexes, Clock: clock.System(), Log: log,
		GroupCommit: c.Database.GroupCommit, ChangeLog: c.Database.ChangeLog, Maintain: maintain(schema), Check: access.Check(schema), Watch: access.Watch}, err
}

// withStore opens the database for a task.
func withStore(config kit.Config, stderr io.Writer, do func(c *Config, s *dirstore.Store) error) (err error) {
	c := config.(*Config)
	opt, err := c.options(slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: slog.LevelWarn})))
	if err != nil {
		return err
	}
	s, err := dirstore.Open(opt)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	return do(c, s)
}

// existing refuses to make an empty database only to look at it.
func existing(config kit.Config) error {
	if _, err := os.Stat(filepath.Join(config.(*Config).Database.Path, "directory.db")); err != nil {
		return fmt.Errorf("there is no database: %w", err)
	}
	return nil
}

// speed tells progress in a line that is written over.
func speed(stderr io.Writer, what string) (tell func(entries int64), end func(entries int64)) {
	began := time.Now()
	say := func(n int64, end string) {
		took := time.Since(began).Seconds()
		fmt.Fprintf(stderr, "\r%d entries %s, %.0f a second%s", n, what, float64(n)/max(took, 1e-3), end)
	}
	return func(n int64) { say(n, "") }, func(n int64) { say(n, fmt.Sprintf(", %.1f s\n", time.Since(began).Seconds())) }
}

func openInput(name string) (io.ReadCloser, error) {
	if name == "-" {
		return io.NopCloser(os.Stdin), nil
	}
	return os.Open(name)
}

func importTask(ctx context.Context, config kit.Config, name string, _, stderr io.Writer) error {
	if config.(*Config).Shadow != nil {
		return errors.New("the database of a shadow is what its provider says: import at the master")
	}
	in, err := openInput(name)
	if err != nil {
		return err
	}
	defer in.Close()
	return withStore(config, stderr, func(c *Config, s *dirstore.Store) error {
		tell, end := speed(stderr, "read")
		n, err := s.Import(ctx, c.RootDN(), in, tell)
		if err != nil {
			return err
		}
		end(n)
		return bootstrap(s, c.RootDN())
	})
}

// writeNew writes a new file, whole or not at all, or standard output.
func writeNew(name string, stdout io.Writer, do func(io.Writer) error) error {
	if name == "-" {
		return do(stdout)
	}
	f, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	if err := do(f); err != nil {
		return errors.Join(err, f.Close(), os.Remove(name))
	}
	return errors.Join(f.Sync(), f.Close())
}

func exportTask(ctx context.Context, config kit.Config, name string, stdout, stderr io.Writer) error {
	if err := existing(config); err != nil {
		return err
	}
	return withStore(config, stderr, func(_ *Config, s *dirstore.Store) error {
		return writeNew(name, stdout, func(w io.Writer) error {
			tell, end := speed(stderr, "written")
			n, err := s.Export(ctx, w, tell)
			if err == nil {
				end(n)
			}
			return err
		})
	})
}

func backupTask(_ context.Context, config kit.Config, name string, stdout, stderr io.Writer) error {
	if err := existing(config); err != nil {
		return err
	}
	return withStore(config, stderr, func(_ *Config, s *dirstore.Store) error {
		return writeNew(name, stdout, func(w io.Writer) error {
			n, err := s.Backup(w)
			if err == nil {
				fmt.Fprintf(stderr, "%d octets, %d entries\n", n, s.Entries())
			}
			return err
		})
	})
}

func restoreTask(_ context.Context, config kit.Config, name string, stdout, stderr io.Writer) error {
	in, err := openInput(name)
	if err != nil {
		return err
	}
	defer in.Close()
	opt, err := config.(*Config).options(slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: slog.LevelWarn})))
	if err != nil {
		return err
	}
	v, err := dirstore.Restore(opt, in)
	if err != nil {
		return err
	}
	fmt.Fprintf(stdout, "restored: %d entries\n", v.Entries)
	return nil
}

func verifyTask(ctx context.Context, config kit.Config, _ string, stdout, stderr io.Writer) error {
	if err := existing(config); err != nil {
		return err
	}
	return withStore(config, stderr, func(_ *Config, s *dirstore.Store) error {
		tell, end := speed(stderr, "read")
		v, err := s.Verify(dirstore.VerifyOptions{Pages: true, Progress: func(done, _ int64) { tell(done) }, Stop: ctx.Err})
		if err != nil {
			return err
		}
		end(v.Entries)
		out := json.NewEncoder(stdout)
		out.SetIndent("", "  ")
		return errors.Join(out.Encode(v), v.Err())
	})
}
