package images

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// program writes a shell script that stands for a program on the PATH, and returns its folder.
func program(t *testing.T, name, text string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"+text), 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// The unit that enrols tries again while nobody answers, ends when the token is refused, and takes the token away when it
// is used. shoalctl's own part is tested with it; here it is a script that gives its exit codes.
func TestEnrolUnit(t *testing.T) {
	for name, c := range map[string]struct {
		codes string
		fails bool
	}{"at once": {"0", false}, "after a while": {"4 0", false}, "refused": {"4 1", true}} {
		t.Run(name, func(t *testing.T) {
			run := t.TempDir()
			files := map[string]string{
				"codes":       strings.ReplaceAll(c.codes, " ", "\n") + "\n",
				"enrol.token": "token\n",
				"enrol.env":   "SHOAL_URL='https://v:1'\nSHOAL_CA_SHA256='00'\nSHOAL_ROLE='box'\nSHOAL_NAME='box1'\nSHOAL_OWNER='642:642'\n",
			}
			for name, text := range files {
				if err := os.WriteFile(filepath.Join(run, name), []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			bin := program(t, "shoalctl", `echo "$@" >> `+run+`/asked; code=$(head -n1 `+run+`/codes); sed -i 1d `+run+`/codes; exit $code`)
			out, err := try([]string{"PATH=" + bin + ":" + os.Getenv("PATH"), "SHOAL_RUN=" + run, "SHOAL_IDENTITY=/id"}, "images/packages/shoal-common/files/usr/lib/shoal/enrol")
			if (err != nil) != c.fails {
				t.Fatalf("%v\n%s", err, out)
			}
			asked, rerr := os.ReadFile(filepath.Join(run, "asked"))
			if rerr != nil || strings.Count(string(asked), "\n") != len(strings.Fields(c.codes)) ||
				!strings.Contains(string(asked), "enrol --url https://v:1 --ca-sha256 00 --role box --name box1 --token-file "+run+"/enrol.token --owner 642:642 --out /id") {
				t.Errorf("asked: %s %v", asked, rerr)
			}
			if _, err := os.Stat(filepath.Join(run, "enrol.token")); (err == nil) != c.fails {
				t.Errorf("token: %v", err)
			}
			if c.fails && !strings.Contains(out, "give it a new token") {
				t.Errorf("it says %q", out)
			}
		})
	}
}

// A machine tells the directory where it serves, as first boot has written it, and tries again while the directory is away; the
// authority is made ready likewise, whatever was the matter.
func TestAnnounceAndAuthority(t *testing.T) {
	for name, c := range map[string]struct {
		script, codes, asked string
		fails                bool
	}{
		"announced after a while": {"shoal-common/files/usr/lib/shoal/announce", "4 0", "enrol announce --out /id --address imap=h:143 --address hint=h:7001", false},
		"announcing is refused":   {"shoal-common/files/usr/lib/shoal/announce", "1", "enrol announce --out /id --address imap=h:143 --address hint=h:7001", true},
		"authority after a while": {"shoal-agent/files/usr/lib/shoal/authority", "4 0", "--config /c enrol authority --ca /e/ca --out /e --owner 646:640", false},
		"authority after errors":  {"shoal-agent/files/usr/lib/shoal/authority", "1 4 0", "--config /c enrol authority --ca /e/ca --out /e --owner 646:640", false},
	} {
		t.Run(name, func(t *testing.T) {
			run := t.TempDir()
			for name, text := range map[string]string{"codes": strings.ReplaceAll(c.codes, " ", "\n") + "\n", "announce": "# what it serves\nimap=h:143\n\nhint=h:7001\n"} {
				if err := os.WriteFile(filepath.Join(run, name), []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			bin := program(t, "shoalctl", `echo "$@" >> `+run+`/asked; code=$(head -n1 `+run+`/codes); sed -i 1d `+run+`/codes; exit $code`)
			out, err := try([]string{"PATH=" + bin + ":" + os.Getenv("PATH"), "SHOAL_ANNOUNCE=" + run + "/announce", "SHOAL_IDENTITY=/id", "SHOAL_ENROL=/e", "SHOAL_AUTHORITY=/c"},
				"images/packages/"+c.script)
			if (err != nil) != c.fails {
				t.Fatalf("%v\n%s", err, out)
			}
			asked, rerr := os.ReadFile(filepath.Join(run, "asked"))
			if want := strings.Repeat(c.asked+"\n", len(strings.Fields(c.codes))); rerr != nil || string(asked) != want {
				t.Errorf("asked: %s %v, wanted %s", asked, rerr, want)
			}
		})
	}
}
