package nfs

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"shoal/daemons/nfsguest/proto"
)

const (
	user     = "alice@example.test"
	password = "wonderland"
	host     = network + "254" // this side of the bridge

	moreVolumes = "volumes" // folder in the export for further ones
)

// A site is a mail service on the rig: the directory on this side of the bridge, boxd in every client kernel, one volume.
type site struct {
	*rig
	dir string // certificates and configurations; the guests see it under the same path
}

// serve starts boxd everywhere and waits until each serves mail.
func (r *rig) serve() *site {
	r.t.Helper()
	s := &site{rig: r, dir: filepath.Join(program, "site")}
	s.must(os.MkdirAll(s.dir, 0o755))
	r.t.Cleanup(func() { os.RemoveAll(s.dir) })
	s.must(buildProgram(s.path("boxd"), "boxd"))
	s.must(buildProgram(s.path("vaultd"), "vaultd"))
	call[proto.None](r.clients[0], "InitVolume", proto.None{})
	s.prepare("certificates")
	s.directory()
	for _, k := range r.clients {
		s.startBox(k)
	}
	return s
}

func (s *site) path(name string) string { return filepath.Join(s.dir, name) }

func (s *site) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

// prepare lets the guests' program do what only programs of the module can.
func (s *site) prepare(what string) {
	s.t.Helper()
	p := proto.Site{Dir: s.dir, Vault: host, Boxes: map[string]string{}, User: user, Password: password}
	for _, k := range s.clients {
		p.Boxes[k.name] = k.addr()
	}
	text, err := json.Marshal(p)
	s.must(err)
	binary, err := guest()
	s.must(err)
	if out, err := exec.Command(binary, what, string(text)).CombinedOutput(); err != nil {
		s.t.Fatalf("%s: %v: %s", what, err, out)
	}
}

// directory starts vaultd, with the boxes, the volume and one account.
func (s *site) directory() {
	s.t.Helper()
	s.must(os.WriteFile(s.path("root"), []byte("root secret"), 0o600))
	s.must(os.WriteFile(s.path("secret"), []byte("service secret"), 0o600))
	s.must(os.WriteFile(s.path("vault1.hcl"), []byte(identity("vault1")+fmt.Sprintf(`
root { password_file = "root" }
database { path = "db" }
listener "ldaps" {
  address = "%s:636"
  tls     = true
}
`, host)), 0o600))
	out := &lockedBuffer{}
	c := exec.Command(s.path("vaultd"), "-config", s.path("vault1.hcl"))
	c.Stdout, c.Stderr = out, out
	s.must(c.Start())
	s.t.Cleanup(func() {
		_ = c.Process.Kill()
		_ = c.Wait()
		if s.t.Failed() {
			s.t.Logf("vaultd:\n%s", out.tail(2000))
		}
	})
	s.answers(host + ":636")
	s.prepare("directory")
}

// identity is how each configuration begins.
func identity(name string) string {
	return fmt.Sprintf(`server { name = "%[1]s" }
identity {
  cert_file = "%[1]s.crt"
  key_file  = "%[1]s.key"
  ca_file   = "ca.crt"
}
`, name)
}

// startBox starts boxd in a client, as its administrator would.
func (s *site) startBox(k *kernel) {
	s.t.Helper()
	s.must(os.WriteFile(s.path(k.name+".hcl"), []byte(identity(k.name)+fmt.Sprintf(`
public_tls {
  cert_file = "public.crt"
  key_file  = "public.key"
}
directory {
  uris          = ["ldaps://%[1]s:636"]
  bind_dn       = "cn=%[2]s,ou=servers,ou=config,o=shoal"
  password_file = "secret"
}
volume "vol01" {
  path = "%[4]s"
  id   = "%[5]s"
}
listener "imaps" {
  address = "%[3]s:993"
  tls     = true
}
listener "lmtp" { address = "%[3]s:24" }
listener "hint" { address = "%[3]s:7001" }
control { address = "%[3]s:7002" }
store { volume_folder = "%[4]s/%[6]s" }
`, host, k.name, k.addr(), proto.Export, proto.VolumeID, moreVolumes)), 0o600))
	call[proto.None](k, "Spawn", []string{s.path("boxd"), "-config", s.path(k.name + ".hcl")})
	s.answers(k.endpoint(993))
	s.answers(k.endpoint(24))
}

