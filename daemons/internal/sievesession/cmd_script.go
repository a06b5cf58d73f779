package sievesession

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"shoal/daemons/internal/mailstore"
	"shoal/daemons/internal/sieve"
)

// extensions are the Sieve extensions that scripts may require.
func extensions(without []string) string {
	var list []string
	for _, c := range sieve.Capabilities {
		if !slices.Contains(without, c) {
			list = append(list, c)
		}
	}
	return strings.Join(list, " ")
}

func notifyMethods() string { return strings.Join(sieve.NotifyMethods, " ") }

// room refuses a script for which there is none (RFC 5804 §2.5, §2.6).
func (s *session) room(ctx context.Context, name string, size int64) error {
	lim := s.srv.limits()
	if size > int64(lim.ScriptSize) {
		return no(codeMaxSize, fmt.Sprintf("A script may have %d bytes at most", lim.ScriptSize))
	}
	list, err := s.account.Scripts(ctx)
	if err != nil {
		return s.storeFailure("cannot list scripts", err)
	}
	if len(list) >= lim.Scripts && !slices.ContainsFunc(list, func(i mailstore.ScriptInfo) bool { return i.Name == name }) {
		return no(codeMaxScripts, fmt.Sprintf("An account may have %d scripts at most", lim.Scripts))
	}
	return nil
}

func cmdHaveSpace(s *session, ctx context.Context, args []string) error {
	size, err := strconv.ParseInt(args[1], 10, 64)
	if err != nil {
		return badSyntax("HAVESPACE takes a name and a number")
	}
	if err := s.room(ctx, args[0], size); err != nil {
		return err
	}
	s.answer("OK", "", "")
	return nil
}

func cmdPutScript(s *session, ctx context.Context, args []string) error {
	name, text := args[0], args[1]
	if err := s.room(ctx, name, int64(len(text))); err != nil {
		return err
	}
	warnings, err := s.compile(text)
	if err != nil {
		return err
	}
	if err := s.account.PutScript(ctx, name, []byte(text)); err != nil {
		if errors.Is(err, mailstore.ErrScriptName) {
			return no("", "A script cannot have that name")
		}
		return s.storeFailure("cannot store a script", err)
	}
	s.log().Info("script stored", "event", "script-stored", "script", name, "size", len(text))
	s.checked(warnings, "Stored")
	return nil
}

func cmdCheckScript(s *session, _ context.Context, args []string) error {
	warnings, err := s.compile(args[0])
	if err != nil {
		return err
	}
	s.checked(warnings, "")
	return nil
}

func cmdListScripts(s *session, ctx context.Context, _ []string) error {
	list, err := s.account.Scripts(ctx)
	if err != nil {
		return s.storeFailure("cannot list scripts", err)
	}
	for _, i := range list {
		b := appendString(nil, i.Name)
		if i.Active {
			b = append(b, " ACTIVE"...)
		}
		_, _ = s.w.Write(append(b, '\r', '\n'))
	}
	s.answer("OK", "", "")
	return nil
}

// cmdSetActive: RFC 5804 §2.8. The empty name: no script runs. A script that compiles no more, for it was stored when an
// extension was still offered, cannot be activated.
func cmdSetActive(s *session, ctx context.Context, args []string) error {
	name := args[0]
	if name != "" {
		text, _, err := s.account.Script(ctx, name)
		if err != nil {
			return s.storeFailure("cannot read a script", err)
		}
		if _, err := s.compile(string(text)); err != nil {
			return err
		}
	}
	if err := s.account.ActivateScript(ctx, name); err != nil {
		return s.storeFailure("cannot activate a script", err)
	}
	s.log().Info("script activated", "event", "script-activated", "script", name)
	s.answer("OK", "", "")
	return nil
}

func cmdGetScript(s *session, ctx context.Context, args []string) error {
	text, _, err := s.account.Script(ctx, args[0])
	if err != nil {
		return s.storeFailure("cannot read a script", err)
	}
	b := append([]byte{'{'}, strconv.Itoa(len(text))...)
	b = append(append(b, "}\r\n"...), text...)
	_, _ = s.w.Write(append(b, '\r', '\n'))
	s.answer("OK", "", "")
	return nil
}

func cmdDeleteScript(s *session, ctx context.Context, args []string) error {
	if err := s.account.DeleteScript(ctx, args[0]); err != nil {
		return s.storeFailure("cannot delete a script", err)
	}
	s.log().Info("script deleted", "event", "script-deleted", "script", args[0])
	s.answer("OK", "", "")
	return nil
}

func cmdRenameScript(s *session, ctx context.Context, args []string) error {
	if err := s.account.RenameScript(ctx, args[0], args[1]); err != nil {
		if errors.Is(err, mailstore.ErrScriptName) {
			return no("", "A script cannot have that name")
		}
		return s.storeFailure("cannot rename a script", err)
	}
	s.log().Info("script renamed", "event", "script-renamed", "script", args[0], "to", args[1])
	s.answer("OK", "", "")
	return nil
}
