package imapsession

import (
	"slices"
	"strings"
	"testing"
)

// Every capability that a command stands for is announced, and nothing is announced twice.
func TestCapabilitiesMatchCommands(t *testing.T) {
	fresh := strings.Fields(capabilitiesNew + " STARTTLS AUTH=PLAIN AUTH=LOGIN AUTH=OAUTHBEARER AUTH=XOAUTH2")
	authed := strings.Fields(capabilitiesAuthed)
	for name, c := range newCommands() {
		if c.capability == "" {
			continue
		}
		list := authed
		if c.states == stateNew {
			list = fresh
		}
		if !slices.Contains(list, c.capability) {
			t.Errorf("%s belongs to %s, which is not announced", name, c.capability)
		}
	}
	for _, list := range [][]string{fresh, authed} {
		seen := map[string]bool{}
		for _, c := range list {
			if seen[c] {
				t.Errorf("%s is announced twice", c)
			}
			seen[c] = true
		}
	}
}

// Commands that may name messages by number have a form with UID that is not restricted, and every
// command that works on a mailbox or an account has a time limit.
func TestCommandTable(t *testing.T) {
	table := newCommands()
	for name, c := range table {
		if c.numbers && (table["UID "+name] == nil || table["UID "+name].numbers) {
			t.Errorf("%s forbids EXPUNGE and has no UID form that does not", name)
		}
		if strings.HasPrefix(name, "UID ") && c.states != stateSelected {
			t.Errorf("%s works without a mailbox", name)
		}
		if c.states == 0 || c.run == nil {
			t.Errorf("%s is not complete", name)
		}
	}
}
