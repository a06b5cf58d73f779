package libvirt

import (
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// mark is where a new image differs from the old one: between the table of partitions and the first of them.
const mark = "512k"

// renewed puts a new image in the place of the directory servers': one machine after the other is made anew over it, and each is
// who it was, with what it knew, because that lies on its data disk.
func (s *stack) renewed() {
	s.t.Helper()
	vaults := []string{master, "10.20.4.2"}
	who := func() string {
		var all []string
		for _, v := range vaults {
			out, err := s.ssh(v, "cat /var/lib/shoal/ssh/ssh_host_ed25519_key.pub; sha256sum /var/lib/shoal/identity/server.key")
			if err != nil {
				s.t.Errorf("%s: %v %s", v, err, out)
			}
			all = append(all, out)
		}
		return strings.Join(all, "")
	}
	before, account := who(), s.ctl("account", "show", user)
	all := s.variables["images"].(map[string]any)
	file := filepath.Join(dir, "another-vault.qcow2")
	run(s.t, "cp", all["vault"].(map[string]string)["file"], file)
	run(s.t, "qemu-io", "-f", "qcow2", "-c", "write -P 0xa5 "+mark+" 512", file)
	all["vault"] = map[string]string{"file": file, "sha256": sumOf(s.t, file)}
	s.write()
	out := s.apply("apply: a new image for the directory's servers")
	for _, name := range []string{"vault1", "vault2"} {
		if !strings.Contains(out, "machine "+name+" is rebuilt") {
			s.t.Errorf("%s was not made anew: %s", name, tail([]byte(out), 2000))
		}
	}
	for _, v := range vaults {
		if out, err := s.ssh(v, "dd if=/dev/vda bs=512 skip=1024 count=1 status=none | od -An -tx1 -N4"); err != nil || strings.TrimSpace(out) != "a5 a5 a5 a5" {
			s.t.Errorf("%s does not run the new image: %v %s", v, err, out)
		}
	}
	if after := who(); after != before {
		s.t.Errorf("with a new image the machines are\n%s, before\n%s", after, before)
	}
	if after := s.ctl("account", "show", user); after != account {
		s.t.Errorf("the directory has\n%s, before\n%s", after, account)
	}
	until(s.t, "a mail is taken after the directory's servers were made anew", 10*time.Minute, func() error { return send("renewed-end") })
	until(s.t, "it is read", 10*time.Minute, func() error { return found(s.ca(), balancer, "renewed-end") })
	s.clean("after the new image")
}

// sumOf is the SHA-256 of a file.
func sumOf(t *testing.T, file string) string {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%x", sha256.Sum256(b))
}
