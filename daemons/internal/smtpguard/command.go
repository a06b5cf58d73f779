package smtpguard

import (
	"bytes"
	"encoding/base64"
	"errors"
	"net"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"shoal/daemons/internal/mailaddr"
)

type verb string

const (
	verbHELO, verbEHLO, verbLHLO    verb = "HELO", "EHLO", "LHLO"
	verbMAIL, verbRCPT              verb = "MAIL", "RCPT"
	verbDATA, verbBDAT              verb = "DATA", "BDAT"
	verbRSET, verbNOOP, verbQUIT    verb = "RSET", "NOOP", "QUIT"
	verbVRFY, verbEXPN, verbHELP    verb = "VRFY", "EXPN", "HELP"
	verbAUTH, verbSTARTTLS          verb = "AUTH", "STARTTLS"
	maxJunk                              = 100     // commands without a message that are free
	maxOverflow                          = 1000    // RCPT commands beyond the limit that are answered
	maxSkip                              = 1 << 20 // octets of a line that is too long
	discardable                          = 64 << 20
	tooManyErrors                        = "421 4.7.0 Too many errors, closing the connection"
	badSequence, badSyntax, badPath      = "503 5.5.1 ", "501 5.5.4 ", "501 5.1.3 "
)

// commands is what the guard lets through or answers. A command that is not last in a group must wait for
// its reply before the client goes on (RFC 2920 §3.1, RFC 3207 §4, RFC 4954 §4).
var commands = map[verb]struct {
	handle func(c *Conn, arg string)
	last   bool // nothing may follow before the reply
	junk   bool // makes no progress
}{
	verbHELO:     {handle: (*Conn).hello, last: true, junk: true},
	verbEHLO:     {handle: (*Conn).hello, last: true, junk: true},
	verbLHLO:     {handle: (*Conn).hello, last: true, junk: true},
	verbMAIL:     {handle: (*Conn).mail, junk: true},
	verbRCPT:     {handle: (*Conn).rcpt},
	verbDATA:     {handle: (*Conn).data, last: true},
	verbBDAT:     {handle: (*Conn).bdat},
	verbRSET:     {handle: (*Conn).pass, junk: true},
	verbNOOP:     {handle: (*Conn).pass, junk: true},
	verbQUIT:     {handle: (*Conn).pass},
	verbVRFY:     {handle: (*Conn).pass, junk: true},
	verbEXPN:     {handle: (*Conn).pass, junk: true},
	verbHELP:     {handle: (*Conn).help, junk: true},
	verbAUTH:     {handle: (*Conn).auth, last: true},
	verbSTARTTLS: {handle: (*Conn).starttls, last: true, junk: true},
}

// next settles the last command, reads the next line, and either answers it or puts it into feed.
func (c *Conn) next() error {
	c.settle()
	if c.closing {
		c.hangUp()
		return net.ErrClosed
	}
	if c.mode == modeAuth {
		return c.authResponse()
	}
	if c.errors >= c.g.o.MaxErrors {
		c.violation("too_many_errors")
		c.reply(tooManyErrors)
		c.hangUp()
		return net.ErrClosed
	}
	c.delay()
	line := c.pending
	if c.pending = ""; line == "" {
		raw, err := c.readLine(MaxCommandLine)
		if err != nil {
			return c.lineError(err)
		}
		line = strings.TrimRight(string(raw), " \t")
	}
	c.dispatch(line)
	return nil
}

// settle draws the conclusions from the reply to the command before.
func (c *Conn) settle() {
	if c.mode == modeAuth {
		return
	}
	ok := c.last/100 == 2
	switch c.command {
	case verbMAIL:
		if !ok {
			c.tx = transaction{}
		}
	case verbRCPT:
		if ok {
			c.tx.rcpts++
		}
	case verbDATA, verbBDAT:
		c.endMessage(ok && c.quota == allReplies)
	case verbRSET, verbHELO, verbEHLO, verbLHLO:
		c.tx = transaction{}
	}
	c.mode, c.command, c.quota = modeCommand, "", allReplies
}

