package imapsession

import (
	"context"
	"errors"
	"time"

	"shoal/daemons/internal/imapwire"
	"shoal/daemons/internal/mailstore"
)

// command is one row of the table of commands.
type command struct {
	run    func(*session, *call) error
	states state
	// numbers says that the command may name messages by sequence number, so that no EXPUNGE may be
	// sent before it is answered. Its form with UID has no such limit.
	numbers bool
	// messages says that the command names or answers messages by sequence number, and has another form with UID.
	messages bool
	// store says that the command may wait for the store or the directory: it gets a context with a
	// time limit.
	store bool
	// quiet says that the command ends without telling the news of the selected mailbox.
	quiet bool
	// capability is what CAPABILITY says when the command is there; the base has none. Commands and
	// capabilities are compared by a test.
	capability string
}

// newCommands makes the table. "UID x" stands for the form of x that takes UIDs.
func newCommands() map[string]*command {
	return map[string]*command{
		"CAPABILITY":   {run: cmdCapability, states: stateAny, quiet: true},
		"NOOP":         {run: cmdNoop, states: stateAny, store: true},
		"LOGOUT":       {run: cmdLogout, states: stateAny, quiet: true},
		"ID":           {run: cmdID, states: stateAny, quiet: true, capability: "ID"},
		"STARTTLS":     {run: cmdStartTLS, states: stateNew, quiet: true, capability: "STARTTLS"},
		"LOGIN":        {run: cmdLogin, states: stateNew, store: true, quiet: true},
		"AUTHENTICATE": {run: cmdAuthenticate, states: stateNew, store: true, quiet: true, capability: "SASL-IR"},

		"COMPRESS":       {run: cmdCompress, states: stateAuthed, quiet: true, capability: "COMPRESS=DEFLATE"},
		"ENABLE":         {run: cmdEnable, states: stateAuthed, store: true, quiet: true, capability: "ENABLE"},
		"SELECT":         {run: cmdSelect, states: stateAuthed, store: true, quiet: true},
		"EXAMINE":        {run: cmdSelect, states: stateAuthed, store: true, quiet: true},
		"CREATE":         {run: cmdCreate, states: stateAuthed, store: true},
		"DELETE":         {run: cmdDelete, states: stateAuthed, store: true},
		"RENAME":         {run: cmdRename, states: stateAuthed, store: true},
		"SUBSCRIBE":      {run: cmdSubscribe, states: stateAuthed, store: true},
		"UNSUBSCRIBE":    {run: cmdSubscribe, states: stateAuthed, store: true},
		"LIST":           {run: cmdList, states: stateAuthed, store: true, capability: "CHILDREN"},
		"LSUB":           {run: cmdLsub, states: stateAuthed, store: true},
		"NAMESPACE":      {run: cmdNamespace, states: stateAuthed, capability: "NAMESPACE"},
		"STATUS":         {run: cmdStatus, states: stateAuthed, store: true, capability: "STATUS=SIZE"},
		"APPEND":         {run: cmdAppend, states: stateAuthed, capability: "UIDPLUS"},
		"UNAUTHENTICATE": {run: cmdUnauthenticate, states: stateAuthed, quiet: true, capability: "UNAUTHENTICATE"},
		"GETQUOTA":       {run: cmdGetQuota, states: stateAuthed, store: true, capability: "QUOTA"},
		"SETACL":         {run: cmdSetACL, states: stateAuthed, store: true, capability: "ACL"},
		"DELETEACL":      {run: cmdDeleteACL, states: stateAuthed, store: true, capability: "ACL"},
		"GETACL":         {run: cmdGetACL, states: stateAuthed, store: true, capability: "ACL"},
		"LISTRIGHTS":     {run: cmdListRights, states: stateAuthed, store: true, capability: "RIGHTS=kxte"},
		"MYRIGHTS":       {run: cmdMyRights, states: stateAuthed, store: true, capability: "LIST-MYRIGHTS"},
		"GETMETADATA":    {run: cmdGetMetadata, states: stateAuthed, store: true, capability: "METADATA"},
		"SETMETADATA":    {run: cmdSetMetadata, states: stateAuthed, store: true, capability: "LIST-METADATA"},
		"GETQUOTAROOT":   {run: cmdGetQuotaRoot, states: stateAuthed, store: true, capability: "QUOTA"},
		"IDLE":           {run: cmdIdle, states: stateAuthed, store: true, quiet: true, capability: "IDLE"},

		"RESETKEY":   {run: cmdResetKey, states: stateAuthed, store: true, capability: "URLAUTH"},
		"GENURLAUTH": {run: cmdGenURLAuth, states: stateAuthed, store: true, capability: "URLAUTH"},
		"URLFETCH":   {run: cmdURLFetch, states: stateAuthed, store: true, capability: "URLAUTH=BINARY"},
		"NOTIFY":     {run: cmdNotify, states: stateAuthed, store: true, capability: "NOTIFY"},

		"CHECK":       {run: cmdNoop, states: stateSelected, store: true},
		"CLOSE":       {run: cmdClose, states: stateSelected, store: true, quiet: true},
		"UNSELECT":    {run: cmdUnselect, states: stateSelected, quiet: true, capability: "UNSELECT"},
		"EXPUNGE":     {run: cmdExpunge, states: stateSelected, store: true},
		"UID EXPUNGE": {run: cmdExpunge, states: stateSelected, store: true, capability: "UIDPLUS"},
		"SEARCH":      {run: cmdSearch, states: stateSelected, store: true, messages: true, numbers: true, capability: "ESEARCH"},
		"UID SEARCH":  {run: cmdSearch, states: stateSelected, store: true},
		"SORT":        {run: cmdSort, states: stateSelected, store: true, messages: true, numbers: true, capability: "SORT"},
		"UID SORT":    {run: cmdSort, states: stateSelected, store: true, capability: "ESORT"},
		"THREAD":      {run: cmdThread, states: stateSelected, store: true, messages: true, numbers: true, capability: "THREAD=REFERENCES"},
		"UID THREAD":  {run: cmdThread, states: stateSelected, store: true, capability: "THREAD=ORDEREDSUBJECT"},
		"FETCH":       {run: cmdFetch, states: stateSelected, store: true, messages: true, numbers: true},
		"UID FETCH":   {run: cmdFetch, states: stateSelected, store: true},
		"STORE":       {run: cmdStore, states: stateSelected, store: true, messages: true, numbers: true, capability: "CONDSTORE"},
		"UID STORE":   {run: cmdStore, states: stateSelected, store: true, capability: "CONDSTORE"},
		"COPY":        {run: cmdCopy, states: stateSelected, store: true, messages: true, capability: "UIDPLUS"},
		"UID COPY":    {run: cmdCopy, states: stateSelected, store: true, capability: "UIDPLUS"},
		"MOVE":        {run: cmdCopy, states: stateSelected, store: true, messages: true, capability: "MOVE"},
		"REPLACE":     {run: cmdReplace, states: stateSelected, messages: true, capability: "REPLACE"},
		"UID REPLACE": {run: cmdReplace, states: stateSelected, capability: "REPLACE"},
		"UID MOVE":    {run: cmdCopy, states: stateSelected, store: true, capability: "MOVE"},
	}
}

