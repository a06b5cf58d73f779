package shoalctl

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"shoal/daemons/internal/dirclient"
	"shoal/daemons/internal/kit"
	"shoal/daemons/internal/pki"
	"shoal/daemons/internal/vfs"
)

const testVolume = "0d6f3c6e-6d2c-4c0c-9b0e-2f4f6b1f9a51"

// ward is a healthy service as doctor sees it. Tests break one thing in it.
type ward struct {
	*site
	status  map[string]*kit.Status
	date    map[string]string // of the HTTP answer, instead of the right one
	haproxy string            // rows of HAProxy's answer
	listen  []string          // rows of /proc/net/tcp
	mounts  string
	st      vfs.StatFS
}

func newWard(t *testing.T) *ward {
	w := &ward{site: newSite(t), status: map[string]*kit.Status{}, date: map[string]string{},
		st: vfs.StatFS{Total: 1000, Free: 500, Files: 1000, FilesFree: 500}}
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	for name, role := range map[string]string{"vault1": pki.RoleVault, "switch1": pki.RoleSwitch, "box1": pki.RoleBox} {
		w.status[name] = &kit.Status{Server: name, Version: "1.0", Ready: true, PID: 77, Host: host}
		w.server(role, name, http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
			if date := w.date[name]; date != "" {
				rw.Header().Set("Date", date)
			}
			kit.WriteJSON(rw, 200, w.status[name])
		}))
	}
	w.issue("public", pki.Request{Hosts: []string{"mail.example.test"}})
	writeFile(t, w.path("box1.secret"), "secret\n")
	writeFile(t, w.path("vol01/shoal-volume"), "shoal-volume 1.0\nid "+testVolume+"\n")
	writeFile(t, w.path("queue/shoal-queue"), "shoal-queue 1.0\nid "+testVolume+"\n")
	writeFile(t, w.path("data/shoal-data"), "shoal-data 1\n")
	writeFile(t, w.path("box1.hcl"), fmt.Sprintf(`
server { name = "box1" }
identity {
  cert_file = "box1.crt"
  key_file  = "box1.key"
  ca_file   = "ca.crt"
}
public_tls {
  cert_file = "public.crt"
  key_file  = "public.key"
}
directory {
  uris          = ["ldaps://127.0.0.1:1"]
  bind_dn       = "cn=box1,ou=servers,ou=config,o=shoal"
  password_file = "box1.secret"
}
volume "vol01" {
  path = "vol01"
  id   = %q
}
queue {
  path = "queue"
  id   = %q
}
listener "imap" {
  address         = "127.0.0.1:20143"
  max_connections = 1000
}
listener "lmtp" { address = "127.0.0.1:20024" }
`, testVolume, testVolume))
	w.listen = []string{"0100007F:4EAF", "00000000:4E38"} // 20143, and 20024 on every address
	writeFile(t, w.path("proc/77/limits"), "Limit Soft Hard Units\nMax open files            20000                65536                files     \n")
	writeFile(t, w.path("proc/77/fd/0"), "")
	w.haproxy = "be_imap,box1,127.0.0.1:1,UP,L4OK,3\nbe_imap,box2,127.0.0.1:2,UP,L4OK,3\n"
	socket := w.path("haproxy.sock")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			_, _ = bufio.NewReader(c).ReadString('\n')
			fmt.Fprint(c, "# pxname,svname,addr,status,check_status,scur\n"+w.haproxy+"\n")
			c.Close()
		}
	}()
	w.configure("balancer {\n  socket = \"" + socket + "\"\n}\n")
	return w
}

// shadow adds a second vault.
func (w *ward) shadow(csn, problem string) {
	w.status["vault2"] = &kit.Status{Server: "vault2", Version: "1.0", Ready: true, Service: map[string]any{
		"mode": "shadow", "context_csn": []string{csn}, "replication_error": problem}}
	w.server(pki.RoleVault, "vault2", http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) { kit.WriteJSON(rw, 200, w.status["vault2"]) }))
}