func (c *Conn) endMessage(ok bool) {
	c.tx = transaction{}
	if ok {
		c.errors, c.junk = 0, 0
	}
}

// delay slows a client down that makes errors, for a bounded time and never while shutting down.
func (c *Conn) delay() {
	if c.g.o.ErrorDelay <= 0 || c.errors <= c.g.o.MaxErrors/2 {
		return
	}
	t := time.NewTimer(c.g.o.ErrorDelay)
	defer t.Stop()
	select {
	case <-t.C:
	case <-c.g.draining:
	}
}

var (
	errBareLF  = errors.New("line ended by a bare LF")
	errBareCR  = errors.New("bare CR in a line")
	errTooLong = errors.New("line too long")
)

// readLine reads one line of at most max octets and returns it without its CRLF. The line is valid until
// the next read.
func (c *Conn) readLine(max int) ([]byte, error) {
	scanned := 0
	for {
		w := c.in[c.r:c.w]
		if i := bytes.IndexByte(w[scanned:], '\n'); i >= 0 {
			i += scanned
			switch {
			case i == 0 || w[i-1] != '\r':
				return nil, errBareLF
			case bytes.IndexByte(w[:i-1], '\r') >= 0:
				return nil, errBareCR
			case i+1 > max:
				return nil, errTooLong
			}
			c.r += i + 1
			return w[:i-1], nil
		}
		scanned = len(w)
		if scanned >= max && max < MaxAuthLine && c.g.o.Auth && c.tls != nil && strings.EqualFold(string(w[:5]), "AUTH ") {
			max = MaxAuthLine // RFC 4954 §4: the initial response
		}
		if scanned >= max {
			return nil, errTooLong
		}
		if scanned == len(c.in) {
			c.in = append(make([]byte, 0, max), w...)[:max]
			c.release()
			c.release = func() {}
			c.r, c.w = 0, scanned
		}
		if err := c.fill(); err != nil {
			return nil, err
		}
	}
}

// skipLine throws a line away that is too long, and reports whether it came to its end in good order.
func (c *Conn) skipLine() bool {
	cr := false // the octet before was CR
	for skipped := 0; skipped < maxSkip; {
		w := c.in[c.r:c.w]
		i := bytes.IndexByte(w, '\n')
		t := w
		if i >= 0 {
			t = w[:i]
		}
		if cr && len(t) > 0 || bytes.IndexByte(bytes.TrimSuffix(t, []byte("\r")), '\r') >= 0 {
			return false
		}
		if len(t) > 0 {
			cr = t[len(t)-1] == '\r'
		}
		if i >= 0 {
			c.r += i + 1
			return cr
		}
		skipped += len(w)
		c.r = c.w
		if c.fill() != nil {
			return false
		}
	}
	return false
}

// lineError answers a line that could not be read. After a bare CR or LF the connection ends: where a line
// ends is no longer agreed upon.
func (c *Conn) lineError(err error) error {
	switch {
	case errors.Is(err, errDraining):
		c.reply("421 4.3.2 Shutting down, try again")
	case errors.Is(err, errEnded):
		c.reply(*c.farewell.Load())
	case errors.Is(err, errBareLF):
		c.violation("bare_lf_command")
		c.reply("500 5.5.2 A line must end with CR LF, not with LF alone; closing the connection")
	case errors.Is(err, errBareCR):
		c.violation("bare_cr_command")
		c.reply("500 5.5.2 A CR stands alone in the line; closing the connection")
	case errors.Is(err, errTooLong):
		c.violation("line_too_long")
		if c.skipLine() {
			c.deny("500 5.5.6 Line too long")
			return nil
		}
		c.reply("500 5.5.6 Line too long; closing the connection")
	default:
		return err // io.EOF or net.ErrClosed
	}
	c.hangUp()
	return net.ErrClosed
}