// answers waits until somebody takes connections there.
func (s *site) answers(address string) {
	s.t.Helper()
	for deadline := time.Now().Add(bootTime); ; {
		c, err := net.DialTimeout("tcp", address, time.Second)
		if err == nil {
			_ = c.Close()
			return
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("nobody takes connections at %s: %v", address, err)
		}
		<-time.After(50 * time.Millisecond)
	}
}

// python starts a script of testdata with its arguments, as JSON in its first line of input. What it prints comes line by
// line; closing its input tells it to end.
func (s *site) python(script string, args map[string]any) (lines *bufio.Scanner, stop func()) {
	s.t.Helper()
	args["ca"], args["user"], args["password"] = s.path("ca.crt"), user, password
	args["cert"], args["key"] = s.path("switch1.crt"), s.path("switch1.key")
	text, err := json.Marshal(args)
	s.must(err)
	c := exec.Command("python3", "-u", filepath.Join("testdata", script))
	in, err := c.StdinPipe()
	s.must(err)
	out, err := c.StdoutPipe()
	s.must(err)
	said := &lockedBuffer{}
	c.Stderr = said
	s.must(c.Start())
	s.t.Cleanup(func() { _ = c.Process.Kill() })
	_, err = in.Write(append(text, '\n'))
	s.must(err)
	return bufio.NewScanner(out), func() {
		s.t.Helper()
		_ = in.Close()
		_, _ = io.Copy(io.Discard, out)
		if err := c.Wait(); err != nil {
			s.t.Errorf("%s: %v\n%s", script, err, said.tail(2000))
		}
	}
}

// mailbox reads INBOX through a box with Python's imaplib: token by UID.
func (s *site) mailbox(k *kernel) map[string]string {
	s.t.Helper()
	lines, stop := s.python("read.py", map[string]any{"host": k.addr()})
	out := map[string]string{}
	for lines.Scan() {
		uid, token, _ := strings.Cut(lines.Text(), " ")
		if _, twice := out[uid]; twice {
			s.t.Errorf("%s: UID %s twice", k.name, uid)
		}
		out[uid] = token
	}
	stop()
	return out
}

// swaks delivers a message over LMTP, as a switch with its certificate.
func (s *site) swaks(k *kernel, token string) {
	s.t.Helper()
	out, err := exec.Command("swaks", "--protocol", "LMTP", "--server", k.endpoint(24), "--tls", "--tls-cert", s.path("switch1.crt"), "--tls-key", s.path("switch1.key"),
		"--ehlo", "switch1", "--from", "sender@example.org", "--to", user, "--header", "X-Token: "+token, "--body", "hello", "--timeout", "120").CombinedOutput()
	if err != nil {
		s.t.Fatalf("swaks: %v\n%s", err, out)
	}
}

// curl runs one IMAP command in INBOX.
func (s *site) curl(k *kernel, command string) string {
	s.t.Helper()
	return s.curlAs(k, user, "INBOX", command)
}

func (s *site) curlAs(k *kernel, user, folder, command string) string {
	s.t.Helper()
	out, err := exec.Command("curl", "-sS", "--max-time", "240", "--cacert", s.path("ca.crt"), "--user", user+":"+password, "--url", "imaps://"+k.endpoint(993)+"/"+folder, "--request", command).CombinedOutput()
	if err != nil {
		s.t.Fatalf("curl: %s: %v\n%s", command, err, out)
	}
	return string(out)
}

// TestMail: the real boxd in two kernels, clients that are none of ours, over real NFS. What comes in or changes through one
// box is told to an IDLE client of the other; then the file server and a box are killed while mail comes in.
func TestMail(t *testing.T) {
	s := boot(t, "xfs", 2).serve()
	s.idle()
	s.underMail()
}

func (s *site) idle() {
	a, b := s.clients[0], s.clients[1]
	s.swaks(a, "first")
	lines, stop := s.python("idle.py", map[string]any{"host": b.addr()})
	defer stop()
	told := func(what string) {
		s.t.Helper()
		var seen []string
		for lines.Scan() {
			if seen = append(seen, lines.Text()); strings.Contains(lines.Text(), what) {
				s.t.Logf("%s: an IDLE client is told %q", b.name, lines.Text())
				return
			}
		}
		s.t.Fatalf("the IDLE client at %s was not told %q, but %q", b.name, what, seen)
	}
	told("+ idling")
	s.swaks(a, "second")
	told("* 2 EXISTS")
	s.curl(a, `UID STORE 1 +FLAGS (\Flagged $Label1)`)
	told("* 1 FETCH")
	s.curl(a, `UID STORE 2 +FLAGS (\Deleted)`)
	told("* 2 FETCH")
	s.curl(a, "UID EXPUNGE 2")
	told("* 2 EXPUNGE")
	if got := s.curl(b, "UID FETCH 1 (FLAGS)"); !strings.Contains(got, "$Label1") {
		s.t.Errorf("%s does not know the keyword: %s", b.name, got)
	}
}

