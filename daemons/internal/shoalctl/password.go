package shoalctl

import (
	"bufio"
	"crypto/rand"
	"encoding/base32"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"shoal/daemons/internal/conf"
)

// passwordFlags are the ways to give a password. None of them shows it in the list of processes.
type passwordFlags struct {
	file     string
	stdin    bool
	generate bool // only where a new password is set
}

func (p *passwordFlags) register(cmd *cobra.Command, generate bool) {
	cmd.Flags().StringVar(&p.file, "password-file", "", "read the password from this file (one line, mode 0600)")
	cmd.Flags().BoolVar(&p.stdin, "password-stdin", false, "read the password from the first line of standard input")
	if generate {
		cmd.Flags().BoolVar(&p.generate, "generate", false, "make a random password and print it")
	}
}

// read gets the password. A new one is asked for twice; made says that it was generated and must be shown.
func (p *passwordFlags) read(t *tool, prompt string, isNew bool) (password string, made bool, err error) {
	switch {
	case p.generate && p.stdin, p.generate && p.file != "", p.stdin && p.file != "":
		return "", false, usageError{errors.New("of --password-file, --password-stdin and --generate only one can be given")}
	case p.generate:
		return generatePassword(), true, nil
	case p.file != "":
		secret, err := conf.ReadSecret(p.file)
		return string(secret), false, err
	case p.stdin:
		line, err := bufio.NewReader(io.LimitReader(t.in, 4096)).ReadString('\n')
		if err != nil && !errors.Is(err, io.EOF) {
			return "", false, fmt.Errorf("password from standard input: %w", err)
		}
		line = strings.TrimRight(line, "\r\n")
		if line == "" {
			return "", false, errors.New("password from standard input: the first line is empty")
		}
		return line, false, nil
	}
	f, ok := t.in.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		ways := "--password-file or --password-stdin"
		if isNew {
			ways = "--password-file, --password-stdin or --generate"
		}
		return "", false, usageError{fmt.Errorf("there is no terminal to ask for the password: give it with %s", ways)}
	}
	password, err = t.ask(f, prompt)
	if err == nil && isNew {
		var again string
		again, err = t.ask(f, "Again: ")
		if err == nil && again != password {
			err = errors.New("the two passwords are not the same")
		}
	}
	return password, false, err
}

func (t *tool) ask(f *os.File, prompt string) (string, error) {
	fmt.Fprint(t.err, prompt)
	password, err := term.ReadPassword(int(f.Fd()))
	fmt.Fprintln(t.err)
	if err != nil {
		return "", fmt.Errorf("password: %w", err)
	}
	return string(password), nil
}

// generatePassword returns 100 random bits as four groups of five letters and digits.
func generatePassword() string {
	var b [13]byte
	_, _ = rand.Read(b[:]) // never fails: it ends the process instead (crypto/rand)
	s := strings.ToLower(base32.StdEncoding.EncodeToString(b[:]))[:20]
	return s[:5] + "-" + s[5:10] + "-" + s[10:15] + "-" + s[15:]
}
