package sieve

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"shoal/daemons/internal/mailaddr"
	"shoal/daemons/internal/message"
)

// Host answers what scripts ask about the account. Names of mailboxes are UTF-8.
type Host interface {
	// MailboxExists says whether messages can be stored there.
	MailboxExists(ctx context.Context, name string) (bool, error)
	// MailboxIDExists says whether there is a mailbox of this MAILBOXID (RFC 8474).
	MailboxIDExists(ctx context.Context, id string) (bool, error)
	// SpecialUse says whether a mailbox (name "": any) has each of the attributes.
	SpecialUse(ctx context.Context, name string, uses []string) (bool, error)
	// Claim says whether a Mark of this key was recorded and is still alive. If not, the key belongs to this run until its
	// end: of two runs at the same time, wherever, one is told false at most. An error: that cannot be decided now.
	Claim(ctx context.Context, key string) (seen bool, err error)
}

// Env is the message and what surrounds it. Message, Now and Host are required.
type Env struct {
	Message io.ReaderAt
	Size    int64

	From mailaddr.Address // envelope sender; null for bounces
	To   mailaddr.Address // envelope recipient, with its subaddress

	Owner      mailaddr.Address   // the account's primary address
	Addresses  []mailaddr.Address // all of the account's addresses
	Separators string             // between user and detail of a subaddress
	Now        time.Time          // its zone is the default of date tests

	// Spam is how likely spam the message is, 0 to 100; negative: not tested. Virus is 1 (none) to 5 (certain)
	// as in RFC 5235 §3; 0: not tested.
	Spam  int
	Virus int

	// Environment holds further items of RFC 5183: remote-host, remote-ip, host, domain, version.
	Environment map[string]string

	Host Host
	// Load gives a script for include (RFC 6609): one of the account's own, or a global one.
	// The error errors.Is ErrNoScript when there is none.
	Load func(ctx context.Context, name string, global bool) (*Script, error)

	Limits Limits
}

// ErrNoScript says that a script to be included does not exist.
var ErrNoScript = errors.New("no such script")

// Limits bound a run. Fields that are zero stand for their defaults.
type Limits struct {
	Steps         int // statements, tests and comparisons; long strings count more
	Actions       int // actions in all
	Redirects     int
	Notifications int
	Includes      int   // nesting
	Edits         int   // header fields added or removed
	VariableBytes int   // one variable
	Variables     int   // in all
	BodyBytes     int64 // looked at in one body test, of all parts together
	HeaderBytes   int64 // of the message's header; what follows is not seen
	MinVacation   time.Duration
	MaxVacation   time.Duration
	MaxDuplicate  time.Duration
}

// DefaultLimits are those that Run uses where a field is zero.
func DefaultLimits() Limits {
	return Limits{
		Steps: 100_000, Actions: 32, Redirects: 4, Notifications: 4, Includes: 10, Edits: 64,
		VariableBytes: 4000, Variables: 128, BodyBytes: 1 << 20, HeaderBytes: 256 << 10,
		MinVacation: time.Hour, MaxVacation: 90 * 24 * time.Hour, MaxDuplicate: 30 * 24 * time.Hour,
	}
}

func (l Limits) filled() Limits {
	d := DefaultLimits()
	fill := func(v *int, d int) {
		if *v == 0 {
			*v = d
		}
	}
	fill(&l.Steps, d.Steps)
	fill(&l.Actions, d.Actions)
	fill(&l.Redirects, d.Redirects)
	fill(&l.Notifications, d.Notifications)
	fill(&l.Includes, d.Includes)
	fill(&l.Edits, d.Edits)
	fill(&l.VariableBytes, d.VariableBytes)
	fill(&l.Variables, d.Variables)
	if l.BodyBytes == 0 {
		l.BodyBytes = d.BodyBytes
	}
	if l.HeaderBytes == 0 {
		l.HeaderBytes = d.HeaderBytes
	}
	if l.MinVacation == 0 {
		l.MinVacation = d.MinVacation
	}
	if l.MaxVacation == 0 {
		l.MaxVacation = d.MaxVacation
	}
	if l.MaxDuplicate == 0 {
		l.MaxDuplicate = d.MaxDuplicate
	}
	return l
}

