package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"

	"shoal/daemons/nfsguest/proto"
)

// dovecot is a session of Dovecot's IMAP program, which needs no other part of Dovecot when it is told on whose behalf it runs.
type dovecot struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
	tag int
}

// dovecotConf keeps indexes beside the mail, as several servers on one file system must, with the settings that Dovecot's
// documentation asks for on NFS.
const dovecotConf = `mail_location = maildir:~/Maildir
first_valid_uid = 1
mmap_disable = yes
mail_fsync = always
mail_nfs_storage = yes
mail_nfs_index = yes
base_dir = /run/dovecot
state_dir = /run/dovecot
stats_writer_socket_path =
log_path = /run/dovecot/log
namespace inbox {
  inbox = yes
  separator = /
}
`

func dovecotCommand(program string, args ...string) (*exec.Cmd, error) {
	const conf = "/run/dovecot/dovecot.conf"
	if err := os.MkdirAll("/run/dovecot", 0o755); err != nil {
		return nil, err
	}
	if err := os.Chmod("/run/dovecot", 0o777); err != nil {
		return nil, err
	}
	if err := os.WriteFile(conf, []byte(dovecotConf), 0o644); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(proto.DovecotHome, 0o755); err != nil {
		return nil, err
	}
	if err := os.Chown(proto.DovecotHome, proto.DovecotUser, proto.DovecotUser); err != nil {
		return nil, err
	}
	c := exec.Command("/usr/lib/dovecot/"+program, append([]string{"-c", conf}, args...)...)
	c.Env = []string{"HOME=" + proto.DovecotHome, "USER=peer", "PATH=/usr/bin:/bin"}
	c.Dir = proto.DovecotHome
	c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: proto.DovecotUser, Gid: proto.DovecotUser}}
	return c, nil
}

// Dovecot has Dovecot do something and counts the calls.
func (g *Guest) Dovecot(a proto.DovecotArgs, r *proto.OpReply) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch a.Kind {
	case "deliver":
		c, err := dovecotCommand("dovecot-lda", "-e")
		if err != nil {
			return err
		}
		var said bytes.Buffer
		c.Stdin, c.Stdout, c.Stderr = bytes.NewReader(a.Message), &said, &said
		return counted(r, func() error {
			if err := c.Run(); err != nil {
				return fmt.Errorf("dovecot-lda: %w: %s%s", err, &said, dovecotLog())
			}
			return nil
		})
	case "session":
		return counted(r, g.startDovecot)
	case "imap":
		return counted(r, func() error {
			for _, c := range a.Commands {
				if err := g.peer.command(c); err != nil {
					return err
				}
			}
			return nil
		})
	case "end":
		return counted(r, func() error {
			if err := g.peer.command("LOGOUT"); err != nil {
				return err
			}
			return g.peer.cmd.Wait()
		})
	}
	return fmt.Errorf("unknown kind %q", a.Kind)
}

func (g *Guest) startDovecot() error {
	c, err := dovecotCommand("imap")
	if err != nil {
		return err
	}
	d := &dovecot{cmd: c}
	if d.in, err = c.StdinPipe(); err != nil {
		return err
	}
	out, err := c.StdoutPipe()
	if err != nil {
		return err
	}
	d.out = bufio.NewReaderSize(out, 64<<10)
	if err := c.Start(); err != nil {
		return fmt.Errorf("imap: %w", err)
	}
	line, err := d.out.ReadString('\n')
	if err != nil || !strings.HasPrefix(line, "* PREAUTH") {
		return fmt.Errorf("imap says %q (%v): %s", line, err, dovecotLog())
	}
	g.peer = d
	return nil
}

// command says a command and reads to its end, which must be OK.
func (d *dovecot) command(c string) error {
	d.tag++
	tag := fmt.Sprintf("t%d ", d.tag)
	if _, err := io.WriteString(d.in, tag+c+"\r\n"); err != nil {
		return fmt.Errorf("imap: %w: %s", err, dovecotLog())
	}
	for {
		line, err := d.out.ReadString('\n')
		if err != nil {
			return fmt.Errorf("imap: %.40s: %w: %s", c, err, dovecotLog())
		}
		if rest, ok := strings.CutPrefix(line, tag); ok {
			if !strings.HasPrefix(rest, "OK") {
				return fmt.Errorf("imap: %.40s: %s%s", c, rest, dovecotLog())
			}
			return nil
		}
	}
}

func dovecotLog() string {
	b, err := os.ReadFile("/run/dovecot/log")
	if err != nil {
		return err.Error()
	}
	return string(b[max(0, len(b)-2000):])
}