// examine runs doctor. adjust may replace its functions.
func (w *ward) examine(adjust func(*doctor)) *doctorView {
	w.t.Helper()
	writeFile(w.t, w.path("proc/net/tcp"), "  sl  local_address rem_address   st\n   0: "+strings.Join(w.listen, " 00000000:0000 0A\n   1: ")+" 00000000:0000 0A\n")
	if w.mounts == "" {
		w.mounts = "22 1 0:1 / / rw - ext4 /dev/x rw\n"
	}
	writeFile(w.t, w.path("proc/self/mountinfo"), w.mounts)
	tl := &tool{config: w.config, data: w.path("data"),
		servers: func(context.Context, *Config) ([]dirclient.Server, error) { return w.servers, nil }}
	d, err := tl.newDoctor([]string{w.path("box1.hcl")})
	if err != nil {
		w.t.Fatal(err)
	}
	d.proc = w.path("proc")
	d.pause = func() {}
	d.statfs = func(string) (vfs.StatFS, error) { return w.st, nil }
	d.write = func(context.Context) error { return nil }
	d.volumes = func(context.Context) ([]dirclient.Volume, error) {
		return []dirclient.Volume{{Name: "vol01", ID: testVolume}}, nil
	}
	if adjust != nil {
		adjust(d)
	}
	return d.examine(w.t.Context(), tl)
}

func (v *doctorView) text() string {
	text, _ := json.MarshalIndent(v, "", " ")
	return string(text)
}

func TestDoctorOfAHealthyService(t *testing.T) {
	v := newWard(t).examine(nil)
	if v.Problems+v.Warnings != 0 {
		t.Errorf("a healthy service: %s", v.text())
	}
	seen := map[string]bool{}
	for _, f := range v.Findings {
		seen[f.Check] = true
	}
	for _, check := range []string{"data folder", "certificates", "secrets", "directory", "servers", "versions", "clocks", "volumes", "queue", "balancer", "ports", "limits"} {
		if !seen[check] {
			t.Errorf("nothing is said about %s: %s", check, v.text())
		}
	}
}