func (c *Conn) dispatch(line string) {
	if !utf8.ValidString(line) || strings.ContainsFunc(line, isControl) {
		c.violation("control_character")
		c.reply("500 5.5.2 The line holds a control character or is not UTF-8")
		return
	}
	name, arg, _ := strings.Cut(line, " ")
	v := verb(strings.ToUpper(name))
	switch v {
	case "GET", "POST", "PUT", "OPTIONS", "CONNECT", "HOST:": // a browser made to talk to us
		c.violation("http")
		c.reply("421 4.7.0 This is not a web server")
		return
	}
	cmd, ok := commands[v]
	if !ok {
		c.reply("500 5.5.2 Unknown command")
		return
	}
	if cmd.last && c.r < c.w {
		c.violation("pipelining")
		c.command = ""
		c.reply("554 5.5.0 You must wait for the reply to " + string(v) + "; closing the connection")
		c.closing = true
		return
	}
	if cmd.junk {
		if c.junk++; c.junk > maxJunk {
			c.errors++
		}
	}
	if c.needHello {
		switch v {
		case verbHELO, verbEHLO, verbLHLO, verbQUIT, verbNOOP, verbRSET:
		default:
			c.reply(badSequence + "Say EHLO again, now that the connection is encrypted")
			return
		}
	}
	c.command = v
	cmd.handle(c, strings.TrimLeft(arg, " "))
}

func isControl(r rune) bool { return r < 0x20 || r >= 0x7f && r <= 0x9f }

// send hands a line over to go-smtp.
func (c *Conn) send(parts ...string) {
	c.line = c.line[:0]
	for i, p := range parts {
		if i > 0 && p != "" {
			c.line = append(c.line, ' ')
		}
		c.line = append(c.line, p...)
	}
	c.line = append(c.line, "\r\n"...)
	c.feed = c.line
}

func (c *Conn) pass(arg string) { c.send(string(c.command), arg) }

// deny answers a command that go-smtp does not get to see.
func (c *Conn) deny(reply string) {
	c.command = ""
	c.reply(reply)
}

func (c *Conn) help(string) {
	c.deny("214 2.0.0 See RFC 5321; the answer to EHLO lists the extensions")
}

// hello: RFC 5321 §4.1.1.1. Any printable word is taken for a name: half of the world's clients have
// none that is right.
func (c *Conn) hello(arg string) {
	name, _, _ := strings.Cut(arg, " ")
	if name == "" || len(name) > 255 || strings.ContainsFunc(name, func(r rune) bool { return r > 0x7e || strings.ContainsRune(`<>()"\;,`, r) }) {
		c.deny(badSyntax + string(c.command) + " needs the client's name")
		return
	}
	c.helo, c.extended, c.needHello = name, c.command != verbHELO, false
	c.send(string(c.command), name)
}

// mail: RFC 5321 §4.1.1.2.
func (c *Conn) mail(arg string) {
	rest, ok := cutFold(arg, "FROM:")
	switch {
	case c.helo == "":
		c.deny(badSequence + "Say EHLO first")
	case c.g.o.RequireTLS && c.tls == nil:
		c.deny("530 5.7.0 Say STARTTLS first")
	case c.tx.open:
		c.deny(badSequence + "A transaction is under way already")
	case !ok:
		c.deny(badSyntax + "Write MAIL FROM:<address>")
	default:
		a, params, err := mailaddr.ParseReversePath(strings.TrimLeft(rest, " "))
		if err != nil {
			c.deny(badPath + sentence(err))
			return
		}
		tx := transaction{open: true, end: time.Now().Add(c.g.o.TransactionTimeout)}
		params, reply := c.mailParams(params, &tx)
		if reply == "" && !tx.utf8 && !a.IsASCII() {
			reply = "553 5.6.7 An address like this needs the SMTPUTF8 parameter"
		}
		if reply != "" {
			c.deny(reply)
			return
		}
		c.tx = tx
		c.send("MAIL FROM:"+a.Path(), params)
	}
}

