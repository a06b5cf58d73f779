package appliance

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"shoal/tests/ports"
)

// api is a client of an agent.
type api struct {
	t      *testing.T
	base   string
	client *http.Client
}

func (r *Rig) api(t *testing.T, address string) *api {
	a := &api{t, "https://" + address, &http.Client{Transport: &http.Transport{TLSClientConfig: r.TLS("alice", "alice")}}}
	t.Cleanup(a.client.CloseIdleConnections)
	return a
}

// do sends a request and wants a status; the answer goes into into, or is looked through for a text.
func (a *api) do(method, path string, in any, status int, into any) {
	a.t.Helper()
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			a.t.Fatal(err)
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequest(method, a.base+path, body)
	if err != nil {
		a.t.Fatal(err)
	}
	res, err := a.client.Do(req)
	if err != nil {
		a.t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		a.t.Fatal(err)
	}
	if res.StatusCode != status {
		a.t.Fatalf("%s %s: %s, wanted %d: %s", method, path, res.Status, status, b)
	}
	switch want := into.(type) {
	case nil:
	case string:
		if !bytes.Contains(b, []byte(want)) {
			a.t.Errorf("%s %s: no %q in %s", method, path, want, b)
		}
	default:
		if err := json.Unmarshal(b, into); err != nil {
			a.t.Fatalf("%s %s: %v: %s", method, path, err, b)
		}
	}
}

type object = map[string]any

type member struct {
	Address, State, Status, Drift string
	Sessions                      int
}

type pool struct {
	Bind    []string
	Members map[string]member
}

// Members come and go over the runtime socket: nobody is cut off, the file has the same, and a drained member leaves once its last
// session has ended.
func TestBalancer(t *testing.T) {
	r := New(t)
	a := r.api(t, r.Balancer())
	at := ports.Take(t, 6)
	for i, name := range []string{"box1", "box2", "box3"} {
		Echo(t, name, at[i+1])
	}
	a.do("GET", "/v1/agent", nil, 200, `"haproxy": "2.`)
	a.do("PUT", "/v1/lb/pools/imap", object{"bind": []string{at[0]}, "proxy_protocol": true, "balance": "roundrobin"}, 200, nil)
	put := func(name, address, state string) {
		t.Helper()
		a.do("PUT", "/v1/lb/pools/imap/members/"+name, object{"address": address, "state": state}, 200, nil)
	}
	get := func() pool {
		t.Helper()
		var p pool
		a.do("GET", "/v1/lb/pools/imap", nil, 200, &p)
		return p
	}
	up := func(names ...string) {
		t.Helper()
		r.Wait(fmt.Sprint(names, " are up"), func() error {
			for _, n := range names {
				if m := get().Members[n]; !strings.HasPrefix(m.Status, "UP") || m.Drift != "" {
					return fmt.Errorf("%s: %+v", n, m)
				}
			}
			return nil
		})
	}
	put("box1", at[1], "ready")
	put("box2", at[2], "ready")
	up("box1", "box2")
	one, two := Dial(t, at[0]), Dial(t, at[0])
	if one.Name == two.Name {
		t.Errorf("both connections went to %s", one.Name)
	}
	before := get()

	put("box3", at[3], "ready")
	up("box1", "box2", "box3")
	for seen := map[string]bool{}; !seen["box3"]; {
		c := Dial(t, at[0])
		seen[c.Name] = true
		c.Close()
	}
	one.Works(t)
	two.Works(t)
	if file := r.Read("lb1/pools.cfg"); strings.Count(file, "\tserver ") != 3 {
		t.Errorf("the file:\n%s", file)
	}
	r.Wait("the sessions are counted", func() error {
		if p := get(); p.Members[one.Name].Sessions != 1 || p.Members[two.Name].Sessions != 1 {
			return fmt.Errorf("%+v, before %+v", p, before)
		}
		return nil
	})

	// A member with a session drains: it gets nothing new, its session goes on, and it leaves at the end of it.
	a.do("DELETE", "/v1/lb/pools/imap/members/"+one.Name, nil, 202, `"sessions": 1`)
	for range 6 {
		if c := Dial(t, at[0]); c.Name == one.Name {
			t.Errorf("a new connection went to %s, which drains", one.Name)
		}
	}
	one.Works(t)
	// A reload, here for another pool, does not bring it back.
	a.do("PUT", "/v1/lb/pools/other", object{"bind": []string{at[4]}}, 200, nil)
	if m := get().Members[one.Name]; m.Status != "DRAIN" && !strings.HasPrefix(m.Status, "DRAIN") || m.Drift != "" {
		t.Errorf("after a reload: %+v", m)
	}
	one.Works(t)
	one.Close()
	r.Wait("it is gone", func() error {
		req, err := http.NewRequest("DELETE", a.base+"/v1/lb/pools/imap/members/"+one.Name, nil)
		if err != nil {
			return err
		}
		res, err := a.client.Do(req)
		if err != nil {
			return err
		}
		res.Body.Close()
		if res.StatusCode != http.StatusNoContent {
			return fmt.Errorf("%s", res.Status)
		}
		return nil
	})
	a.do("GET", "/v1/lb/pools/imap/members/"+one.Name, nil, 404, "no member")
	if file := r.Read("lb1/pools.cfg"); strings.Contains(file, "server "+one.Name) {
		t.Errorf("the file:\n%s", file)
	}
	two.Works(t)

	// Refused, with nothing changed.
	file := r.Read("lb1/pools.cfg")
	for _, c := range []struct {
		method, path string
		in           any
		status       int
		want         string
	}{
		{"PUT", "/v1/lb/pools/imap/members/evil%0Aserver", object{"address": at[1]}, 400, "use 1 to 31"},
		{"PUT", "/v1/lb/pools/imap/members/evil", object{"address": "127.0.0.1:1 backup\nserver x"}, 400, "is not address:port"},
		{"PUT", "/v1/lb/pools/imap/members/evil", object{"address": "box.example.test:143"}, 400, "is not address:port"},
		{"PUT", "/v1/lb/pools/imap/members/evil", object{"address": at[1], "colour": "red"}, 400, "colour"},
		{"PUT", "/v1/lb/pools/imap/members/evil", object{"address": at[1], "state": "asleep"}, 400, "it is one of"},
		{"PUT", "/v1/lb/pools/none/members/evil", object{"address": at[1]}, 404, "no pool"},
		{"PUT", "/v1/lb/pools/p", object{"bind": []string{"*:25"}}, 400, "is not address:port"},
		{"PUT", "/v1/lb/pools/p", object{"bind": []string{at[5]}, "check": "magic"}, 400, "it is one of"},
		{"DELETE", "/v1/lb/pools/imap", nil, 409, "has members"},
		{"DELETE", "/v1/lb/pools/none", nil, 404, "no pool"},
		{"GET", "/v1/nfs/volumes", nil, 404, ""},
	} {
		a.do(c.method, c.path, c.in, c.status, c.want)
	}
	if now := r.Read("lb1/pools.cfg"); now != file {
		t.Errorf("the file changed:\n%s", now)
	}
	a.do("DELETE", "/v1/lb/pools/other", nil, 204, nil)
	two.Works(t)

	// Only operators, and only over TLS.
	if _, err := (&http.Client{Transport: &http.Transport{TLSClientConfig: r.anyTLS()}}).Get(a.base + "/v1/lb/pools"); err == nil {
		t.Error("somebody without a certificate was answered")
	}
	if _, err := (&http.Client{Transport: &http.Transport{TLSClientConfig: r.TLS("lb1", "lb1")}}).Get(a.base + "/v1/lb/pools"); err == nil {
		t.Error("a balancer was answered")
	}
}