// call is one command in progress.
type call struct {
	*command
	ctx  context.Context
	tag  string
	name string // as in the table, "UID FETCH" for instance
	uid  bool   // the form with UID

	code string // response code of the tagged OK, without brackets
	text string // its text; empty: "<name> completed"

	// silent and said tell sync what the client knows already: a change that it takes for granted, and
	// messages whose flags it has been told as of the present state.
	ask    bool // the news of annotations are to be read freshly
	silent *silentStore
	said   mailstore.UIDSet
	// For progress: messages looked at, of how many (0: not known), and when to tell about it again.
	steps, goal uint64
	report      time.Duration

	lowest uint32 // of the messages worked on, when these are not all (RFC 9738)

	own mailstore.UIDSet // messages that the command has changed, added or removed
}

// ok sets code and text of the tagged OK.
func (c *call) ok(code, text string) { c.code, c.text = code, text }

// serveCommand reads a command, executes it and answers it.
func (s *session) serveCommand() error {
	tag, name, err := s.dec.Begin()
	if err != nil {
		return s.refuse(tag, "", err)
	}
	c := &call{tag: tag, name: name, ctx: s.srv.ctx}
	if name == "UID" {
		c.uid = true
		if err = s.dec.SP(); err == nil {
			name, err = s.dec.Keyword()
		}
		if err != nil {
			return s.refuse(tag, "", err)
		}
		c.name = "UID " + name
	}
	c.command = s.srv.commands[c.name]
	switch {
	case c.command == nil:
		return s.refuse(tag, "", badf("Unknown command"))
	case c.states&s.state == 0:
		return s.refuse(tag, c.name, s.outOfState(c.command))
	case c.messages && s.uidOnly:
		return s.refuse(tag, c.name, errUIDRequired)
	}
	if s.state == stateNew {
		if s.commands++; int(s.commands) > s.srv.limits().PreLoginCommands {
			s.bye("Too many commands without a login")
			return errOver
		}
	}
	if c.store {
		var cancel context.CancelFunc
		c.ctx, cancel = s.context()
		defer cancel()
	}
	if s.box != nil && s.box.shared != nil && c.states == stateSelected && name != "UNSELECT" && name != "CLOSE" {
		if err := s.checkRights(c.ctx, false); errors.Is(err, errRevoked) {
			s.bye(unsharedText)
			return errOver
		} else if err != nil {
			return s.refuse(tag, c.name, err)
		}
	}
	err = c.run(s, c)
	if s.box != nil && !c.quiet && tellsNews(err) {
		if failed := s.sync(c); failed != nil {
			return failed
		}
	}
	if s.news != nil && !s.idling && tellsNews(err) {
		if failed := s.tellNotes(c.ctx, c.ask); failed != nil && err == nil {
			err = failed
		}
	}
	if err != nil && !errors.Is(err, errAnswered) {
		return s.refuse(tag, c.name, err)
	}
	s.bad = 0
	s.srv.m.commands.WithLabelValues(c.name, "ok").Inc()
	if err != nil || s.idling { // IDLE is answered when it ends
		return s.enc.Err()
	}
	s.tagged(c)
	return s.enc.Err()
}