// rcpt: RFC 5321 §4.1.1.3. "<postmaster>" becomes postmaster at the server's own name, because go-smtp
// knows no address without a domain.
func (c *Conn) rcpt(arg string) {
	rest, ok := cutFold(arg, "TO:")
	switch {
	case !c.tx.open:
		c.deny(badSequence + "Say MAIL first")
	case !ok:
		c.deny(badSyntax + "Write RCPT TO:<address>")
	case c.tx.offered >= c.g.o.MaxRecipients+maxOverflow:
		c.violation("too_many_recipients")
		c.deny("421 4.5.3 Too many recipients, closing the connection")
	default:
		c.tx.offered++
		a, params, err := mailaddr.ParseForwardPath(strings.TrimLeft(rest, " "))
		if err != nil {
			c.deny(badPath + sentence(err))
			return
		}
		params, reply := checkParams(params, nil)
		if reply == "" && !c.tx.utf8 && !a.IsASCII() {
			reply = "553 5.6.7 An address like this needs the SMTPUTF8 parameter"
		}
		if reply != "" {
			c.deny(reply)
			return
		}
		if a.Domain == "" {
			a.Domain = c.g.o.Hostname
		}
		c.send("RCPT TO:"+a.Path(), params)
	}
}

// mailParams checks the parameters of MAIL and answers what go-smtp would read wrongly: SIZE (RFC 1870 §4)
// beyond 32 bits, and BODY=BINARYMIME (RFC 3030 §3), whose chunks go-smtp does not get to see: it learns 8BITMIME.
func (c *Conn) mailParams(s string, tx *transaction) (params, reply string) {
	params, reply = checkParams(s, func(key, value string) string {
		switch key {
		case "SMTPUTF8":
			tx.utf8 = true
		case "BODY":
			if tx.binary = strings.EqualFold(value, "BINARYMIME"); tx.binary && !c.g.o.Binary {
				return "504 5.5.4 BINARYMIME is not offered here"
			}
		case "SIZE":
			if value == "" || strings.Trim(value, "0123456789") != "" || len(value) > 20 {
				return badSyntax + "SIZE needs a number"
			}
			if n, err := strconv.ParseInt(value, 10, 64); err != nil || n > c.g.o.MaxMessageBytes {
				return "552 5.3.4 The message is larger than " + strconv.FormatInt(c.g.o.MaxMessageBytes, 10) + " bytes"
			}
		}
		return ""
	})
	if tx.binary {
		fields := strings.Fields(params)
		for i, f := range fields {
			if key, _, _ := strings.Cut(f, "="); strings.EqualFold(key, "BODY") {
				fields[i] = "BODY=8BITMIME"
			}
		}
		params = strings.Join(fields, " ")
	}
	return params, reply
}

// checkParams holds the parameters of MAIL and RCPT to their syntax, once each:
//
//	param   = keyword [ "=" value ]
//	keyword = (ALPHA / DIGIT) *(ALPHA / DIGIT / "-")
//	value   = 1*(any character but "=", SP and controls)
func checkParams(s string, look func(key, value string) string) (params, reply string) {
	fields := strings.Fields(s)
	seen := make(map[string]bool, len(fields))
	for _, f := range fields {
		key, value, has := strings.Cut(f, "=")
		key = strings.ToUpper(key)
		if key == "" || key[0] == '-' || strings.Trim(key, "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-") != "" ||
			has && value == "" || strings.Contains(value, "=") {
			return "", badSyntax + "A parameter is malformed"
		}
		if seen[key] {
			return "", badSyntax + "The parameter " + key + " is given twice"
		}
		seen[key] = true
		if look != nil {
			if reply := look(key, value); reply != "" {
				return "", reply
			}
		}
	}
	return strings.Join(fields, " "), ""
}