// RuntimeError is why a script failed while it ran. The message is kept.
type RuntimeError struct {
	Script string
	Err    error
}

func (e *RuntimeError) Error() string {
	if e.Script == "" {
		return "sieve: " + e.Err.Error()
	}
	return fmt.Sprintf("sieve: script %s: %v", e.Script, e.Err)
}

func (e *RuntimeError) Unwrap() error { return e.Err }

// Run runs scripts one after the other over a message: each next one only if the message is still to be kept after
// the one before, so that a provider's script can stand before the account's own, and another behind it. With no
// script, or when none of them decides otherwise, the message is kept.
//
// After an error the Outcome keeps the message and does nothing else; it is never nil.
func Run(ctx context.Context, env *Env, scripts ...*Script) (*Outcome, error) {
	r := &run{ctx: ctx, env: env, lim: env.Limits.filled(), once: map[string]bool{}, globals: map[string]string{}}
	kept := &FileInto{}
	for _, s := range scripts {
		var err error
		if kept, err = r.script(s, kept.Flags); err != nil {
			return &Outcome{Actions: []Action{&FileInto{}}, Notes: r.out.Notes}, &RuntimeError{s.name, err}
		}
		if kept == nil {
			break
		}
	}
	if kept != nil {
		r.store(kept)
	}
	return &r.out, nil
}

// run is one Run.
type run struct {
	ctx   context.Context
	env   *Env
	lim   Limits
	steps int
	out   Outcome

	root     *message.Part // nil until it is needed
	header   []field       // nil until it is needed
	bodyAt   int64
	texts    []string // what body tests without :raw and :content look at; nil: not read yet
	edits    int
	version  *Edited // the header as it is now; nil: not made since the last edit
	vacation bool
	reject   *Reject
	counts   struct{ redirects, notifications int }

	globals map[string]string // of all scripts: global.*
	once    map[string]bool   // scripts included
	stack   []string          // of includes

	scope
}

// scope is what belongs to one script.
type scope struct {
	name     string
	vars     map[string]string
	shared   map[string]bool // variables that are names of global ones
	matches  []string
	flags    []string // the internal variable of RFC 5232
	implicit bool     // the implicit keep is still on
	kept     *FileInto
	loop     []*message.Part // parts of the foreverypart blocks that run
}

// script runs one script and returns how the message is to be kept after it; nil: it is not.
func (r *run) script(s *Script, flags []string) (*FileInto, error) {
	r.scope = newScope(s.name, flags)
	r.implicit, r.vacation = true, false
	if err := r.exec(s.body); err != nil && !errors.Is(err, errStop) && !errors.Is(err, errReturn) {
		return nil, err
	}
	if r.kept == nil && r.implicit {
		r.kept = &FileInto{Flags: r.flags, Edited: r.edited()}
	}
	if r.reject != nil && (r.kept != nil || slices.ContainsFunc(r.out.Actions, beside)) { // RFC 5429 §2.1.2, §2.2.2
		return nil, errors.New("a message cannot be rejected and kept, filed, sent on or answered as well")
	}
	return r.kept, nil
}

// beside says whether an action cannot stand beside reject. Notify can stand beside all (RFC 5435 §3.8).
func beside(a Action) bool {
	switch a.(type) {
	case *Reject, *Notify:
		return false
	}
	return true
}

func newScope(name string, flags []string) scope {
	return scope{name: name, vars: map[string]string{}, shared: map[string]bool{}, flags: flags}
}

// Ends of a script that are no failure.
var (
	errStop   = errors.New("stop")
	errReturn = errors.New("return")
)

