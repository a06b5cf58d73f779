package shoalctl

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"shoal/daemons/internal/dirclient"
	"shoal/daemons/internal/pki"
	"shoal/daemons/internal/queue"
)

// errNoSuchEntry: no switch has the entry of that id.
var errNoSuchEntry = errors.New("no switch has such an entry: it is delivered, deleted, or was never there")

// queueEntry is an entry of the queue and the switch that works at it.
type queueEntry struct {
	Server string `json:"server"`
	queue.Info
}

// queueDetails is an entry with its message's header.
type queueDetails struct {
	queueEntry
	Headers string `json:"headers,omitempty"`
}

// queueView is the answer of queue list.
type queueView struct {
	Entries []queueEntry `json:"entries"`
	Total   int          `json:"total"` // of all switches that answered, before filters
	Silent  []silence    `json:"unreachable,omitempty"`
}

// queuePage is how many entries are asked for at once.
const queuePage = 500

func (t *tool) cmdQueue() *cobra.Command {
	return group("queue", "List, show, retry and delete what waits for delivery, on all switches",
		t.cmdQueueList(), t.cmdQueueShow(), t.cmdQueueRetry(), t.cmdQueueDelete())
}

// queueFilter chooses entries.
type queueFilter struct {
	from, to string
	older    string
	before   time.Time // of older; zero: any
}

func (f *queueFilter) register(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.from, "from", "", "only from this sender, @domain, or <> for bounces")
	cmd.Flags().StringVar(&f.to, "to", "", "only to this recipient, or @domain")
	cmd.Flags().StringVar(&f.older, "older", "", "only what was accepted longer ago than this: 30m, 12h, 3d")
}

func (f *queueFilter) set() bool { return f.from != "" || f.to != "" || f.older != "" }

func (f *queueFilter) parse(now time.Time) error {
	if f.older == "" {
		return nil
	}
	age, err := parseAge(f.older)
	if err != nil {
		return usageError{fmt.Errorf("--older: %w", err)}
	}
	f.before = now.Add(-age)
	return nil
}

// parseAge reads a duration as Go writes it, or a number of days as "3d".
func parseAge(s string) (time.Duration, error) {
	if days, ok := strings.CutSuffix(s, "d"); ok {
		n, err := strconv.Atoi(days)
		if err == nil && n >= 0 && n <= 10000 {
			return time.Duration(n) * 24 * time.Hour, nil
		}
	} else if d, err := time.ParseDuration(s); err == nil && d >= 0 {
		return d, nil
	}
	return 0, fmt.Errorf("%q is no time span: write for example 30m, 12h or 3d", s)
}

func (f *queueFilter) match(e queueEntry) bool {
	if f.from != "" && !matchAddress(f.from, e.From) {
		return false
	}
	if f.to != "" && !slices.ContainsFunc(e.Recipients, func(r queue.Recipient) bool { return matchAddress(f.to, r.Address) }) {
		return false
	}
	return f.before.IsZero() || e.Accepted.Before(f.before)
}

// matchAddress: "<>" is the empty address, "@domain" every address there.
func matchAddress(pattern, address string) bool {
	if pattern == "<>" {
		return address == ""
	}
	if strings.HasPrefix(pattern, "@") {
		i := strings.LastIndexByte(address, '@')
		return i >= 0 && strings.EqualFold(address[i:], pattern)
	}
	return strings.EqualFold(pattern, address)
}

// switches is all that the queue's commands need: the switches and how to ask them.
type switches struct {
	*control
	servers []dirclient.Server
}

func (t *tool) switches(ctx context.Context) (*switches, error) {
	c, err := t.load()
	if err != nil {
		return nil, err
	}
	servers, err := t.servers(ctx, c)
	if err != nil {
		return nil, err
	}
	k, err := c.control()
	if err != nil {
		return nil, err
	}
	servers = slices.DeleteFunc(servers, func(s dirclient.Server) bool { return s.Role != pki.RoleSwitch })
	if len(servers) == 0 {
		return nil, errors.New("the directory lists no switch")
	}
	return &switches{k, servers}, nil
}