// Each row breaks one thing; doctor must name it, in the right check, with what to do.
func TestDoctorFindsWhatIsBroken(t *testing.T) {
	const nfs = "22 1 0:1 / / rw - ext4 /dev/x rw\n30 22 0:2 / %s rw,relatime - nfs4 files:/vol rw,%s\n"
	for name, c := range map[string]struct {
		check, state, says string
		breaks             func(*testing.T, *ward)
		adjust             func(*doctor)
	}{
		"data folder of another version": {"data folder", stateProblem, "shoal-data 7", func(t *testing.T, w *ward) { writeFile(t, w.path("data/shoal-data"), "shoal-data 7\n") }, nil},
		"data folder open":               {"data folder", stateProblem, "written by others", func(t *testing.T, w *ward) { chmod(t, w.path("data"), 0o777) }, nil},
		"certificate ends soon": {"certificates", stateWarning, "ends in 9d", func(t *testing.T, w *ward) {
			w.issue("box1", pki.Request{Role: pki.RoleBox, Name: "box1", Validity: 10*24*time.Hour - time.Hour})
		}, nil},
		"certificate has ended": {"certificates", stateProblem, "box1.crt", nil, func(d *doctor) { d.now = func() time.Time { return time.Now().Add(400 * 24 * time.Hour) } }},
		"public certificate ends soon": {"certificates", stateWarning, "public.crt", func(t *testing.T, w *ward) {
			w.issue("public", pki.Request{Hosts: []string{"a.test"}, Validity: 20 * 24 * time.Hour})
		}, nil},
		"key of another certificate": {"certificates", stateProblem, "box1", func(t *testing.T, w *ward) {
			w.issue("other", pki.Request{Role: pki.RoleBox, Name: "box1"})
			move(t, w.path("other.key"), w.path("box1.key"))
		}, nil},
		"certificate missing":      {"certificates", stateProblem, "public.crt", func(t *testing.T, w *ward) { remove(t, w.path("public.crt")) }, nil},
		"secret open to everybody": {"secrets", stateProblem, "box1.secret", func(t *testing.T, w *ward) { chmod(t, w.path("box1.secret"), 0o644) }, nil},
		"secret open to its group": {"secrets", stateWarning, "box1.secret", func(t *testing.T, w *ward) { chmod(t, w.path("box1.secret"), 0o640) }, nil},
		"secret missing":           {"secrets", stateProblem, "box1.secret", func(t *testing.T, w *ward) { remove(t, w.path("box1.secret")) }, nil},
		"directory down": {"directory", stateProblem, "refused", nil, func(d *doctor) {
			d.write = func(context.Context) error { return fmt.Errorf("%w: refused", dirclient.ErrUnavailable) }
		}},
		"directory refuses the login": {"directory", stateProblem, "invalid credentials", nil, func(d *doctor) {
			d.write = func(context.Context) error { return dirclient.ErrInvalidCredentials }
		}},
		"directory takes no updates": {"directory", stateWarning, "ldaps://master", nil, func(d *doctor) {
			d.write = func(context.Context) error { return fmt.Errorf("%w: ldaps://master", dirclient.ErrReferral) }
		}},
		"directory does not list servers": {"servers", stateWarning, "not tell", nil, func(d *doctor) {
			d.servers = func(context.Context) ([]dirclient.Server, error) { return nil, errors.New("x") }
		}},
		"a server is down": {"servers", stateProblem, "box9", func(t *testing.T, w *ward) { w.list(pki.RoleBox, "box9", nobody(t)) }, nil},
		"a server is not ready": {"servers", stateProblem, "no disk", func(t *testing.T, w *ward) {
			w.status["switch1"].Ready, w.status["switch1"].Reason = false, "no disk"
		}, nil},
		"no server of a role": {"servers", stateProblem, "role box", func(t *testing.T, w *ward) {
			w.status["box1"].Ready = false
		}, nil},
		"another server answers": {"servers", stateProblem, "answers box7", func(t *testing.T, w *ward) { w.status["box1"].Server = "box7" }, nil},
		"a server without an address": {"servers", stateWarning, "control address", func(t *testing.T, w *ward) {
			w.servers = append(w.servers, dirclient.Server{Name: "box5", Role: pki.RoleBox})
		}, nil},
		"a server not in the directory": {"servers", stateProblem, "no entry", func(t *testing.T, w *ward) {
			for i, s := range w.servers {
				if s.Name == "box1" {
					w.servers[i].Name, w.status["box1"].Server = "box2", "box2"
				}
			}
		}, nil},
		"a server runs with an old certificate": {"servers", stateWarning, "box1 runs with", func(t *testing.T, w *ward) {
			end := time.Now().Add(time.Hour)
			w.status["box1"].Certificate = &end
		}, nil},
		"versions differ": {"versions", stateWarning, "1.0 on", func(t *testing.T, w *ward) { w.status["box1"].Version = "1.1" }, nil},
		"a shadow stands still": {"replication", stateProblem, "vault2 does not catch up", func(t *testing.T, w *ward) {
			w.status["vault1"].Service = map[string]any{"mode": "master", "context_csn": []string{"20261123150010.000000Z#000000#000#000000"}}
			w.shadow("20261123150000.000000Z#000000#000#000000", "")
		}, nil},
		"a shadow has lost its master": {"replication", stateWarning, "no route", func(t *testing.T, w *ward) {
			w.status["vault1"].Service = map[string]any{"mode": "master", "context_csn": []string{"20261123150010.000000Z#000000#000#000000"}}
			w.shadow("20261123150010.000000Z#000000#000#000000", "no route")
		}, nil},
		"a clock is ahead": {"clocks", stateWarning, "box1 is 1", func(t *testing.T, w *ward) {
			w.date["box1"] = time.Now().Add(15 * time.Second).UTC().Format(http.TimeFormat)
		}, nil},
		"a clock is far behind": {"clocks", stateProblem, "behind", func(t *testing.T, w *ward) {
			w.date["switch1"] = time.Now().Add(-time.Hour).UTC().Format(http.TimeFormat)
		}, nil},
		"volume not mounted": {"volumes", stateProblem, "no marker", func(t *testing.T, w *ward) { remove(t, w.path("vol01/shoal-volume")) }, nil},
		"another volume mounted": {"volumes", stateProblem, "the configuration says", func(t *testing.T, w *ward) {
			writeFile(t, w.path("vol01/shoal-volume"), "shoal-volume 1.0\nid 11111111-6d2c-4c0c-9b0e-2f4f6b1f9a51\n")
		}, nil},
		"volume with a broken marker": {"volumes", stateProblem, "has no id", func(t *testing.T, w *ward) {
			writeFile(t, w.path("vol01/shoal-volume"), "shoal-volume 1.0\n")
		}, nil},
		"volume not in the directory": {"volumes", stateProblem, "not in the directory", nil, func(d *doctor) {
			d.volumes = func(context.Context) ([]dirclient.Volume, error) { return nil, nil }
		}},
		"volume has another id in the directory": {"volumes", stateProblem, "the directory says", nil, func(d *doctor) {
			d.volumes = func(context.Context) ([]dirclient.Volume, error) {
				return []dirclient.Volume{{Name: "vol01", ID: "x"}}, nil
			}
		}},
		"volume fills up":  {"volumes", stateWarning, "8% of the space", func(t *testing.T, w *ward) { w.st.Free = 80 }, nil},
		"volume is full":   {"volumes", stateProblem, "1% of the space", func(t *testing.T, w *ward) { w.st.Free = 10 }, nil},
		"inodes run out":   {"volumes", stateProblem, "0% of the inodes", func(t *testing.T, w *ward) { w.st.FilesFree = 0 }, nil},
		"volume read-only": {"volumes", stateProblem, "read-only", func(t *testing.T, w *ward) { w.st.ReadOnly = true }, nil},
		"volume does not answer": {"volumes", stateProblem, "stale", nil, func(d *doctor) {
			d.statfs = func(string) (vfs.StatFS, error) { return vfs.StatFS{}, errors.New("stale file handle") }
		}},
		"NFS of an old version": {"volumes", stateProblem, "vers=4.2", func(t *testing.T, w *ward) {
			w.mounts = fmt.Sprintf(nfs, w.path("vol01"), "vers=4.1,hard,lookupcache=pos")
		}, nil},
		"NFS mounted soft": {"volumes", stateProblem, "without hard", func(t *testing.T, w *ward) {
			w.mounts = fmt.Sprintf(nfs, w.path("vol01"), "vers=4.2,soft,lookupcache=pos")
		}, nil},
		"NFS with the default lookup cache": {"volumes", stateProblem, "lookupcache=positive", func(t *testing.T, w *ward) {
			w.mounts = fmt.Sprintf(nfs, w.path("vol01"), "vers=4.2,hard")
		}, nil},
		"queue not mounted": {"queue", stateProblem, "shoal-queue", func(t *testing.T, w *ward) { remove(t, w.path("queue/shoal-queue")) }, nil},
		"a backend is down": {"balancer", stateWarning, "be_imap/box2", func(t *testing.T, w *ward) {
			w.haproxy = "be_imap,box1,127.0.0.1:1,UP,L4OK,3\nbe_imap,box2,127.0.0.1:2,DOWN,L4CON,0\n"
		}, nil},
		"a whole backend is down": {"balancer", stateProblem, "L4CON", func(t *testing.T, w *ward) { w.haproxy = "be_imap,box1,127.0.0.1:1,DOWN,L4CON,0\n" }, nil},
		"HAProxy does not run":    {"balancer", stateProblem, "haproxy.sock", func(t *testing.T, w *ward) { remove(t, w.path("haproxy.sock")) }, nil},
		"nobody listens":          {"ports", stateProblem, "127.0.0.1:20143", func(t *testing.T, w *ward) { w.listen = w.listen[1:] }, nil},
		"another program listens": {"ports", stateProblem, "does not run, but", func(t *testing.T, w *ward) {
			for i, s := range w.servers {
				if s.Name == "box1" {
					w.servers[i].Addresses = map[string][]string{dirclient.ServiceControl: {nobody(t)}}
				}
			}
		}, nil},
		"too few descriptors": {"limits", stateWarning, "may open 1024", func(t *testing.T, w *ward) {
			writeFile(t, w.path("proc/77/limits"), "Max open files            1024                 4096                 files\n")
		}, nil},
		"descriptors used up": {"limits", stateProblem, "11 of 12 files", func(t *testing.T, w *ward) {
			writeFile(t, w.path("proc/77/limits"), "Max open files            12                 4096                 files\n")
			for i := range 11 {
				writeFile(t, w.path(fmt.Sprintf("proc/77/fd/%d", i)), "")
			}
		}, nil},
		"a configuration that cannot be read": {"configuration", stateProblem, "box1.hcl", func(t *testing.T, w *ward) { writeFile(t, w.path("box1.hcl"), "server {") }, nil},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWard(t)
			if c.breaks != nil {
				c.breaks(t, w)
			}
			v := w.examine(c.adjust)
			for _, f := range v.Findings {
				if f.Check == c.check && f.State == c.state && strings.Contains(f.What, c.says) {
					if f.Means == "" {
						t.Errorf("it is not said what it means: %+v", f)
					}
					return
				}
			}
			t.Errorf("%s %s with %q is not found: %s", c.check, c.state, c.says, v.text())
		})
	}
}

