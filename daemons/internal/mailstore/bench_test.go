package mailstore

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"shoal/daemons/internal/vfs"
)

// BenchmarkDeliver delivers messages of 4 KB on a local volume, each durable before the next.
func BenchmarkDeliver(b *testing.B) {
	ctx := context.Background()
	root := b.TempDir()
	s := testStore(b, vfs.OS(), root, "box1", func(o *Options) { o.Maintain = true })
	var accounts []*Account
	for i := range 100 {
		a, err := s.Account(ctx, "vol01", fmt.Sprintf("account-%d", i))
		if err != nil {
			b.Fatal(err)
		}
		accounts = append(accounts, a)
	}
	text := strings.Repeat("0123456789abcdef", 256)
	b.ReportAllocs()
	b.ResetTimer()
	for i := range b.N {
		m, err := s.Stage(ctx, "vol01", strings.NewReader(text), 0)
		if err != nil {
			b.Fatal(err)
		}
		if r := s.Deliver(ctx, m, []Target{{Account: accounts[i%len(accounts)]}}); r[0].Err != nil {
			b.Fatal(r[0].Err)
		}
		m.Close()
	}
}

// BenchmarkDeliverMemory is the same without a disk: the cost of the engine itself.
func BenchmarkDeliverMemory(b *testing.B) {
	ctx := context.Background()
	fs := nullWrites{vfs.OS()}
	s := testStore(b, fs, b.TempDir(), "box1")
	a, err := s.Account(ctx, "vol01", "account-1")
	if err != nil {
		b.Fatal(err)
	}
	text := strings.Repeat("0123456789abcdef", 256)
	targets := []Target{{Account: a}}
	b.ReportAllocs()
	b.ResetTimer()
	for range b.N {
		m, err := s.Stage(ctx, "vol01", strings.NewReader(text), 0)
		if err != nil {
			b.Fatal(err)
		}
		if r := s.Deliver(ctx, m, targets); r[0].Err != nil {
			b.Fatal(r[0].Err)
		}
		m.Close()
	}
}

// nullWrites forgets what is written.
type nullWrites struct{ vfs.FS }

type nullFile struct{}

func (nullFile) Write(p []byte) (int, error)       { return len(p), nil }
func (nullFile) ReadAt([]byte, int64) (int, error) { return 0, nil }
func (nullFile) Sync() error                       { return nil }
func (nullFile) SyncData() error                   { return nil }
func (nullFile) Close() error                      { return nil }
func (n nullWrites) SyncDir(string) error          { return nil }
func (n nullWrites) SyncJournal(string) error      { return nil }
func (n nullWrites) Create(p string) (vfs.File, error) {
	if strings.Contains(p, "/m/") {
		return nullFile{}, nil
	}
	return n.FS.Create(p)
}
func (n nullWrites) Symlink(target, path string) error {
	if strings.Contains(path, "/log/") && !strings.HasSuffix(path, "/1") {
		return nil
	}
	return n.FS.Symlink(target, path)
}