// list collects the entries of all switches that answer, the oldest first.
func (s *switches) list(ctx context.Context, f *queueFilter) *queueView {
	found := make([][]queueEntry, len(s.servers))
	totals := make([]int, len(s.servers))
	silent := s.each(s.servers, func(i int, address string) error {
		seen := map[string]bool{} // entries move between pages while others are delivered
		for skip := 0; ; skip += queuePage {
			var page struct {
				Server  string       `json:"server"`
				Total   int          `json:"total"`
				Entries []queue.Info `json:"entries"`
			}
			if err := s.call(ctx, http.MethodGet, address, fmt.Sprintf("/v1/queue?skip=%d&limit=%d", skip, queuePage), &page); err != nil {
				return err
			}
			totals[i] = page.Total
			for _, info := range page.Entries {
				e := queueEntry{s.servers[i].Name, info}
				if !seen[e.ID] && f.match(e) {
					found[i] = append(found[i], e)
				}
				seen[e.ID] = true
			}
			if skip+queuePage >= page.Total {
				return nil
			}
		}
	})
	v := &queueView{Entries: slices.Concat(found...), Silent: silent}
	if v.Entries == nil {
		v.Entries = []queueEntry{}
	}
	for _, n := range totals {
		v.Total += n
	}
	slices.SortStableFunc(v.Entries, func(a, b queueEntry) int {
		return cmp.Or(a.Accepted.Compare(b.Accepted), strings.Compare(a.ID, b.ID))
	})
	return v
}

// find runs a command on the entry id wherever it is: on the switch that took it first, if that still runs, then
// on the others. Another one may have adopted it.
func (s *switches) find(ctx context.Context, method, id, suffix string, answer any) (server string, err error) {
	origin, _, _ := strings.Cut(id, ".")
	ordered := slices.Clone(s.servers)
	slices.SortStableFunc(ordered, func(a, b dirclient.Server) int {
		return cmp.Compare(btoi(a.Name != origin), btoi(b.Name != origin))
	})
	var silent []silence
	for _, server := range ordered {
		addresses := server.Addresses[dirclient.ServiceControl]
		if len(addresses) == 0 {
			silent = append(silent, silence{server.Name, "the directory lists no control address for it"})
			continue
		}
		err := s.call(ctx, method, addresses[0], "/v1/queue/"+url.PathEscape(id)+suffix, answer)
		var told *controlError
		switch {
		case err == nil:
			return server.Name, nil
		case notFound(err):
		case errors.As(err, &told):
			return server.Name, fmt.Errorf("%s: %s: %w", id, server.Name, err)
		default:
			silent = append(silent, silence{server.Name, err.Error()})
		}
	}
	if len(silent) > 0 {
		return "", fmt.Errorf("%s: no switch that answers has it; %w", id, silenceError(silent))
	}
	return "", fmt.Errorf("%s: %w", id, errNoSuchEntry)
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// silenceError names the servers that did not answer; nil when all did.
func silenceError(silent []silence) error {
	if len(silent) == 0 {
		return nil
	}
	texts := make([]string, len(silent))
	for i, s := range silent {
		texts[i] = s.Server + ": " + printable(s.Problem)
	}
	return fmt.Errorf("%w: %s", errUnreachable, strings.Join(texts, "; "))
}

func (t *tool) cmdQueueList() *cobra.Command {
	var f queueFilter
	var wide bool
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List what waits for delivery on all switches, the oldest first",
		Long: `List what waits for delivery on all switches, the oldest first. When a switch does not
answer, the entries of the others are shown and the exit code is 4.`,
		Example: `  shoalctl queue list
  shoalctl queue list --to @example.org --older 2h
  shoalctl queue list --json | jq -r '.entries[] | select(.attempts > 5) | .id'`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := f.parse(time.Now()); err != nil {
				return err
			}
			s, err := t.switches(cmd.Context())
			if err != nil {
				return err
			}
			defer s.close()
			v := s.list(cmd.Context(), &f)
			if err := t.show(v, func() { t.printQueue(v, wide, time.Now()) }); err != nil {
				return err
			}
			return silenceError(v.Silent)
		},
	}
	f.register(cmd)
	cmd.Flags().BoolVar(&wide, "wide", false, "do not shorten addresses and reasons")
	return cmd
}

