package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"github.com/google/uuid"
	"golang.org/x/sys/unix"

	"shoal/daemons/internal/kit"
	"shoal/daemons/internal/mailstore"
	"shoal/daemons/internal/pki"
	"shoal/daemons/internal/queue"
	"shoal/daemons/internal/vfs"
)

// Volume is a folder below the root that is exported under a policy.
type Volume struct {
	Name   string `json:"name"`
	Kind   string `json:"kind"`   // mail or queue: what its marker file says, and who owns it
	ID     string `json:"id"`     // UUID in the marker file, which boxes and switches compare; made here if not given
	Policy string `json:"policy"` // empty: not exported

	// In answers only.
	Path  string `json:"path,omitempty"`
	Size  int64  `json:"size,omitempty"` // of the file system, in bytes
	Free  int64  `json:"free,omitempty"`
	Drift string `json:"drift,omitempty"`
}

// exporter keeps the exports like what was asked for.
type exporter struct {
	conf  *Exports
	state string // file

	mu       sync.Mutex // one change at a time
	volumes  map[string]*Volume
	policies map[string]*Policy
}

// nfsState is the state file.
type nfsState struct {
	Version  int                `json:"version"`
	Volumes  map[string]*Volume `json:"volumes"`
	Policies map[string]*Policy `json:"policies"`
}

func newExporter(ctx context.Context, env *kit.Env, c *Exports) (*exporter, error) {
	x := &exporter{conf: c}
	var err error
	if x.state, err = statePath(c.State, "exports.json"); err != nil {
		return nil, err
	}
	s := nfsState{}
	if err := loadState(x.state, &s, &s.Version); err != nil {
		return nil, err
	}
	if x.volumes, x.policies = s.Volumes, s.Policies; x.volumes == nil {
		x.volumes = map[string]*Volume{}
	}
	if x.policies == nil {
		x.policies = map[string]*Policy{}
	}
	if len(x.volumes) > 0 { // what a crash left between state and file is made whole
		if err := x.apply(ctx, x.volumes, x.policies); err != nil {
			env.Log.Error("the exports are not in force", "error", err)
		}
	}
	return x, nil
}

func (x *exporter) routes(mux *http.ServeMux) {
	mux.HandleFunc("GET /v1/nfs/volumes", answered(func(r *http.Request) (int, any, error) {
		force, err := x.inForce(r.Context())
		x.mu.Lock()
		defer x.mu.Unlock()
		all := map[string]Volume{}
		for name, v := range x.volumes {
			all[name] = x.view(v, force, err)
		}
		return http.StatusOK, all, nil
	}))
	mux.HandleFunc("GET /v1/nfs/volumes/{volume}", answered(x.getVolume))
	mux.HandleFunc("PUT /v1/nfs/volumes/{volume}", answered(x.putVolume))
	mux.HandleFunc("DELETE /v1/nfs/volumes/{volume}", answered(x.deleteVolume))
	mux.HandleFunc("GET /v1/nfs/policies", answered(func(*http.Request) (int, any, error) {
		x.mu.Lock()
		defer x.mu.Unlock()
		return http.StatusOK, maps.Clone(x.policies), nil
	}))
	mux.HandleFunc("GET /v1/nfs/policies/{policy}", answered(x.getPolicy))
	mux.HandleFunc("PUT /v1/nfs/policies/{policy}", answered(x.putPolicy))
	mux.HandleFunc("DELETE /v1/nfs/policies/{policy}", answered(x.deletePolicy))
	mux.HandleFunc("GET /v1/nfs/policies/{policy}/rules/{index}", answered(x.getRule))
	mux.HandleFunc("PUT /v1/nfs/policies/{policy}/rules/{index}", answered(x.putRule))
	mux.HandleFunc("DELETE /v1/nfs/policies/{policy}/rules/{index}", answered(x.deleteRule))
}

func (x *exporter) path(v *Volume) string { return filepath.Join(x.conf.Root, v.Name) }

// render gives the file for exportfs. Paths are the root of the configuration and a checked name.
func (x *exporter) render(volumes map[string]*Volume, policies map[string]*Policy) (string, error) {
	var b strings.Builder
	b.WriteString("# Written by shoal-agent: changes are lost. Ask for others over its API.\n")
	for _, name := range sortedKeys(volumes) {
		v := volumes[name]
		if v.Policy == "" {
			continue
		}
		grants, err := policies[v.Policy].grants()
		if err != nil {
			return "", err
		}
		if len(grants) == 0 {
			continue
		}
		fmt.Fprintf(&b, "%q", x.path(v))
		for _, g := range grants {
			fmt.Fprintf(&b, " %s(%s)", g.client, g.options(v.ID))
		}
		b.WriteByte('\n')
	}
	return b.String(), nil
}

// apply writes the file and has exportfs put it into force.
func (x *exporter) apply(ctx context.Context, volumes map[string]*Volume, policies map[string]*Policy) error {
	text, err := x.render(volumes, policies)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(x.conf.File), 0o755); err != nil {
		return fmt.Errorf("exports: %w", err)
	}
	if err := pki.WriteFile(x.conf.File, []byte(text), 0o644); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, x.conf.Timeout)
	defer cancel()
	if out, err := exec.CommandContext(ctx, x.conf.Program, "-ra").CombinedOutput(); err != nil {
		return fmt.Errorf("exportfs: %w: %s", err, strings.TrimSpace(string(out)))
	}
	return nil
}

// commit keeps what is asked for and puts it into force.
func (x *exporter) commit(ctx context.Context, volumes map[string]*Volume, policies map[string]*Policy) error {
	if _, err := x.render(volumes, policies); err != nil {
		return err // before anything is changed
	}
	if err := saveState(x.state, nfsState{stateVersion, volumes, policies}); err != nil {
		return err
	}
	x.volumes, x.policies = volumes, policies
	return x.apply(ctx, volumes, policies)
}

