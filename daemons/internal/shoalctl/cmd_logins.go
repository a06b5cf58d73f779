package shoalctl

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"shoal/daemons/internal/authn"
	"shoal/daemons/internal/dirclient"
	"shoal/daemons/internal/pki"
)

// loginsView is the answer of logins.
type loginsView struct {
	Events []authn.Event `json:"events"`
	Silent []silence     `json:"unreachable,omitempty"`
}

func (t *tool) cmdLogins() *cobra.Command {
	var remote, result, since string
	var limit int
	cmd := &cobra.Command{
		Use:   "logins [ADDRESS]",
		Short: "Show the last logins and login failures, of all boxes and switches",
		Long: `Show the last logins, refused logins and ended sessions, the newest first, as the boxes and
switches have them in memory. What is older, or from before a restart, is in their logs
(event=login).`,
		Example: `  shoalctl logins carol@example.test
  shoalctl logins --result bad --since 1h --json`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 1 {
				return usageError{fmt.Errorf("%s takes one address at most: %s", cmd.CommandPath(), cmd.UseLine())}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			q := url.Values{"limit": {strconv.Itoa(limit)}, "remote": {remote}, "result": {result}}
			if len(args) == 1 {
				q.Set("account", args[0])
			}
			if since != "" {
				age, err := parseAge(since)
				if err != nil {
					return usageError{fmt.Errorf("--since: %w", err)}
				}
				q.Set("since", time.Now().Add(-age).UTC().Format(time.RFC3339))
			}
			v, err := t.logins(cmd.Context(), q, limit)
			if err != nil {
				return err
			}
			return t.show(v, func() {
				rows := make([][]string, len(v.Events))
				for i, e := range v.Events {
					who := e.Account
					if who == "" {
						who = e.User
					}
					rows[i] = []string{e.Time.Format(time.RFC3339), e.Result, printable(who), e.Service, e.Mechanism, e.Remote, e.Credential, printable(e.Name), e.Server}
				}
				t.table([]string{"TIME", "RESULT", "ACCOUNT", "SERVICE", "MECHANISM", "FROM", "BY", "NAME", "SERVER"}, rows)
				for _, s := range v.Silent {
					t.say("%s does not answer: %s", s.Server, printable(s.Problem))
				}
			})
		},
	}
	cmd.Flags().StringVar(&remote, "from", "", "only from this client address")
	cmd.Flags().StringVar(&result, "result", "", "only these: ok, bad, scope, suspended, throttled, unavailable, revoked")
	cmd.Flags().StringVar(&since, "since", "", "only what is not older than this: 30m, 12h, 3d")
	cmd.Flags().IntVar(&limit, "limit", 50, "how many at most")
	return cmd
}

// logins asks all boxes and switches.
func (t *tool) logins(ctx context.Context, q url.Values, limit int) (*loginsView, error) {
	c, err := t.load()
	if err != nil {
		return nil, err
	}
	k, err := c.control()
	if err != nil {
		return nil, err
	}
	defer k.close()
	servers, err := t.servers(ctx, c)
	if err != nil {
		return nil, err
	}
	servers = slices.DeleteFunc(servers, func(s dirclient.Server) bool { return s.Role != pki.RoleBox && s.Role != pki.RoleSwitch })
	found := make([][]authn.Event, len(servers))
	v := &loginsView{Events: []authn.Event{}}
	v.Silent = k.each(servers, func(i int, address string) error {
		var answer struct{ Events []authn.Event }
		err := k.call(ctx, http.MethodGet, address, "/v1/logins?"+q.Encode(), &answer)
		found[i] = answer.Events
		return err
	})
	v.Events = append(v.Events, slices.Concat(found...)...)
	slices.SortStableFunc(v.Events, func(a, b authn.Event) int { return b.Time.Compare(a.Time) })
	v.Events = v.Events[:min(len(v.Events), max(limit, 0))]
	return v, nil
}