func chmod(t *testing.T, path string, mode os.FileMode) {
	t.Helper()
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
}

func remove(t *testing.T, path string) {
	t.Helper()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
}

func move(t *testing.T, from, to string) {
	t.Helper()
	if err := os.Rename(from, to); err != nil {
		t.Fatal(err)
	}
}

func TestNFSMountedWell(t *testing.T) {
	w := newWard(t)
	w.mounts = fmt.Sprintf("22 1 0:1 / / rw - ext4 /dev/x rw\n30 22 0:2 / %s rw,relatime shared:1 - nfs4 files:/vol rw,vers=4.2,hard,lookupcache=pos\n", w.path("vol01"))
	if v := w.examine(nil); v.Problems+v.Warnings != 0 {
		t.Error(v.text())
	}
}

func TestDoctorExitCodes(t *testing.T) {
	w := newWard(t)
	// the real run: the directory's address answers nobody, and the real /proc is looked at
	code, out, errOut := w.run("", "doctor", "--daemon-config", w.path("box1.hcl"))
	if code != 2 || !strings.Contains(out, "PROBLEM  directory") || errOut != "" {
		t.Errorf("exit code %d\n%s\n%s", code, out, errOut)
	}
	for line := range strings.Lines(out) {
		if len([]rune(strings.TrimRight(line, "\n"))) > 100 && strings.Count(strings.TrimSpace(line), " ") > 12 {
			t.Errorf("a line of more than 100 columns: %s", line)
		}
	}
	for e, want := range map[doctorError]int{{0, 3}: 1, {1, 0}: 2} {
		if got := exitCode(e); got != want {
			t.Errorf("%v: exit code %d", e, got)
		}
	}
}