// mailLoad is mail coming in from several switches.
type mailLoad struct {
	acked chan string // tokens as they are acknowledged
	done  chan struct{}
	tried map[string]int // by token; to be read when done is closed
	stop  func()
}

// load starts a sender that goes from box to box; a token that one box gave no answer for is sent again to another.
func (s *site) load(name string) *mailLoad {
	s.t.Helper()
	boxes := []string{}
	for _, k := range s.clients {
		boxes = append(boxes, k.addr())
	}
	lines, stop := s.python("send.py", map[string]any{"boxes": boxes, "name": name})
	l := &mailLoad{acked: make(chan string, 1<<16), done: make(chan struct{}), tried: map[string]int{}}
	go func() {
		defer close(l.done)
		for lines.Scan() {
			what, token, _ := strings.Cut(lines.Text(), " ")
			switch what {
			case "try":
				l.tried[token]++
			case "ok":
				l.acked <- token
			}
		}
		close(l.acked)
	}()
	l.stop = func() {
		stop()
		<-l.done
	}
	return l
}

// underMail kills the file server and then a box while mail comes in through both boxes.
func (s *site) underMail() {
	s.t.Helper()
	a, b := s.clients[0], s.clients[1]
	loads := []*mailLoad{s.load("x"), s.load("y"), s.load("z")}
	acked := map[string]bool{}
	more := func(n int) { // waits for n further messages of each sender
		s.t.Helper()
		deadline := time.After(callTime)
		for _, l := range loads {
			for range n {
				select {
				case token, ok := <-l.acked:
					if !ok {
						s.t.Fatal("a sender has ended")
					}
					acked[token] = true
				case <-deadline:
					s.t.Fatalf("no mail is taken any more; %d acknowledged so far", len(acked))
				}
			}
		}
	}
	more(30)
	var seen []map[string]string
	look := func(k *kernel) { seen = append(seen, s.mailbox(k)) }
	look(b)
	before := len(acked)
	s.server.restart()
	more(30)
	s.t.Logf("file server killed: %d messages acknowledged before, %d by now", before, len(acked))
	look(a)
	before = len(acked)
	a.kill()
	more(10) // through the other
	look(b)
	a.start()
	a.ready()
	s.startBox(a)
	more(30)
	s.t.Logf("%s killed: %d messages acknowledged before, %d by now", a.name, before, len(acked))
	for _, l := range loads {
		l.stop()
		for token := range l.acked {
			acked[token] = true
		}
	}

	final := s.mailbox(a)
	if other := s.mailbox(b); !maps.Equal(final, other) {
		s.t.Errorf("the boxes show different mailboxes: %d and %d messages", len(final), len(other))
	}
	for _, old := range seen {
		for uid, token := range old {
			if final[uid] != token {
				s.t.Errorf("UID %s was %q, is %q", uid, token, final[uid])
			}
		}
	}
	times := map[string]int{}
	for _, token := range final {
		times[token]++
	}
	lost, twice := 0, 0
	for token := range acked {
		if times[token] == 0 {
			lost++
			s.t.Errorf("%s was acknowledged and is lost", token)
		}
	}
	tried := map[string]int{}
	for _, l := range loads {
		maps.Copy(tried, l.tried)
	}
	for token, n := range times {
		if n > 1 {
			twice++
		}
		if n > max(tried[token], 1) {
			s.t.Errorf("%s is there %d times, and was sent %d times", token, n, tried[token])
		}
	}
	s.t.Logf("%d messages acknowledged, %d lost; %d in the mailbox, of which %d twice (those whose first answer a kill took)", len(acked), lost, len(final), twice)
	for _, k := range s.clients {
		call[proto.None](k, "Open", proto.OpenArgs{Server: k.name + "t"})
	}
	s.verify()
	if uids := slices.Collect(maps.Keys(final)); len(uids) < 250 {
		s.t.Errorf("%d messages: too few to show anything", len(uids))
	}
}
