package shoalctl

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"shoal/daemons/internal/dirclient"
)

// What a shell asks for while somebody types must be quick and small.
const (
	completeWithin = 2 * time.Second
	completeMost   = 100
)

// completer proposes words that begin with prefix.
type completer func(ctx context.Context, prefix string) []string

// addCompletion lets the shells complete addresses, domains and entries of the queue by asking the service. When it
// does not answer they complete nothing.
func (t *tool) addCompletion(root *cobra.Command) {
	const files, none = cobra.ShellCompDirectiveDefault, cobra.ShellCompDirectiveNoFileComp
	// words completes the first argument, or all of them when there are several of a kind; then is for the rest.
	words := func(complete completer, all bool, then cobra.ShellCompDirective) cobra.CompletionFunc {
		return func(_ *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
			if len(args) > 0 && !all || complete == nil {
				return nil, then
			}
			ctx, cancel := context.WithTimeout(context.Background(), completeWithin)
			defer cancel()
			return complete(ctx, prefix), none
		}
	}
	fixed := func(values ...string) cobra.CompletionFunc {
		return cobra.FixedCompletions(values, none)
	}
	for path, function := range map[string]cobra.CompletionFunc{
		"account show":        words(t.completeAddress, false, none),
		"account password":    words(t.completeAddress, false, none),
		"account delete":      words(t.completeAddress, false, none),
		"account list":        words(t.completeDomain, false, none),
		"account move":        words(t.completeAddress, false, none),
		"store verify":        words(t.completeAddress, false, none),
		"store repair":        words(t.completeAddress, false, none),
		"store renumber":      words(t.completeAddress, false, none),
		"mailbox list":        words(t.completeAddress, false, none),
		"mailbox show":        words(t.completeAddress, false, none),
		"mailbox restore":     words(t.completeAddress, false, none),
		"mailbox acl show":    words(t.completeAddress, false, none),
		"mailbox acl set":     words(t.completeAddress, false, none),
		"mailbox acl delete":  words(t.completeAddress, false, none),
		"mailbox public list": words(t.completeDomain, false, none),
		"alias delete":        words(t.completeAlias, false, none),
		"alias list":          words(t.completeDomain, false, none),
		"forward add":         words(t.completeAddress, false, none),
		"forward delete":      words(t.completeAddress, false, none),
		"forward list":        words(t.completeDomain, false, none),
		"domain admin add":    words(t.completeDomain, false, none),
		"domain admin remove": words(t.completeDomain, false, none),
		"domain admin list":   words(t.completeDomain, false, none),
		"server show":         words(t.completeServer, false, none),
		"server delete":       words(t.completeServer, false, none),
		"directory edit":      words(t.completeAddress, true, none),
		"directory apply":     words(nil, false, files),
		"directory export":    words(nil, false, files),
		"directory promote":   words(t.completeVault, false, none),
		"volume drain":        words(t.completeVolume, false, none),
		"volume close":        words(t.completeVolume, false, none),
		"volume activate":     words(t.completeVolume, false, none),
		"domain show":         words(t.completeDomain, false, none),
		"domain delete":       words(t.completeDomain, false, none),
		"import":              words(t.completeAddress, false, files),
		"export":              words(t.completeAddress, false, files),
		"adopt run":           words(t.completeAddress, false, files),
		"adopt finish":        words(t.completeAddress, false, none),
		"queue show":          words(t.completeEntry, false, none),
		"queue retry":         words(t.completeEntry, true, none),
		"queue delete":        words(t.completeEntry, true, none),
		"account suspend":     words(t.completeAddress, false, none),
		"account resume":      words(t.completeAddress, false, none),
		"account close":       words(t.completeAddress, false, none),
		"account logout":      words(t.completeAddress, false, none),
		"app-password add":    words(t.completeAddress, false, none),
		"app-password list":   words(t.completeAddress, false, none),
		"app-password remove": words(t.completeAddress, false, none),
		"logins":              words(t.completeAddress, false, none),
		"token-key add":       words(t.completeServer, false, none),
		"token-key remove":    words(t.completeServer, false, none),
		"token-key sign":      words(t.completeServer, false, none),
	} {
		if cmd, _, err := root.Find(strings.Fields(path)); err == nil {
			cmd.ValidArgsFunction = function
		}
	}
	for _, flag := range []struct {
		path, name string
		function   cobra.CompletionFunc
	}{
		{"domain add", "volume", words(t.completeVolume, true, none)},
		{"account move", "to", words(t.completeVolume, true, none)},
		{"volume drain", "to", words(t.completeVolume, true, none)},
		{"store repair", "volume", words(t.completeVolume, true, none)},
		{"store renumber", "volume", words(t.completeVolume, true, none)},
		{"directory backup", "from", words(t.completeVault, true, none)},
		{"directory search", "scope", fixed("base", "one", "sub")},
		{"server add", "role", fixed("switch", "box", "vault", "lb", "webmail", "provision")},
		{"store verify", "volume", words(t.completeVolume, true, none)},
		{"domain add", "catch-all", words(t.completeAddress, true, none)},
		{"import", "format", fixed("auto", "mboxo", "mboxrd", "git")},
		{"export", "format", fixed("maildir", "mbox")},
		{"adopt run", "server", fixed("dovecot", "courier", "none")},
	} {
		if cmd, _, err := root.Find(strings.Fields(flag.path)); err == nil {
			_ = cmd.RegisterFlagCompletionFunc(flag.name, flag.function) // it fails only for a flag that is not there
		}
	}
}