func (t *tool) printQueue(v *queueView, wide bool, now time.Time) {
	if len(v.Entries) == 0 {
		t.say("nothing waits (%d entries in all)", v.Total)
		return
	}
	cut := cut
	if wide {
		cut = func(s string, _ int) string { return s }
	}
	rows := make([][]string, len(v.Entries))
	for i, e := range v.Entries {
		to := ""
		if len(e.Recipients) > 0 {
			to = cut(e.Recipients[0].Address, 24)
		}
		if n := len(e.Recipients); n > 1 {
			to += fmt.Sprintf(" +%d", n-1)
		}
		next := "now"
		switch {
		case e.Active:
			next = "under way"
		case e.Due.After(now):
			next = ageText(e.Due.Sub(now))
		}
		from := e.From
		if from == "" {
			from = "<>"
		}
		rows[i] = []string{e.ID, e.Server, ageText(now.Sub(e.Accepted)), bytesText(e.Size), cut(from, 24), to,
			strconv.Itoa(e.Attempts), next, cut(e.Reason, 40)}
	}
	t.table([]string{"ID", "SWITCH", "AGE", "SIZE", "FROM", "TO", "TRIES", "NEXT", "REASON"}, rows)
	if len(v.Entries) != v.Total {
		t.say("%d of %d entries", len(v.Entries), v.Total)
	}
}

// ageText writes a time span for people, in its largest unit or two.
func ageText(d time.Duration) string {
	switch {
	case d < 0:
		return "0s"
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 24*time.Hour:
		return fmt.Sprintf("%dh%02dm", int(d.Hours()), int(d.Minutes())%60)
	}
	return fmt.Sprintf("%dd%02dh", int(d.Hours())/24, int(d.Hours())%24)
}

func (t *tool) cmdQueueShow() *cobra.Command {
	return &cobra.Command{
		Use:     "show ID",
		Short:   "Show an entry of the queue and the header of its message",
		Example: "  shoalctl queue show switch1.f3k2jq8a.17.0",
		Args:    exactArgs("the entry's id"),
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := t.switches(cmd.Context())
			if err != nil {
				return err
			}
			defer s.close()
			var v queueDetails
			if v.Server, err = s.find(cmd.Context(), http.MethodGet, args[0], "", &v); err != nil {
				return err
			}
			return t.show(v, func() { t.printEntry(&v) })
		},
	}
}

func (t *tool) printEntry(v *queueDetails) {
	t.say("id        %s", printable(v.ID))
	t.say("switch    %s", v.Server)
	t.say("from      <%s>", printable(v.From))
	for _, r := range v.Recipients {
		via := ""
		if r.From != "" {
			via = ", forwarded from " + printable(r.From)
		}
		t.say("to        <%s>%s", printable(r.Address), via)
	}
	t.say("size      %s", bytesText(v.Size))
	t.say("accepted  %s", timeText(v.Accepted))
	t.say("given up  %s", timeText(v.Expires))
	if v.Active {
		t.say("next try  under way")
	} else {
		t.say("next try  %s", timeText(v.Due))
	}
	t.say("tries     %d", v.Attempts)
	t.say("reason    %s", orDash(v.Reason))
	t.say("trace     %s", orDash(v.Trace))
	if v.Headers != "" {
		t.say("")
		for line := range strings.Lines(v.Headers) {
			t.say("  %s", printable(strings.TrimRight(line, "\r\n")))
		}
	}
}

func timeText(at time.Time) string {
	if at.IsZero() {
		return "-"
	}
	return at.Local().Format("2006-01-02 15:04:05 -0700")
}

