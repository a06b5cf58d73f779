package kit

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/coreos/go-systemd/v22/journal"
)

func TestLogFormats(t *testing.T) {
	for format, want := range map[string]string{"text": "level=INFO msg=starting", "json": `"msg":"starting"`} {
		var b bytes.Buffer
		slog.New(newHandler(format, slog.LevelInfo, &b)).Info("starting")
		if !strings.Contains(b.String(), want) {
			t.Errorf("%s: %s", format, b.String())
		}
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	if got := logFormat("auto", null); got != "json" {
		t.Errorf("auto into a file: %s", got)
	}
	if got := logFormat("text", null); got != "text" {
		t.Errorf("text: %s", got)
	}
}

func TestJournalHandler(t *testing.T) {
	type record struct {
		text     string
		priority journal.Priority
		fields   map[string]string
	}
	var got []record
	var failure error
	var fallback bytes.Buffer
	var level slog.LevelVar
	h := &journalHandler{level: &level, fallback: slog.NewJSONHandler(&fallback, nil),
		send: func(text string, p journal.Priority, fields map[string]string) error {
			got = append(got, record{text, p, fields})
			return failure
		}}
	log := slog.New(h).With("server", "box1")
	log.Debug("not this")
	log.Info("delivered", "trace", "abc", "size", 5, "subject", "two words", slog.Group("peer", "role", "switch"))
	log.WithGroup("g").With("a", 1).Error("bad", "b", errors.New("x"))
	want := []record{
		{`delivered server=box1 trace=abc size=5 subject="two words" peer.role=switch`, journal.PriInfo, map[string]string{
			"SHOAL_SERVER": "box1", "SHOAL_TRACE": "abc", "SHOAL_SIZE": "5", "SHOAL_SUBJECT": "two words", "SHOAL_PEER_ROLE": "switch",
		}},
		{`bad server=box1 g.a=1 g.b=x`, journal.PriErr, map[string]string{"SHOAL_SERVER": "box1", "SHOAL_G_A": "1", "SHOAL_G_B": "x"}},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v\nwanted %+v", got, want)
	}
	failure = errors.New("no journal")
	log.Warn("lost?")
	if !strings.Contains(fallback.String(), `"msg":"lost?","server":"box1"`) {
		t.Errorf("fallback %q", fallback.String())
	}
	if !h.Enabled(context.Background(), slog.LevelInfo) || h.Enabled(context.Background(), slog.LevelDebug) {
		t.Error("level not heeded")
	}
	if got := fieldName(strings.Repeat("é.x", 40)); len(got) != 64 || strings.Trim(got, "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_") != "" {
		t.Errorf("field name %q", got)
	}
}