// errEnough ends a search that found enough.
var errEnough = errors.New("enough")

// completeBy searches the directory for values of an attribute that begin with prefix.
func (t *tool) completeBy(ctx context.Context, class, attribute, prefix string) []string {
	c, err := t.load()
	if err != nil {
		return nil
	}
	var all []string
	_ = c.withDirectory(ctx, func(a *dirclient.Admin) error { // what is there until it fails is good
		filter := "(&(objectClass=" + class + ")(" + attribute + "=" + escapeFilter(prefix) + "*))"
		return a.Search(ctx, a.Suffix(), dirclient.ScopeSub, filter, []string{attribute}, func(e dirclient.Entry) error {
			for _, at := range e.Attributes {
				for _, value := range at.Values {
					if strings.HasPrefix(value, prefix) {
						all = append(all, printable(value))
					}
				}
			}
			if len(all) >= completeMost {
				return errEnough
			}
			return nil
		})
	})
	return all
}

// escapeFilter escapes a value for a search filter (RFC 4515 §3).
func escapeFilter(value string) string {
	return strings.NewReplacer(`\`, `\5c`, `*`, `\2a`, `(`, `\28`, `)`, `\29`, "\x00", `\00`).Replace(value)
}

func (t *tool) completeAddress(ctx context.Context, prefix string) []string {
	return t.completeBy(ctx, "shoalAccount", "mail", prefix)
}

func (t *tool) completeDomain(ctx context.Context, prefix string) []string {
	return t.completeBy(ctx, "shoalDomain", "associatedDomain", prefix)
}

func (t *tool) completeVolume(ctx context.Context, prefix string) []string {
	return t.completeBy(ctx, "shoalVolume", "cn", prefix)
}

func (t *tool) completeAlias(ctx context.Context, prefix string) []string {
	return t.completeBy(ctx, "shoalAlias", "mailLocalAddress", prefix)
}

func (t *tool) completeServer(ctx context.Context, prefix string) []string {
	return t.completeBy(ctx, "shoalServer", "cn", prefix)
}

// completeEntry proposes the oldest entries of the queue.
func (t *tool) completeEntry(ctx context.Context, prefix string) []string {
	s, err := t.switches(ctx)
	if err != nil {
		return nil
	}
	defer s.close()
	found := make([][]string, len(s.servers))
	s.each(s.servers, func(i int, address string) error {
		var page struct {
			Entries []struct{ ID, From string }
		}
		err := s.call(ctx, http.MethodGet, address, "/v1/queue?skip=0&limit=100", &page)
		for _, e := range page.Entries {
			if strings.HasPrefix(e.ID, prefix) {
				found[i] = append(found[i], e.ID+"\tfrom <"+printable(e.From)+">")
			}
		}
		return err
	})
	var all []string
	for _, ids := range found {
		all = append(all, ids...)
	}
	return all
}
