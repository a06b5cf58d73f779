package sieve

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"
)

// What must not be done by scripts is refused while they run, and the message kept.
func TestLimits(t *testing.T) {
	for name, c := range map[string]struct {
		script string
		change func(*Limits)
		want   string
	}{
		"steps":     {`require "foreverypart"; foreverypart { foreverypart { keep; keep; keep; keep; } }`, func(l *Limits) { l.Steps = 30 }, "more than 30 steps"},
		"redirects": {`redirect "a@x.test"; redirect "b@x.test"; redirect "a@x.test"; redirect "c@x.test";`, func(l *Limits) { l.Redirects = 2 }, "more than 2 redirects"},
		"actions":   {`require "fileinto"; fileinto "a"; fileinto "b"; fileinto "c";`, func(l *Limits) { l.Actions = 2 }, "more than 2 actions"},
		"edits":     {`require "editheader"; addheader "A" "1"; addheader "A" "2";`, func(l *Limits) { l.Edits = 1 }, "more than 1 changes"},
		"variables": {`require "variables"; set "a" "1"; set "b" "1"; set "a" "2"; set "c" "1";`, func(l *Limits) { l.Variables = 2 }, "more than 2 variables"},
		"growth":    {`require "variables"; set "a" "` + strings.Repeat("x", 4000) + `"; if string "" "` + strings.Repeat("${a}", 20) + `" {}`, func(*Limits) {}, "longer than 64 KiB"},
		"notices":   {`require "enotify"; notify "mailto:a@x.test"; notify "mailto:b@x.test";`, func(l *Limits) { l.Notifications = 1 }, "more than 1 notifications"},
		"include":   {`require "include"; include "self";`, func(*Limits) {}, "includes itself"},
		"patterns":  {`if header :matches "X-Long" "` + strings.Repeat("*a", 100) + strings.Repeat("?", 800) + `b" {}`, func(l *Limits) { l.Steps = 20000 }, "more than 20000 steps"},
	} {
		e := env(t, "X-Long: "+strings.Repeat("a", 20000)+"\n"+plainMail)
		e.Load = func(context.Context, string, bool) (*Script, error) { return compile(t, c.script), nil }
		c.change(&e.Limits)
		o, err := Run(t.Context(), e, compile(t, c.script))
		var failed *RuntimeError
		if !errors.As(err, &failed) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v", name, err)
		}
		if got := describe(o); got != "store INBOX" {
			t.Errorf("%s: %s", name, got)
		}
	}
}

// Nesting of includes and of foreverypart ends, and the message is kept.
func TestNestingEnds(t *testing.T) {
	deep := strings.Repeat("foreverypart { ", maxLoops+1) + "discard;" + strings.Repeat(" }", maxLoops+1)
	inner := "\nhello\n"
	for i := range maxLoops + 2 { // as many parts in each other
		inner = fmt.Sprintf("Content-Type: multipart/mixed; boundary=b%d\n\n--b%d\n%s\n--b%d--\n", i, i, inner, i)
	}
	if o, err := Run(t.Context(), env(t, "From: a@b.test\n"+inner), compile(t, `require "foreverypart"; `+deep)); describe(o) != "store INBOX" || err == nil || !strings.Contains(err.Error(), "nested more than") {
		t.Errorf("%s %v", describe(o), err)
	}
	for depth, ok := range map[int]bool{DefaultLimits().Includes: true, DefaultLimits().Includes + 1: false} {
		e := env(t, plainMail)
		e.Load = func(_ context.Context, name string, _ bool) (*Script, error) {
			if n, _ := strconv.Atoi(name); n < depth {
				return compile(t, fmt.Sprintf(`require "include"; include "%d";`, n+1)), nil
			}
			return compile(t, `discard;`), nil
		}
		o, err := Run(t.Context(), e, compile(t, `require "include"; include "1";`))
		if ok != (err == nil) || ok != (describe(o) == "") {
			t.Errorf("%d deep: %s %v", depth, describe(o), err)
		}
	}
}