// errBreak leaves foreverypart blocks.
type errBreak struct{ name string }

func (errBreak) Error() string { return "break" }

func (r *run) exec(list []stmt) error {
	for _, s := range list {
		if err := s(r); err != nil {
			return err
		}
	}
	return nil
}

// spend counts work.
func (r *run) spend(n int) error {
	if r.steps += n; r.steps > r.lim.Steps {
		return fmt.Errorf("it does too much: more than %d steps", r.lim.Steps)
	}
	return r.ctx.Err()
}

// expand gives the value of a string.
func (r *run) expand(t *text) (string, error) {
	if t == nil || t.constant() {
		if t == nil {
			return "", nil
		}
		return t.lit, nil
	}
	var b strings.Builder
	for _, s := range t.segs {
		switch {
		case s.name == "#":
			if s.match < len(r.matches) {
				b.WriteString(r.matches[s.match])
			}
		case s.name != "":
			b.WriteString(r.get(s.name))
		default:
			b.WriteString(s.lit)
		}
		if b.Len() > maxExpanded {
			return "", fmt.Errorf("a string becomes longer than %s", size(maxExpanded))
		}
	}
	return b.String(), r.spend(1 + b.Len()/256)
}

// maxExpanded bounds a string with its variables in place.
const maxExpanded = 64 << 10

func (r *run) expandAll(list []*text) ([]string, error) {
	out := make([]string, len(list))
	for i, t := range list {
		var err error
		if out[i], err = r.expand(t); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func (r *run) get(name string) string {
	if v, ok := strings.CutPrefix(name, "global."); ok {
		return r.globals[v]
	}
	if r.shared[name] {
		return r.globals[name]
	}
	return r.vars[name]
}

func (r *run) set(name, value string) error {
	if len(value) > r.lim.VariableBytes { // RFC 5229 §6: cut, at a character
		value = value[:r.lim.VariableBytes]
		for !utf8.ValidString(value) {
			value = value[:len(value)-1]
		}
	}
	vars := r.vars
	if v, ok := strings.CutPrefix(name, "global."); ok {
		name, vars = v, r.globals
	} else if r.shared[name] {
		vars = r.globals
	}
	if _, ok := vars[name]; !ok && len(r.vars)+len(r.globals) >= r.lim.Variables {
		return fmt.Errorf("more than %d variables", r.lim.Variables)
	}
	vars[name] = value
	return r.spend(1 + len(value)/256)
}

// note adds a line for the log.
func (r *run) note(format string, args ...any) {
	if len(r.out.Notes) < 16 {
		r.out.Notes = append(r.out.Notes, fmt.Sprintf(format, args...))
	}
}

// act adds an action.
func (r *run) act(a Action) error {
	if len(r.out.Actions) >= r.lim.Actions {
		return fmt.Errorf("more than %d actions", r.lim.Actions)
	}
	r.out.Actions = append(r.out.Actions, a)
	return nil
}

// store adds a FileInto, or changes the flags of the one for the same place: a message is stored once in a mailbox
// (RFC 5228 §2.10.3). The bound on actions does not hold for it: keeping comes last and always succeeds.
func (r *run) store(f *FileInto) {
	for _, a := range r.out.Actions {
		if old, ok := a.(*FileInto); ok && same(old.Place, f.Place) {
			for _, flag := range f.Flags {
				old.Flags = addFlag(old.Flags, flag)
			}
			old.Create = old.Create || f.Create
			return
		}
	}
	r.out.Actions = append(r.out.Actions, f)
}

func same(a, b Place) bool {
	inbox := func(p Place) string {
		if p.Mailbox == "" || strings.EqualFold(p.Mailbox, "INBOX") {
			return ""
		}
		return p.Mailbox
	}
	return a.MailboxID == b.MailboxID && strings.EqualFold(a.SpecialUse, b.SpecialUse) && inbox(a) == inbox(b)
}