// data: RFC 5321 §4.1.1.4; RFC 2033 §4.2 wants 503 without a recipient, RFC 3030 §3 for BODY=BINARYMIME.
func (c *Conn) data(arg string) {
	switch {
	case arg != "":
		c.deny(badSyntax + "DATA has no arguments")
	case c.tx.rcpts == 0:
		c.deny(badSequence + "There is no recipient that was accepted")
	case c.tx.binary:
		c.deny(badSequence + "A message of BODY=BINARYMIME is sent with BDAT")
	default:
		c.send("DATA")
	}
}

// bdat: RFC 3030 §2. go-smtp is told DATA; see chunks.
func (c *Conn) bdat(arg string) {
	switch {
	case !c.parseChunk(arg):
		c.command = ""
	case c.tx.rcpts == 0:
		if c.discardChunk() == nil { // the chunk follows the command whatever the answer is
			c.deny(badSequence + "There is no recipient that was accepted")
		}
	default:
		c.send("DATA")
	}
}

// auth: RFC 4954 §4. Outside TLS and where it is not offered, go-smtp is not asked.
func (c *Conn) auth(arg string) {
	fields := strings.Fields(arg)
	switch {
	case !c.g.o.Auth:
		c.deny("502 5.5.1 AUTH is not offered here")
	case c.helo == "":
		c.deny(badSequence + "Say EHLO first")
	case c.tls == nil:
		c.deny("538 5.7.11 Encryption is required: say STARTTLS first")
	case c.tx.open:
		c.deny(badSequence + "AUTH cannot come within a transaction")
	case len(fields) == 0 || len(fields) > 2:
		c.deny(badSyntax + "Write AUTH mechanism [initial-response]")
	case len(fields) == 2 && fields[1] != "=" && !isBase64(fields[1]):
		c.deny("501 5.5.2 The initial response is not base64")
	default:
		c.send("AUTH", fields[0], strings.Join(fields[1:], ""))
	}
}

// authResponse hands over the client's answer to a challenge. What is not base64 cancels the exchange,
// which go-smtp answers with the 501 that RFC 4954 §4 asks for.
func (c *Conn) authResponse() error {
	c.mode = modeCommand
	line, err := c.readLine(MaxAuthLine)
	if errors.Is(err, errTooLong) && c.skipLine() {
		c.violation("line_too_long")
		line, err = []byte("*"), nil
	}
	if err != nil {
		return c.lineError(err)
	}
	if s := string(line); s == "*" || isBase64(s) {
		c.send(s)
	} else {
		c.send("*")
	}
	return nil
}

func isBase64(s string) bool {
	_, err := base64.StdEncoding.DecodeString(s)
	return err == nil
}

// starttls: RFC 3207 §4. The guard encrypts, go-smtp is told to forget the transaction, and the client
// has to say EHLO again.
func (c *Conn) starttls(arg string) {
	switch {
	case arg != "":
		c.deny(badSyntax + "STARTTLS has no arguments")
	case c.g.o.TLS == nil:
		c.deny("502 5.5.1 STARTTLS is not offered here")
	case c.tls != nil:
		c.deny(badSequence + "The connection is encrypted already")
	case c.tx.open:
		c.deny(badSequence + "STARTTLS cannot come within a transaction")
	default:
		c.deny("220 2.0.0 Go ahead")
		if c.flush() != nil || !c.handshake() {
			c.kill()
			return
		}
		c.r, c.w = 0, 0
		c.needHello, c.swallow = true, true
		c.send("RSET")
	}
}

func cutFold(s, prefix string) (string, bool) {
	if len(s) < len(prefix) || !strings.EqualFold(s[:len(prefix)], prefix) {
		return "", false
	}
	return s[len(prefix):], true
}

func sentence(err error) string {
	var se *mailaddr.SyntaxError
	if errors.As(err, &se) {
		return "Bad address: " + se.Reason
	}
	return "Bad address"
}
