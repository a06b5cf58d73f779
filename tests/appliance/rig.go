// Package appliance puts up, from the built programs and on loopback, the machines that operators' tools speak to: a
// directory master, the authority for enrolment, a balancer (HAProxy with its agent) and a storage server (exportfs
// with its agent). The tests of enrolment and of the agent use it, and those of the Terraform provider.
//
// The storage server's agent runs in a mount namespace of its own, with folders of its own in the places of
// /etc/exports.d and /var/lib/nfs: the exportfs is Debian's, the machine's own exports are not touched. That takes root.
package appliance

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/go-ldap/ldap/v3"

	"shoal/tests/ports"
)

// Rig is one installation in a folder.
type Rig struct {
	T    testing.TB
	Dir  string
	Bin  string // folder of the programs
	LDAP string // address of the directory, StartTLS

	runtime string // HAProxy's socket
	storage int    // process of the storage server's agent
}

// InStorage runs a command in the storage server's mount namespace, past its agent.
func (r *Rig) InStorage(args ...string) string {
	r.T.Helper()
	out, err := exec.Command("nsenter", append([]string{"--mount", "--target", strconv.Itoa(r.storage), "--"}, args...)...).CombinedOutput()
	if err != nil {
		r.T.Fatalf("%s: %v: %s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// HAProxy sends a command to the balancer's runtime socket, past its agent.
func (r *Rig) HAProxy(command string) string {
	r.T.Helper()
	c, err := net.Dial("unix", r.runtime)
	if err != nil {
		r.T.Fatal(err)
	}
	defer c.Close()
	fmt.Fprintln(c, command)
	b, err := io.ReadAll(c)
	if err != nil {
		r.T.Fatal(err)
	}
	return string(b)
}

var build struct {
	sync.Once
	dir string
	err error
}

// New prepares an installation: a CA, an operator, and a running directory master. The programs are those of SHOAL_BIN, or are
// built.
func New(t testing.TB) *Rig {
	t.Helper()
	r := &Rig{T: t, Dir: t.TempDir(), Bin: os.Getenv("SHOAL_BIN")}
	if r.Bin == "" {
		build.Do(func() {
			if build.dir, build.err = os.MkdirTemp("", "shoal-bin-"); build.err != nil {
				return
			}
			cmd := exec.Command("go", "build", "-o", build.dir+"/", "./daemons/vaultd", "./daemons/shoal-agent", "./daemons/shoalctl", "./daemons/shoal-firstboot")
			cmd.Dir = root(t)
			if out, err := cmd.CombinedOutput(); err != nil {
				build.err = fmt.Errorf("%w\n%s", err, out)
			}
		})
		if build.err != nil {
			t.Fatal(build.err)
		}
		r.Bin = build.dir
	}
	r.Shoalctl("ca", "create", r.Path("ca"))
	r.Shoalctl("ca", "issue", "operator", "alice", "--ca", r.Path("ca"), "--out", r.Path("alice"))
	r.startDirectory()
	return r
}

// Clean removes the programs that New built; for TestMain.
func Clean() {
	if build.dir != "" {
		_ = os.RemoveAll(build.dir) // a folder for programs: nothing depends on it
	}
}

func root(t testing.TB) string {
	t.Helper()
	dir, err := os.Getwd()
	for err == nil && dir != "/" {
		if b, err := os.ReadFile(filepath.Join(dir, "go.mod")); err == nil && bytes.HasPrefix(b, []byte("module shoal\n")) {
			return dir
		}
		dir = filepath.Dir(dir)
	}
	t.Fatal("the root of the repository was not found")
	return ""
}

// Path is a file of the installation.
func (r *Rig) Path(parts ...string) string {
	return filepath.Join(append([]string{r.Dir}, parts...)...)
}

// Put writes a file.
func (r *Rig) Put(name, format string, args ...any) string {
	r.T.Helper()
	path := r.Path(name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		r.T.Fatal(err)
	}
	if err := os.WriteFile(path, fmt.Appendf(nil, format, args...), 0o600); err != nil {
		r.T.Fatal(err)
	}
	return path
}

// Read reads one.
func (r *Rig) Read(name string) string {
	r.T.Helper()
	b, err := os.ReadFile(r.Path(name))
	if err != nil {
		r.T.Fatal(err)
	}
	return string(b)
}

// Shoalctl runs it, which must succeed, and gives its standard output.
func (r *Rig) Shoalctl(args ...string) string {
	r.T.Helper()
	out, errOut, code := r.TryShoalctl("", args...)
	if code != 0 {
		r.T.Fatalf("shoalctl %s: exit code %d\n%s%s", strings.Join(args, " "), code, out, errOut)
	}
	return out
}

// TryShoalctl runs it with something to read.
func (r *Rig) TryShoalctl(stdin string, args ...string) (out, errOut string, code int) {
	r.T.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(r.Bin, "shoalctl"), append([]string{"--config", r.Path("shoalctl.hcl")}, args...)...)
	var o, e bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &o, &e
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		r.T.Fatal(err)
	}
	return o.String(), e.String(), cmd.ProcessState.ExitCode()
}

const suffix = "o=shoal"

// startDirectory starts the master and writes the operator's configuration.
func (r *Rig) startDirectory() {
	r.T.Helper()
	r.Shoalctl("ca", "issue", "vault", "vault1", "--ca", r.Path("ca"), "--out", r.Path("vault1"), "--host", "127.0.0.1")
	at := ports.Take(r.T, 2)
	r.LDAP = at[0]
	r.Put("root.secret", "rootpassword\n")
	conf := r.Put("vaultd.hcl", `
server { name = "vault1" }
identity {
  cert_file = "vault1/vault1.crt"
  key_file  = "vault1/vault1.key"
  ca_file   = "vault1/ca.crt"
}
management { address = %q }
root { password_file = "root.secret" }
database { path = "db" }
password {
  memory = "64 KiB"
  passes = 1
}
listener "ldap" { address = %q }
`, at[1], r.LDAP)
	r.Put("shoalctl.hcl", `
identity {
  cert_file = "alice/alice.crt"
  key_file  = "alice/alice.key"
  ca_file   = "alice/ca.crt"
}
directory {
  uris          = ["ldap://%s"]
  bind_dn       = "cn=admin,%s"
  password_file = "root.secret"
}
`, r.LDAP, suffix)
	r.Start("vaultd", at[1], filepath.Join(r.Bin, "vaultd"), "-config", conf)
}

// Authority starts the authority for enrolment and gives its URL and the CA's fingerprint.
func (r *Rig) Authority(extra string) (url, sha256 string) {
	r.T.Helper()
	r.Shoalctl("enrol", "authority", "--ca", r.Path("ca"), "--out", r.Path("authority"))
	at := ports.Take(r.T, 3)
	conf := r.Put("authority.hcl", `
server { name = "enrol" }
identity {
  cert_file = "authority/server.crt"
  key_file  = "authority/server.key"
  ca_file   = "authority/ca.crt"
}
management { address = %q }
control { address = %q }
listener "enrol" { address = %q }
enrolment {
  ca_cert_file = "ca/ca.crt"
  ca_key_file  = "ca/ca.key"
  advertise    = ["ldap://%s"]
  %s
  directory {
    uris          = ["ldap://%s"]
    bind_dn       = "cn=enrol,ou=servers,ou=config,%s"
    password_file = "authority/directory.secret"
  }
}
`, at[0], at[1], at[2], r.LDAP, extra, r.LDAP, suffix)
	r.Start("authority", at[0], filepath.Join(r.Bin, "shoal-agent"), "-config", conf)
	return "https://" + at[2], strings.TrimSpace(r.Shoalctl("ca", "fingerprint", r.Path("ca/ca.crt")))
}

// Balancer starts an HAProxy and its agent, and gives the address of the agent's API.
func (r *Rig) Balancer() string {
	r.T.Helper()
	at := ports.Take(r.T, 2)
	r.Shoalctl("ca", "issue", "lb", "lb1", "--ca", r.Path("ca"), "--out", r.Path("lb1"))
	// Sockets have short names: the kernel takes 107 bytes.
	short, err := os.MkdirTemp("/tmp", "shoal-lb-")
	if err != nil {
		r.T.Fatal(err)
	}
	r.T.Cleanup(func() { _ = os.RemoveAll(short) }) // sockets only
	r.runtime = short + "/admin.sock"
	base := r.Put("lb1/haproxy.cfg", `
global
	stats socket unix@%s/admin.sock mode 600 level admin expose-fd listeners
	hard-stop-after 5s
defaults
	mode tcp
	timeout connect 5s
	timeout check 5s
`, short)
	pools := r.Path("lb1/pools.cfg")
	conf := r.Put("lb1/agent.hcl", `
server { name = "lb1" }
identity {
  cert_file = "lb1.crt"
  key_file  = "lb1.key"
  ca_file   = "ca.crt"
}
management { address = %q }
control { address = %q }
haproxy {
  state  = "agent"
  base   = %q
  pools  = %q
  socket = "%s/admin.sock"
  master = "%s/master.sock"
}
`, at[0], at[1], base, pools, short, short)
	r.Put("lb1/pools.cfg", "")
	r.spawn("haproxy", "haproxy", "-W", "-S", short+"/master.sock", "-f", base, "-f", pools)
	r.Start("lb1", at[0], filepath.Join(r.Bin, "shoal-agent"), "-config", conf)
	return at[1]
}

// Storage starts a storage server's agent and gives the address of its API.
func (r *Rig) Storage() string {
	r.T.Helper()
	at := ports.Take(r.T, 2)
	r.Shoalctl("ca", "issue", "storage", "storage1", "--ca", r.Path("ca"), "--out", r.Path("storage1"))
	for _, folder := range []string{"exports.d", "nfs", "volumes"} {
		if err := os.MkdirAll(r.Path("storage1", folder), 0o755); err != nil {
			r.T.Fatal(err)
		}
	}
	conf := r.Put("storage1/agent.hcl", `
server { name = "storage1" }
identity {
  cert_file = "storage1.crt"
  key_file  = "storage1.key"
  ca_file   = "ca.crt"
}
management { address = %q }
control { address = %q }
exports {
  state       = "agent"
  root        = "volumes"
  mail_owner  = "642:640"
  queue_owner = "641:640"
}
`, at[0], at[1])
	r.storage = r.Start("storage1", at[0], "unshare", "--mount", "--propagation", "private", "sh", "-ec",
		`mkdir -p /etc/exports.d; mount --bind "$1/exports.d" /etc/exports.d; mount --bind "$1/nfs" /var/lib/nfs; exec "$2" -config "$3"`,
		"sh", r.Path("storage1"), filepath.Join(r.Bin, "shoal-agent"), conf)
	return at[1]
}

// process is a running program.
type process struct {
	pid  int
	log  string
	done chan error
}

// spawn starts a program, which is ended with the test.
func (r *Rig) spawn(name, program string, args ...string) *process {
	r.T.Helper()
	p := &process{log: r.Path(name + ".log"), done: make(chan error, 1)}
	f, err := os.Create(p.log)
	if err != nil {
		r.T.Fatal(err)
	}
	cmd := exec.Command(program, args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = r.Dir, f, f
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	if err := cmd.Start(); err != nil {
		r.T.Fatal(err)
	}
	p.pid = cmd.Process.Pid
	go func() { p.done <- cmd.Wait(); close(p.done); f.Close() }()
	r.T.Cleanup(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) // it may have ended
		t := time.AfterFunc(10*time.Second, func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) })
		<-p.done
		t.Stop()
		if r.T.Failed() || os.Getenv("SHOAL_TEST_LOGS") != "" {
			b, _ := os.ReadFile(p.log)
			r.T.Logf("log of %s:\n%s", name, tail(b, 6000))
		}
	})
	return p
}