func TestProcAddresses(t *testing.T) {
	for text, want := range map[string]string{
		"0100007F:1F90":                         "127.0.0.1:8080",
		"00000000:0019":                         "0.0.0.0:25",
		"00000000000000000000000001000000:0035": "[::1]:53",
		"0000000000000000FFFF00000100007F:0035": "127.0.0.1:53",
	} {
		if got, ok := procAddress(text); !ok || got != netip.MustParseAddrPort(want) {
			t.Errorf("%s: got %v, want %s", text, got, want)
		}
	}
	for _, text := range []string{"", "x", "0100007F", "0100007G:0001", "01:0001", "0100007F:10000"} {
		if got, ok := procAddress(text); ok {
			t.Errorf("%q: got %v", text, got)
		}
	}
	all := []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:25"), netip.MustParseAddrPort("0.0.0.0:143")}
	for address, want := range map[string]bool{"127.0.0.1:25": true, "10.0.0.1:25": false, ":25": true, "0.0.0.0:25": true, "10.0.0.1:143": true, "127.0.0.1:26": false} {
		if taken, ok := isListening(all, address); !ok || taken != want {
			t.Errorf("%s: %v, %v", address, taken, ok)
		}
	}
	if _, ok := isListening(all, "/run/socket"); ok {
		t.Error("a path is taken for an address")
	}
	if got := unescapeMount(`/mnt/a\040b\134c`); got != `/mnt/a b\c` {
		t.Errorf("mount point %q", got)
	}
	if _, err := openFilesLimit(filepath.Join(t.TempDir(), "none")); err == nil {
		t.Error("limits of nobody")
	}
}
