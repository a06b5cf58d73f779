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