// Volumes are made and exported under policies, whose first rule that names a client counts; nothing opens them to the world.
func TestExports(t *testing.T) {
	r := New(t)
	a := r.api(t, r.Storage())
	put := func(path string, in object) {
		t.Helper()
		a.do("PUT", "/v1/nfs/"+path, in, 200, nil)
	}
	put("policies/boxes", object{"description": "who may use mail"})
	put("policies/boxes/rules/10", object{"clients": []string{"10.1.2.3"}, "access": "none"})
	put("policies/boxes/rules/20", object{"clients": []string{"10.1.2.2/31", "2001:db8::/64"}})
	put("policies/boxes/rules/30", object{"clients": []string{"10.1.0.0/16"}, "access": "ro", "security": []string{"krb5p", "krb5i"}, "squash": "all"})
	put("volumes/vol01", object{"kind": "mail", "policy": "boxes"})
	put("volumes/queue", object{"kind": "queue"})

	exports := r.Read("storage1/exports.d/shoal.exports")
	etab := r.Read("storage1/nfs/etab")
	if strings.Contains(exports, "10.1.2.3/") || !strings.Contains(exports, "10.1.2.2/32(rw,sync,no_subtree_check,secure,root_squash,sec=sys,fsid=") ||
		!strings.Contains(exports, "2001:db8::/64(rw") || !strings.Contains(exports, "10.1.128.0/17(ro,sync,no_subtree_check,secure,all_squash,sec=krb5p:krb5i") {
		t.Errorf("the file for exportfs:\n%s", exports)
	}
	if strings.Contains(exports, "queue") {
		t.Error("a volume without a policy is exported")
	}
	if !strings.Contains(etab, "/volumes/vol01\t10.1.2.2") || strings.Contains(etab, "no_root_squash") {
		t.Errorf("in force:\n%s", etab)
	}
	if marker := r.Read("storage1/volumes/vol01/shoal-volume"); !strings.HasPrefix(marker, "shoal-volume 1.0\n") {
		t.Errorf("marker: %q", marker)
	}
	// Whoever mounts it can use all of it: root is squashed, and what belonged to root would be closed to the boxes.
	for volume, uid := range map[string]uint32{"vol01": 642, "queue": 641} {
		err := filepath.WalkDir(r.Path("storage1/volumes/"+volume), func(name string, _ fs.DirEntry, err error) error {
			var st syscall.Stat_t
			if err == nil {
				err = syscall.Lstat(name, &st)
			}
			if err == nil && st.Uid != uid {
				err = fmt.Errorf("%s belongs to %d, not to %d", name, st.Uid, uid)
			}
			return err
		})
		if err != nil {
			t.Error(err)
		}
	}
	var v struct{ ID, Path string }
	a.do("GET", "/v1/nfs/volumes/vol01", nil, 200, &v)
	if !strings.Contains(r.Read("storage1/volumes/vol01/shoal-volume"), v.ID) || v.Path != r.Path("storage1/volumes/vol01") {
		t.Errorf("volume: %+v", v)
	}
	for _, c := range []struct {
		method, path string
		in           any
		status       int
		want         string
	}{
		{"PUT", "policies/boxes/rules/1", object{"clients": []string{"0.0.0.0/0"}}, 400, "open the volume to the world"},
		{"PUT", "policies/boxes/rules/1", object{"clients": []string{"::/0"}}, 400, "open the volume to the world"},
		{"PUT", "policies/boxes/rules/1", object{"clients": []string{"10.0.0.0/8"}}, 400, "open the volume to the world"},
		{"PUT", "policies/boxes/rules/1", object{"clients": []string{"*"}}, 400, "neither an address nor a network"},
		{"PUT", "policies/boxes/rules/1", object{"clients": []string{"box.example.test"}}, 400, "neither an address nor a network"},
		{"PUT", "policies/boxes/rules/1", object{"clients": []string{"10.1.2.3/24"}}, 400, "write 10.1.2.0/24"},
		{"PUT", "policies/boxes/rules/1", object{"clients": []string{"10.1.2.3"}, "squash": "none"}, 400, "let root of a client"},
		{"PUT", "policies/boxes/rules/0", object{"clients": []string{"10.1.2.3"}}, 400, "from 1 to 9999"},
		{"PUT", "volumes/a.b", object{"kind": "mail"}, 400, "use 1 to 31"},
		{"PUT", "volumes/vol02", object{"kind": "mail", "policy": "none"}, 409, "no policy"},
		{"PUT", "volumes/vol01", object{"kind": "queue"}, 409, "stays that"},
		{"PUT", "volumes/vol01", object{"kind": "mail", "id": "0d6f3c6e-6d2c-4c0c-9b0e-2f4f6b1f9a51"}, 409, "keeps it"},
		{"DELETE", "policies/boxes", nil, 409, "vol01"},
	} {
		a.do(c.method, "/v1/nfs/"+c.path, c.in, c.status, c.want)
	}
	if now := r.Read("storage1/exports.d/shoal.exports"); now != exports {
		t.Errorf("the file changed:\n%s", now)
	}

	// Data is never deleted.
	if err := os.WriteFile(r.Path("storage1/volumes/vol01/mail"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	a.do("DELETE", "/v1/nfs/volumes/vol01", nil, 409, "holds data")
	a.do("DELETE", "/v1/nfs/volumes/vol01?data=keep", nil, 204, nil)
	if etab := r.Read("storage1/nfs/etab"); strings.Contains(etab, "vol01") {
		t.Errorf("still in force:\n%s", etab)
	}
	if r.Read("storage1/volumes/vol01/mail") != "x" {
		t.Error("the data is gone")
	}
	a.do("PUT", "/v1/nfs/volumes/vol01", object{"kind": "mail", "policy": "boxes", "id": v.ID}, 200, nil)
	a.do("DELETE", "/v1/nfs/volumes/queue", nil, 204, nil)
	if _, err := os.Stat(r.Path("storage1/volumes/queue")); !os.IsNotExist(err) {
		t.Errorf("the empty volume: %v", err)
	}
	var all map[string]any
	a.do("GET", "/v1/nfs/volumes", nil, 200, &all)
	if names := keys(all); !slices.Equal(names, []string{"vol01"}) {
		t.Errorf("volumes: %v", names)
	}
}

func keys[V any](m map[string]V) []string {
	var all []string
	for k := range m {
		all = append(all, k)
	}
	slices.Sort(all)
	return all
}