func tail(b []byte, n int) []byte {
	if len(b) > n {
		return b[len(b)-n:]
	}
	return b
}

// Start starts a daemon, waits until its management address says that it is ready, and gives its process id.
func (r *Rig) Start(name, management, program string, args ...string) (pid int) {
	r.T.Helper()
	p := r.spawn(name, program, args...)
	r.Wait(name+" is ready", func() error {
		select {
		case err := <-p.done:
			return fatal{fmt.Errorf("%s ended: %v", name, err)}
		default:
		}
		return ready(management)
	})
	return p.pid
}

type fatal struct{ error }

// Wait asks until the answer is nil, at most 30 seconds.
func (r *Rig) Wait(what string, f func() error) {
	r.T.Helper()
	limit := time.Now().Add(30 * time.Second)
	for {
		err := f()
		if err == nil {
			return
		}
		if _, ends := err.(fatal); ends || time.Now().After(limit) {
			r.T.Fatalf("%s: %v", what, err)
		}
		<-time.After(10 * time.Millisecond)
	}
}

func ready(address string) error {
	c, err := net.DialTimeout("tcp", address, time.Second)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return err
	}
	fmt.Fprintf(c, "GET /readyz HTTP/1.0\r\n\r\n")
	b := make([]byte, 512)
	n, err := c.Read(b)
	if n == 0 {
		return err
	}
	if line, _, _ := strings.Cut(string(b[:n]), "\r\n"); !strings.Contains(line, " 200 ") {
		return fmt.Errorf("it answers %s", b[:n])
	}
	return nil
}

