package kit

import (
	"context"
	"io"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/journal"
	"golang.org/x/term"

	"shoal/daemons/internal/conf"
)

// newLogger makes the log of a daemon on stderr; its level can change while it is in use.
func newLogger(c conf.Log, level *slog.LevelVar, stderr *os.File, daemon, server string) *slog.Logger {
	setLevel(level, c.Level)
	return slog.New(newHandler(logFormat(c.Format, stderr), level, stderr)).With("daemon", daemon, "server", server)
}

// logFormat decides what "auto" means here.
func logFormat(format string, stderr *os.File) string {
	if format != "auto" && format != "" {
		return format
	}
	if ok, err := journal.StderrIsJournalStream(); ok && err == nil {
		return "journal"
	}
	if term.IsTerminal(int(stderr.Fd())) {
		return "text"
	}
	return "json"
}

func newHandler(format string, level slog.Leveler, w io.Writer) slog.Handler {
	opts := &slog.HandlerOptions{Level: level}
	switch format {
	case "text":
		return slog.NewTextHandler(w, opts)
	case "journal":
		return &journalHandler{level: level, send: journal.Send, fallback: slog.NewJSONHandler(w, opts)}
	}
	return slog.NewJSONHandler(w, opts)
}

func setLevel(v *slog.LevelVar, name string) {
	level := slog.LevelInfo // also for "", when there is no log block
	if name != "" {
		// The names of the configuration are among those that slog knows.
		_ = level.UnmarshalText([]byte(name))
	}
	v.Set(level)
}

// journalHandler sends records to systemd's journal in its own protocol. MESSAGE is the text with its
// attributes, for people; each attribute is a field of its own too, SHOAL_ and its name in capitals, so
// that "journalctl SHOAL_TRACE=..." follows one message through all daemons of a machine.
type journalHandler struct {
	level    slog.Leveler
	send     func(message string, priority journal.Priority, fields map[string]string) error
	fallback slog.Handler // when the journal does not take a record
	attrs    []slog.Attr
	group    string // prefix of attribute names
}

func (h *journalHandler) Enabled(_ context.Context, l slog.Level) bool { return l >= h.level.Level() }

func (h *journalHandler) Handle(ctx context.Context, r slog.Record) error {
	var text strings.Builder
	text.WriteString(r.Message)
	fields := map[string]string{}
	for _, a := range h.attrs {
		journalAttr(&text, fields, "", a)
	}
	r.Attrs(func(a slog.Attr) bool {
		journalAttr(&text, fields, h.group, a)
		return true
	})
	if err := h.send(text.String(), priority(r.Level), fields); err != nil {
		return h.fallback.Handle(ctx, r)
	}
	return nil
}

func (h *journalHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	next := *h
	next.attrs = append([]slog.Attr{}, h.attrs...)
	for _, a := range attrs {
		a.Key = h.group + a.Key
		next.attrs = append(next.attrs, a)
	}
	next.fallback = h.fallback.WithAttrs(attrs)
	return &next
}

func (h *journalHandler) WithGroup(name string) slog.Handler {
	if name == "" {
		return h
	}
	next := *h
	next.group = h.group + name + "."
	next.fallback = h.fallback.WithGroup(name)
	return &next
}

// journalAttr adds one attribute to the text and to the fields.
func journalAttr(text *strings.Builder, fields map[string]string, prefix string, a slog.Attr) {
	v := a.Value.Resolve()
	if v.Kind() == slog.KindGroup {
		if a.Key != "" {
			prefix += a.Key + "."
		}
		for _, sub := range v.Group() {
			journalAttr(text, fields, prefix, sub)
		}
		return
	}
	if a.Key == "" {
		return
	}
	s := v.String()
	if v.Kind() == slog.KindTime {
		s = v.Time().Format(time.RFC3339Nano)
	}
	fields[fieldName(prefix+a.Key)] = s
	text.WriteString(" " + prefix + a.Key + "=")
	if s == "" || strings.ContainsAny(s, " \"=\n\t") {
		s = strconv.Quote(s)
	}
	text.WriteString(s)
}

// fieldName makes a journal field name: capitals, digits and underscores, at most 64.
func fieldName(key string) string {
	name := strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z':
			return r - 'a' + 'A'
		case r >= 'A' && r <= 'Z' || r >= '0' && r <= '9':
			return r
		}
		return '_'
	}, "SHOAL_"+key)
	return name[:min(len(name), 64)]
}

func priority(l slog.Level) journal.Priority {
	switch {
	case l >= slog.LevelError:
		return journal.PriErr
	case l >= slog.LevelWarn:
		return journal.PriWarning
	case l >= slog.LevelInfo:
		return journal.PriInfo
	}
	return journal.PriDebug
}
