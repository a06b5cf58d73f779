package vaultd

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"shoal/daemons/internal/dirstore"
	"shoal/daemons/internal/kit"
	"shoal/daemons/internal/replica"
)

// The control API of a vault, for operators, beside what the kit has (GET /v1/status, POST /v1/drain):
//
//	GET /v1/directory/backup   a copy of the database, taken while it is in use (dirstore.Backup)
//	GET /v1/directory/export   LDIF of everything, with operational attributes and passwords
//	PUT /v1/directory/import   LDIF that becomes the whole content; the master only
//	PUT /v1/directory/restore  a backup that becomes the whole content; the master only
//	GET /v1/directory/verify   the integrity check
//
// The last three answer with lines of JSON (application/x-ndjson): while it goes on {"entries": n}, at the end
// {"done": true, "entries": n} with "verdict" for a check, or {"error": "..."}. The first two end too early when they
// fail, which HTTP shows: a client that got the end has everything.
//
// Reads go on meanwhile; an import refuses updates while it lasts, a restore from when the backup has come and was checked.
// Shadows fetch everything anew after one. A body is bounded (limits.content), and so is each wait for the client
// (transfer.go). The log names the operator.

// step is a line of an answer.
type step struct {
	Entries int64             `json:"entries"`
	Done    bool              `json:"done,omitempty"`
	Error   string            `json:"error,omitempty"`
	Verdict *dirstore.Verdict `json:"verdict,omitempty"`
}

func (v *vault) control(c *Config) {
	mux := v.env.Control
	mux.HandleFunc("GET /v1/directory/backup", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/octet-stream")
		v.stream(r, "backup", func() (int64, error) { return v.store.Backup(unhurried(w)) })
	})
	mux.HandleFunc("GET /v1/directory/export", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/x-ldif; charset=utf-8")
		v.stream(r, "export", func() (int64, error) { return v.store.Export(r.Context(), unhurried(w), nil) })
	})
	mux.HandleFunc("PUT /v1/directory/import", func(w http.ResponseWriter, r *http.Request) {
		v.replace(w, r, c, func(body io.Reader, tell func(int64)) (int64, error) {
			return v.store.Import(r.Context(), c.RootDN(), body, tell)
		})
	})
	mux.HandleFunc("PUT /v1/directory/restore", func(w http.ResponseWriter, r *http.Request) {
		v.replace(w, r, c, func(body io.Reader, tell func(int64)) (int64, error) {
			return v.restore(r.Context(), c, body, tell)
		})
	})
	mux.HandleFunc("GET /v1/directory/verify", func(w http.ResponseWriter, r *http.Request) {
		say := lines(w)
		verdict, err := v.store.Verify(dirstore.VerifyOptions{Progress: func(n, _ int64) { say(step{Entries: n}) }, Stop: r.Context().Err})
		if err != nil {
			say(step{Error: err.Error()})
			return
		}
		say(step{Entries: verdict.Entries, Done: true, Verdict: verdict})
	})
}

// unhurried lifts the time limits of the server for a request, but for a client that does not take its answer.
func unhurried(w http.ResponseWriter) *outgoing {
	c := http.NewResponseController(w)
	_ = c.SetReadDeadline(time.Time{}) // HTTP/2 has none for a request
	return &outgoing{w, c, transferSilence}
}

func (v *vault) stream(r *http.Request, what string, do func() (int64, error)) {
	n, err := do()
	if err != nil {
		v.env.Log.Warn("directory "+what+" failed", "operator", kit.Operator(r.Context()), "remote", r.RemoteAddr, "error", err)
		panic(http.ErrAbortHandler) // the client must not take a part for the whole
	}
	v.env.Log.Info("directory "+what, "event", "directory-"+what, "operator", kit.Operator(r.Context()), "remote", r.RemoteAddr, "size", n)
}

// lines answers with lines of JSON, progress not more often than every 200 ms.
func lines(w http.ResponseWriter) func(step) {
	w.Header().Set("Content-Type", "application/x-ndjson")
	to, last := unhurried(w), time.Time{}
	out := json.NewEncoder(to)
	_ = to.c.EnableFullDuplex() // HTTP/2 is so already
	return func(s step) {
		if now := time.Now(); s.Done || s.Error != "" || now.Sub(last) > 200*time.Millisecond {
			last = now
			if out.Encode(s) == nil {
				to.flush()
			}
		}
	}
}

// replace makes a whole new content and answers how it went.
func (v *vault) replace(w http.ResponseWriter, r *http.Request, c *Config, do func(body io.Reader, tell func(int64)) (int64, error)) {
	if v.state().Mode != replica.ModeMaster {
		http.Error(w, "a shadow's content is what its provider says: do it at the master", http.StatusConflict)
		return
	}
	if r.ContentLength > int64(c.Limits.Content) {
		http.Error(w, tooLarge(c.Limits.Content).Error(), http.StatusRequestEntityTooLarge)
		return
	}
	// The new content is made beside the old one; of a backup there is also the backup itself. An LDIF is about as large
	// as the database that is made of it.
	if err := roomFor(c.Database.Path, 2*max(r.ContentLength, 0)); err != nil {
		http.Error(w, err.Error(), http.StatusInsufficientStorage)
		return
	}
	if !v.replacing.TryLock() {
		http.Error(w, "another import or restore is under way", http.StatusConflict)
		return
	}
	defer v.replacing.Unlock()
	say := lines(w)
	body := &incoming{from: kit.Body(r), c: http.NewResponseController(w), limit: c.Limits.Content, silence: transferSilence}
	operator := kit.Operator(r.Context())
	n, err := do(body, func(n int64) { say(step{Entries: n}) })
	if err == nil {
		err = v.rule(v.state()) // the content may be of another reign
	}
	if err != nil {
		v.env.Log.Warn("the content of the directory is not replaced", "event", "directory-not-replaced", "operator", operator, "remote", r.RemoteAddr, "error", err)
		say(step{Entries: n, Error: err.Error()})
		return
	}
	v.env.Log.Info("the content of the directory was replaced", "event", "directory-replaced", "operator", operator, "remote", r.RemoteAddr, "entries", n)
	say(step{Entries: n, Done: true})
}

// restore takes a backup apart beside the database in use, checks it, and imports what is in it.
func (v *vault) restore(ctx context.Context, c *Config, from io.Reader, tell func(int64)) (n int64, err error) {
	folder := filepath.Join(c.Database.Path, "restore.online")
	if err := os.RemoveAll(folder); err != nil { // of a process that died
		return 0, err
	}
	if err := os.Mkdir(folder, 0o700); err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(folder)) }()
	opt, err := c.options(v.env.Log)
	if err != nil {
		return 0, err
	}
	opt.Path = folder
	if _, err := dirstore.Restore(opt, from); err != nil {
		return 0, err
	}
	backup, err := dirstore.Open(opt)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, backup.Close()) }()
	in, out := io.Pipe()
	exported := make(chan struct{})
	go func() {
		defer close(exported)
		_, err := backup.Export(ctx, out, nil)
		out.CloseWithError(err) // nil is the end of the file
	}()
	defer func() {
		in.CloseWithError(io.ErrClosedPipe)
		<-exported
	}()
	return v.store.Import(ctx, c.RootDN(), in, tell)
}
