package imapsession

import (
	"context"
	"slices"
	"testing"

	"shoal/daemons/internal/imapwire"
)

// Commands that look at the content of messages tell how far they are: SEARCH with its goal, SORT and THREAD without one, because
// they look at some messages twice. The numbers ascend.
func TestProgress(t *testing.T) {
	r := newRig(t, func(o *Options) { o.Limits.ProgressInterval = 1 })
	for range 17 {
		r.deliver("alice", "INBOX", "Subject: a\r\n\r\nx\r\n")
	}
	c := r.connect("alice")
	c.ok("SELECT INBOX")
	for _, test := range []struct {
		command string
		want    []string
	}{
		{"SEARCH RETURN (COUNT) BODY x", []string{
			`* OK [INPROGRESS ("t3" 9 17)] Still at work`,
			`* OK [INPROGRESS ("t3" 17 17)] Still at work`,
			`* ESEARCH (TAG "t3") COUNT 17`}},
		{"SORT RETURN (COUNT) (SUBJECT) UTF-8 BODY x", []string{
			`* OK [INPROGRESS ("t4" 9 NIL)] Still at work`,
			`* OK [INPROGRESS ("t4" 17 NIL)] Still at work`,
			`* OK [INPROGRESS ("t4" 25 NIL)] Still at work`,
			`* OK [INPROGRESS ("t4" 33 NIL)] Still at work`,
			`* ESEARCH (TAG "t4") COUNT 17`}},
		{"THREAD ORDEREDSUBJECT UTF-8 ALL", []string{
			`* OK [INPROGRESS ("t5" 9 NIL)] Still at work`,
			`* OK [INPROGRESS ("t5" 17 NIL)] Still at work`,
			"* THREAD (1 (2)(3)(4)(5)(6)(7)(8)(9)(10)(11)(12)(13)(14)(15)(16)(17))"}},
		{"SEARCH RETURN (COUNT) ALL", []string{`* ESEARCH (TAG "t6") COUNT 17`}}, // nothing is looked at
	} {
		if got := c.ok(test.command); !slices.Equal(got, test.want) {
			t.Errorf("%s: %q", test.command, got)
		}
	}
	c.send("a]b SEARCH BODY x\r\n")
	c.expect("* OK [INPROGRESS (NIL 9 17)] ")
}

// told is a writer that hands on what is written.
type told chan string

func (w told) Write(p []byte) (int, error) {
	w <- string(p)
	return len(p), nil
}

// While a large commit is waited for, the client hears that the server is alive; after stop nothing more is written.
func TestProgressOfACommit(t *testing.T) {
	r := newRig(t, func(o *Options) { o.Limits.ProgressInterval = 1 })
	s, w := &session{srv: r.srv}, make(told)
	s.enc = *imapwire.NewEncoder(w)
	c := &call{tag: "a1", ctx: context.Background()}
	stop := s.keepTelling(c, manyMessages)
	for range 2 {
		if got := <-w; got != "* OK [INPROGRESS (\"a1\" NIL NIL)] Still at work\r\n" {
			t.Errorf("told %q", got)
		}
	}
	go func() {
		for range w { // what was on its way
		}
	}()
	stop()
	stop()
	close(w)
	s.keepTelling(c, manyMessages-1)()
}
