package dirstore

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
)

// A backup is the database file itself, as one read transaction sees it. It is a whole database: Restore puts it where
// one is not in use, and a vault can be started on it.

// Backup writes a consistent copy of the database while it is in use, and returns its size in octets. Until it ends,
// the database cannot use the space of what is replaced.
func (s *Store) Backup(to io.Writer) (int64, error) {
	s.swap.RLock()
	tx, err := s.base.bolt.Begin(false)
	s.swap.RUnlock()
	if err != nil {
		return 0, fmt.Errorf("backup: %w", err)
	}
	n, err := tx.WriteTo(to)
	if err = errors.Join(err, tx.Rollback()); err != nil {
		return n, fmt.Errorf("backup: %w", err)
	}
	return n, nil
}

const (
	restoreName  = "restore.tmp"
	replacedName = "directory.db.replaced"
)

// Restore puts a backup into the folder of a database that is not in use: opt as for Open. The backup is checked
// whole before (Verify). What was there is kept beside it, as directory.db.replaced, in the place of an older one of that name.
func Restore(opt Options, from io.Reader) (*Verdict, error) {
	if err := os.MkdirAll(opt.Path, 0o700); err != nil {
		return nil, fmt.Errorf("restore: %w", err)
	}
	file, beside := filepath.Join(opt.Path, fileName), filepath.Join(opt.Path, restoreName)
	if err := settleLog(opt); err != nil {
		return nil, fmt.Errorf("restore: %w", err)
	}
	lock, err := lockDatabase(file)
	if err != nil {
		return nil, fmt.Errorf("restore: %w", err)
	}
	if lock != nil {
		defer lock.Close()
	}
	v, err := checkedCopy(opt, beside, from)
	if err != nil {
		return v, errors.Join(fmt.Errorf("restore: %w", err), os.RemoveAll(beside))
	}
	if lock != nil {
		kept := filepath.Join(opt.Path, replacedName)
		if err := os.Remove(kept); err != nil && !errors.Is(err, os.ErrNotExist) {
			return v, fmt.Errorf("restore: %w", err)
		}
		if err := os.Link(file, kept); err != nil { // not Rename: there is a database at each moment
			return v, fmt.Errorf("restore: %w", err)
		}
	}
	if err := os.Rename(filepath.Join(beside, fileName), file); err != nil {
		return v, fmt.Errorf("restore: %w", err)
	}
	if err := errors.Join(syncFolder(opt.Path), os.Remove(beside)); err != nil {
		return v, fmt.Errorf("restore: %w", err)
	}
	return v, nil
}

// settleLog brings a database that was not closed to its newest state. A log that cannot be used is put beside, as
// the database will be.
func settleLog(opt Options) error {
	log := filepath.Join(opt.Path, redoName)
	if _, err := os.Stat(log); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	file := filepath.Join(opt.Path, fileName)
	left, err := opt.leftLog(file)
	if errors.Is(err, bolterrors.ErrTimeout) {
		return fmt.Errorf("%s is in use by another process: stop that one first", file)
	}
	if err == nil && left != nil {
		var db *bbolt.DB
		if db, err = opt.open(file); err != nil {
			err = errors.Join(err, left.file.Close())
		} else {
			_, err = left.replay(db)
			err = errors.Join(err, db.Close())
		}
	}
	if err == nil {
		return nil
	}
	opt.Log.Warn("directory: the redo log of the database that is replaced is put beside", "error", err)
	return os.Rename(log, log+".replaced")
}

// lockDatabase makes sure that no process uses the database; nil if there is none.
func lockDatabase(file string) (*bbolt.DB, error) {
	if _, err := os.Stat(file); errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	db, err := bbolt.Open(file, 0o600, &bbolt.Options{Timeout: 1e9})
	if errors.Is(err, bolterrors.ErrTimeout) {
		return nil, fmt.Errorf("%s is in use by another process: stop that one first", file)
	}
	if errors.Is(err, os.ErrPermission) {
		return nil, err
	}
	if err != nil {
		return nil, fmt.Errorf("%s is no database any more (%w): move it away first", file, err)
	}
	return db, nil
}

// checkedCopy writes a backup into a folder and looks whether it is a good database.
func checkedCopy(opt Options, folder string, from io.Reader) (v *Verdict, err error) {
	if err := os.RemoveAll(folder); err != nil {
		return nil, err
	}
	if err := os.Mkdir(folder, 0o700); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(folder, fileName), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	_, err = io.Copy(f, from)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	db, err := bbolt.Open(filepath.Join(folder, fileName), 0o600, &bbolt.Options{ReadOnly: true, Timeout: 1e9})
	if err != nil {
		return nil, fmt.Errorf("the backup is not whole, or is none: %w", err)
	}
	if err = db.View(func(tx *bbolt.Tx) error {
		st, err := os.Stat(db.Path())
		if err != nil {
			return err
		}
		if st.Size() < tx.Size() {
			return fmt.Errorf("the backup is not whole: %d of %d octets", st.Size(), tx.Size())
		}
		meta := tx.Bucket(bucketMeta)
		if meta == nil {
			return checkFormat("")
		}
		return checkFormat(string(meta.Get(keyFormat)))
	}); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	if err := db.Close(); err != nil {
		return nil, err
	}
	opt.Path, opt.Metrics = folder, nil
	s, err := Open(opt)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	if v, err = s.Verify(VerifyOptions{Pages: true}); err != nil {
		return v, err
	}
	return v, v.Err()
}