func (x *exporter) getVolume(r *http.Request) (int, any, error) {
	force, err := x.inForce(r.Context())
	x.mu.Lock()
	defer x.mu.Unlock()
	v := x.volumes[r.PathValue("volume")]
	if v == nil {
		return 0, nil, notFound("there is no volume %s", r.PathValue("volume"))
	}
	return http.StatusOK, x.view(v, force, err), nil
}

func (x *exporter) putVolume(r *http.Request) (int, any, error) {
	var in Volume
	if err := body(r, &in); err != nil {
		return 0, nil, err
	}
	in.Name, in.Path, in.Size, in.Free, in.Drift = r.PathValue("volume"), "", 0, 0, ""
	if err := checkName("volume", in.Name); err != nil {
		return 0, nil, err
	}
	x.mu.Lock()
	err := x.setVolume(r.Context(), &in)
	x.mu.Unlock()
	if err != nil {
		return 0, nil, err
	}
	return x.getVolume(r)
}

func (x *exporter) setVolume(ctx context.Context, in *Volume) error {
	if in.Policy != "" && x.policies[in.Policy] == nil {
		return conflict("volume %s: there is no policy %s", in.Name, in.Policy)
	}
	old := x.volumes[in.Name]
	switch {
	case in.Kind != "mail" && in.Kind != "queue":
		return badRequest("volume %s: kind %q: it is mail or queue", in.Name, in.Kind)
	case old != nil && old.Kind != in.Kind:
		return conflict("volume %s is of kind %s and stays that", in.Name, old.Kind)
	case old != nil && in.ID != "" && in.ID != old.ID:
		return conflict("volume %s has id %s and keeps it", in.Name, old.ID)
	case old != nil:
		in.ID = old.ID
		if err := x.stillThere(old); err != nil {
			return err
		}
	case in.ID == "":
		in.ID = uuid.NewString()
	default:
		id, err := uuid.Parse(in.ID)
		if err != nil {
			return badRequest("volume %s: id %q is no UUID", in.Name, in.ID)
		}
		in.ID = id.String()
	}
	if err := x.makeVolume(in); err != nil {
		return err
	}
	volumes := maps.Clone(x.volumes)
	volumes[in.Name] = in
	return x.commit(ctx, volumes, x.policies)
}

// madeLevels is how deep the folders of a new volume lie below it: a/00. What lies deeper is the boxes' own.
const madeLevels = 2

// makeVolume makes folder and marker file, or finds that they are there already.
func (x *exporter) makeVolume(v *Volume) error {
	path, owner := x.path(v), x.conf.MailOwner
	initialize := mailstore.InitVolume
	if v.Kind == "queue" {
		owner, initialize = x.conf.QueueOwner, queue.Init
	}
	uid, gid, err := parseOwner(owner)
	if err != nil {
		return err
	}
	if err := os.Mkdir(path, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("volume %s: %w", v.Name, err)
	}
	if err := initialize(vfs.OS(), path, v.ID); err != nil {
		return conflict("volume %s: %w", v.Name, err)
	}
	return filepath.WalkDir(path, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && strings.Count(name[len(path):], "/") > madeLevels {
			return fs.SkipDir
		}
		return os.Lchown(name, uid, gid)
	})
}

func (x *exporter) deleteVolume(r *http.Request) (int, any, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	v := x.volumes[r.PathValue("volume")]
	if v == nil {
		return 0, nil, notFound("there is no volume %s", r.PathValue("volume"))
	}
	keep := r.URL.Query().Get("data") == "keep"
	if !keep {
		n, err := countEntries(x.path(v))
		if err != nil {
			return 0, nil, err
		}
		if n > 0 {
			return 0, nil, conflict("volume %s holds data (%d entries beside its marker): with data=keep it is no longer served, and its data stays", v.Name, n)
		}
	}
	volumes := maps.Clone(x.volumes)
	delete(volumes, v.Name)
	if err := x.commit(r.Context(), volumes, x.policies); err != nil {
		return 0, nil, err
	}
	if keep {
		return 0, nil, nil
	}
	// Marker and empty folders only: whatever else there may be, Remove refuses.
	return 0, nil, removeEmpty(x.path(v))
}

// fileOf says whether a name is what makes a folder a volume.
func isMarker(name string) bool { return name == "shoal-volume" || name == "shoal-queue" }

func countEntries(path string) (int, error) {
	entries, err := os.ReadDir(path)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	n := 0
	for _, e := range entries {
		if isMarker(e.Name()) {
			continue
		}
		if e.IsDir() {
			inner, err := os.ReadDir(filepath.Join(path, e.Name()))
			if err != nil {
				return 0, err
			}
			n += len(inner)
			continue
		}
		n++
	}
	return n, err
}

func removeEmpty(path string) error {
	entries, err := os.ReadDir(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, e := range entries {
		err = errors.Join(err, os.Remove(filepath.Join(path, e.Name())))
	}
	return errors.Join(err, os.Remove(path))
}

func (x *exporter) count() (volumes, policies int) {
	x.mu.Lock()
	defer x.mu.Unlock()
	return len(x.volumes), len(x.policies)
}

func (x *exporter) ready() error {
	st, err := os.Stat(x.conf.Root)
	if err == nil && !st.IsDir() {
		err = fmt.Errorf("%s is no folder", x.conf.Root)
	}
	return err
}

func kernelVersion() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return "unknown"
	}
	return unix.ByteSliceToString(u.Release[:])
}

func ruleKey(i int) string { return strconv.Itoa(i) }