// tellsNews reports whether a command that ended with err is the occasion to tell what is new: it was
// understood, and the session goes on.
func tellsNews(err error) bool {
	var lost *imapwire.Fatal
	if err == nil || errors.As(err, &lost) || errors.Is(err, errOver) {
		return err == nil
	}
	answer, _ := answerTo(err)
	return !answer.bad
}

// errUIDRequired refuses sequence numbers after ENABLE UIDONLY (RFC 9586 §3.1).
var errUIDRequired error = &status{bad: true, code: "UIDREQUIRED", text: "Messages are named by UID only, after ENABLE UIDONLY"}

func (s *session) outOfState(c *command) error {
	switch {
	case s.state == stateNew:
		return badf("Log in first")
	case c.states == stateNew:
		return badf("Already logged in")
	}
	return badf("No mailbox is selected")
}

// tagged writes the tagged OK of c.
func (s *session) tagged(c *call) {
	s.tellLimit(c)
	s.enc.Raw(c.tag).Raw(" OK ")
	if c.code != "" {
		s.enc.Byte('[').Raw(c.code).Raw("] ")
	}
	if c.text != "" {
		s.enc.Raw(c.text)
	} else {
		s.enc.Raw(c.name).Raw(" completed")
	}
	s.enc.CRLF()
}

// refuse answers a command that failed with err, after finding the end of the command in the stream.
// name is empty when there is no such command. It returns an error when the session cannot go on.
func (s *session) refuse(tag, name string, err error) error {
	var lost *imapwire.Fatal
	if errors.As(err, &lost) || errors.Is(err, errOver) {
		return err
	}
	if s.enc.Err() != nil {
		return s.enc.Err()
	}
	answer, report := answerTo(err)
	if report {
		s.log().Error("command failed", "command", name, "error", err)
	}
	if err := s.dec.Discard(); err != nil {
		return err
	}
	result, word := "no", " NO "
	if answer.bad {
		result, word = "bad", " BAD "
	}
	if name != "" {
		s.srv.m.commands.WithLabelValues(name, result).Inc()
	} else {
		s.srv.m.commands.WithLabelValues("unknown", result).Inc()
	}
	if tag == "" {
		tag = "*"
	}
	s.enc.Raw(tag).Raw(word)
	if answer.code != "" {
		s.enc.Byte('[').Raw(answer.code).Raw("] ")
	}
	s.enc.Raw(answer.text).CRLF()
	if errors.Is(err, mailstore.ErrMoved) {
		// The session holds the old place, for good.
		s.bye(movedText)
		return errOver
	}
	if !answer.bad {
		s.bad = 0
		return s.enc.Err()
	}
	if s.bad++; int(s.bad) >= s.srv.limits().BadCommands {
		s.bye("Too many bad commands in a row")
		return errOver
	}
	return s.enc.Err()
}