func (t *tool) cmdQueueRetry() *cobra.Command {
	var f queueFilter
	var all bool
	cmd := &cobra.Command{
		Use:   "retry ID... | --all | filters",
		Short: "Try to deliver entries of the queue now",
		Example: `  shoalctl queue retry switch1.f3k2jq8a.17.0
  shoalctl queue retry --to @example.org
  shoalctl queue retry --all`,
		RunE: func(cmd *cobra.Command, ids []string) error {
			if ways(len(ids) > 0, all, f.set()) != 1 {
				return usageError{errors.New("shoalctl queue retry needs ids, --all, or filters (--from, --to, --older)")}
			}
			if err := f.parse(time.Now()); err != nil {
				return err
			}
			s, err := t.switches(cmd.Context())
			if err != nil {
				return err
			}
			defer s.close()
			if all {
				silent := s.each(s.servers, func(_ int, address string) error {
					return s.call(cmd.Context(), http.MethodPost, address, "/v1/queue/retry", nil)
				})
				asked := len(s.servers) - len(silent)
				if err := t.show(map[string]any{"switches": asked, "unreachable": silent}, func() {
					t.say("%d of %d switches try all their entries now", asked, len(s.servers))
				}); err != nil {
					return err
				}
				return silenceError(silent)
			}
			return t.onEntries(cmd.Context(), s, ids, &f, "retried", func(id string) error {
				_, err := s.find(cmd.Context(), http.MethodPost, id, "/retry", nil)
				return err
			})
		},
	}
	f.register(cmd)
	cmd.Flags().BoolVar(&all, "all", false, "all entries of all switches")
	return cmd
}

func ways(given ...bool) int {
	n := 0
	for _, g := range given {
		n += btoi(g)
	}
	return n
}

func (t *tool) cmdQueueDelete() *cobra.Command {
	var f queueFilter
	var yes bool
	cmd := &cobra.Command{
		Use:   "delete ID... | filters",
		Short: "Delete entries of the queue: nobody gets the mail, nobody gets a bounce",
		Long: `Delete entries of the queue. The mail is gone: recipients do not get it and the sender is not
told. More than one entry is deleted only after a question, or with --yes.`,
		Example: `  shoalctl queue delete switch1.f3k2jq8a.17.0
  shoalctl queue delete --from spammer@example.test --yes`,
		RunE: func(cmd *cobra.Command, ids []string) error {
			if ways(len(ids) > 0, f.set()) != 1 {
				return usageError{errors.New("shoalctl queue delete needs ids or filters (--from, --to, --older)")}
			}
			if err := f.parse(time.Now()); err != nil {
				return err
			}
			s, err := t.switches(cmd.Context())
			if err != nil {
				return err
			}
			defer s.close()
			var silent []silence
			if f.set() {
				v := s.list(cmd.Context(), &f)
				silent = v.Silent
				for _, e := range v.Entries {
					ids = append(ids, e.ID)
				}
			}
			if (len(ids) > 1 || f.set() && len(ids) > 0) && !yes {
				if err := t.confirm(fmt.Sprintf("Delete %d entries? Nobody gets this mail, no sender is told. [y/N] ", len(ids))); err != nil {
					return err
				}
			}
			err = t.onEntries(cmd.Context(), s, ids, nil, "deleted", func(id string) error {
				_, err := s.find(cmd.Context(), http.MethodDelete, id, "", nil)
				return err
			})
			return errors.Join(err, silenceError(silent))
		},
	}
	f.register(cmd)
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	return cmd
}

// confirm asks on the terminal; without one it says how to answer beforehand.
func (t *tool) confirm(question string) error {
	f, ok := t.in.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return usageError{errors.New("there is no terminal to ask on: add --yes if that is meant")}
	}
	fmt.Fprint(t.err, question)
	line, err := bufio.NewReader(io.LimitReader(f, 100)).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	switch strings.ToLower(strings.TrimSpace(line)) {
	case "y", "yes":
		return nil
	}
	return errors.New("nothing was changed")
}

// entryFailure is an entry that a command failed for.
type entryFailure struct {
	ID     string `json:"id"`
	Reason string `json:"reason"`
}

// onEntries runs a command on the entries named or chosen by f, on all of them even when some fail.
func (t *tool) onEntries(ctx context.Context, s *switches, ids []string, f *queueFilter, done string, command func(id string) error) error {
	var silent []silence
	if f != nil && f.set() {
		v := s.list(ctx, f)
		silent = v.Silent
		for _, e := range v.Entries {
			ids = append(ids, e.ID)
		}
	}
	var errs []error
	failed := []entryFailure{}
	n := 0
	for _, id := range ids {
		if err := command(id); err != nil {
			errs = append(errs, err)
			failed = append(failed, entryFailure{id, err.Error()})
			continue
		}
		n++
	}
	if err := t.show(map[string]any{done: n, "failed": failed, "unreachable": silent}, func() { t.say("%d entries %s", n, done) }); err != nil {
		return err
	}
	return errors.Join(append(errs, silenceError(silent))...)
}