// TLS shows the certificate in a folder that `shoalctl ca issue` filled, and trusts servers of the CA, whatever their address.
func (r *Rig) TLS(folder, name string) *tls.Config {
	r.T.Helper()
	pair, err := tls.LoadX509KeyPair(r.Path(folder, name+".crt"), r.Path(folder, name+".key"))
	if err != nil {
		r.T.Fatal(err)
	}
	c := r.anyTLS()
	c.Certificates = []tls.Certificate{pair}
	return c
}

func (r *Rig) anyTLS() *tls.Config {
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(r.Read("ca/ca.crt")))
	return &tls.Config{
		InsecureSkipVerify: true, // but for the host name all is verified here
		VerifyConnection: func(cs tls.ConnectionState) error {
			_, err := cs.PeerCertificates[0].Verify(x509.VerifyOptions{Roots: roots, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})
			return err
		},
	}
}

// Directory binds at the directory.
func (r *Rig) Directory(dn, password string) (*ldap.Conn, error) {
	r.T.Helper()
	c, err := ldap.DialURL("ldap://" + r.LDAP)
	if err != nil {
		r.T.Fatal(err)
	}
	r.T.Cleanup(func() { c.Close() })
	if err := c.StartTLS(r.anyTLS()); err != nil {
		r.T.Fatal(err)
	}
	return c, c.Bind(dn, password)
}

// Admin binds as the root DN.
func (r *Rig) Admin() *ldap.Conn {
	r.T.Helper()
	c, err := r.Directory("cn=admin,"+suffix, "rootpassword")
	if err != nil {
		r.T.Fatal(err)
	}
	return c
}

// ServerDN is where a server's entry lies.
func ServerDN(name string) string { return "cn=" + name + ",ou=servers,ou=config," + suffix }

// AddServer makes a server's entry, as an operator's tool does.
func (r *Rig) AddServer(name, role string) {
	r.T.Helper()
	a := ldap.NewAddRequest(ServerDN(name), nil)
	a.Attribute("objectClass", []string{"shoalServer"})
	a.Attribute("cn", []string{name})
	a.Attribute("shoalRole", []string{role})
	if err := r.Admin().Add(a); err != nil {
		r.T.Fatal(err)
	}
}
