package shoalctl

import (
	"bufio"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/emersion/go-imap/v2"

	"shoal/daemons/internal/imapwire"
)

// Bounds of the import's connection.
const (
	imapTimeout    = 2 * time.Minute // for each answer
	maxAnswerLine  = 64 << 10
	windowMessages = 128 // that may be under way without an answer
	windowBytes    = 8 << 20
)

// appender writes messages to an account over IMAP, many commands under way at once: the server works while the
// next messages are on the wire (RFC 9051 §5.5; literals without waiting by RFC 7888). Answers arrive in the order
// of the commands.
type appender struct {
	conn      net.Conn
	r         *bufio.Reader
	w         *bufio.Writer
	tag       int
	caps      []string
	separator string // of mailbox names

	mu      sync.Mutex
	cond    sync.Cond
	pending []pending // sent or in the buffer, in order
	bytes   int64     // of them
	closing bool      // nothing more will be appended
	failed  error     // why the connection ended
	ended   chan struct{}
}

// pending is an APPEND without an answer yet.
type pending struct {
	tag  string
	it   item // without its content
	size int64
}

// refusal is a NO or BAD.
type refusal struct{ text string }

func (r refusal) Error() string { return "the server refuses it: " + r.text }

// dialIMAP connects over TLS and logs in.
func dialIMAP(c *IMAP, user, password string) (*appender, error) {
	config, err := imapTLS(c)
	if err != nil {
		return nil, err
	}
	conn, err := tls.DialWithDialer(&net.Dialer{Timeout: 10 * time.Second}, "tcp", c.Address, config)
	if err != nil {
		return nil, fmt.Errorf("%w: IMAP at %s: %w", errUnreachable, c.Address, err)
	}
	a := newAppender(conn)
	if err := a.login(user, password); err != nil {
		conn.Close()
		return nil, fmt.Errorf("IMAP at %s: %w", c.Address, err)
	}
	return a, nil
}

func newAppender(conn net.Conn) *appender {
	a := &appender{conn: conn, r: bufio.NewReaderSize(conn, 16<<10), w: bufio.NewWriterSize(conn, 256<<10), separator: "/"}
	a.cond.L = &a.mu
	return a
}

func (a *appender) login(user, password string) error {
	greeting, err := a.line()
	if err != nil {
		return err
	}
	if !strings.HasPrefix(greeting, "* OK") {
		return refusal{greeting}
	}
	plain := base64.StdEncoding.EncodeToString([]byte("\x00" + user + "\x00" + password))
	if _, err := a.command("AUTHENTICATE PLAIN", plain); err != nil {
		return fmt.Errorf("login of %s: %w", user, err)
	}
	answers, err := a.command("CAPABILITY", "")
	if err != nil {
		return err
	}
	for _, line := range answers {
		if rest, ok := strings.CutPrefix(line, "* CAPABILITY "); ok {
			a.caps = strings.Fields(strings.ToUpper(rest))
		}
	}
	for _, needed := range []string{"LITERAL+", "UIDPLUS"} {
		if !slices.Contains(a.caps, needed) {
			return fmt.Errorf("the server does not offer %s, which import needs", needed)
		}
	}
	answers, err = a.command(`LIST "" ""`, "")
	if err != nil {
		return err
	}
	for _, line := range answers {
		if rest, ok := strings.CutPrefix(line, "* LIST "); ok {
			if _, after, ok := strings.Cut(rest, ") "); ok && len(after) > 2 && after[0] == '"' {
				a.separator = after[1:2]
			}
		}
	}
	return nil
}

// command runs one command with nothing else under way and returns its untagged answers. data, if any, is sent
// when the server asks for it.
func (a *appender) command(line, data string) ([]string, error) {
	tag := a.nextTag()
	if _, err := fmt.Fprintf(a.w, "%s %s\r\n", tag, line); err != nil {
		return nil, err
	}
	if err := a.flush(); err != nil {
		return nil, err
	}
	var untagged []string
	for {
		answer, err := a.line()
		if err != nil {
			return nil, err
		}
		switch {
		case strings.HasPrefix(answer, "+"):
			if _, err := a.w.WriteString(data + "\r\n"); err != nil {
				return nil, err
			}
			if err := a.flush(); err != nil {
				return nil, err
			}
		case strings.HasPrefix(answer, tag+" "):
			return untagged, verdict(answer[len(tag)+1:])
		default:
			untagged = append(untagged, answer)
		}
	}
}

func verdict(text string) error {
	if strings.HasPrefix(strings.ToUpper(text), "OK") {
		return nil
	}
	return refusal{printable(text)}
}

func (a *appender) nextTag() string {
	a.tag++
	return "A" + strconv.Itoa(a.tag)
}

func (a *appender) flush() error {
	if err := a.conn.SetWriteDeadline(time.Now().Add(imapTimeout)); err != nil {
		return err
	}
	return a.w.Flush()
}

// line reads one answer line; literals inside of it are left out.
func (a *appender) line() (string, error) {
	text, size, err := a.part()
	for err == nil && size >= 0 {
		if _, err = io.CopyN(io.Discard, a.r, size); err != nil {
			break
		}
		var more string
		more, size, err = a.part()
		if text += more; len(text) > maxAnswerLine {
			return "", fmt.Errorf("the server's answer is longer than %d bytes", maxAnswerLine)
		}
	}
	return text, err
}

// part reads up to the end of a line. If a literal follows, size is its length, which is cut from the text; otherwise
// -1.
func (a *appender) part() (text string, size int64, err error) {
	if err := a.conn.SetReadDeadline(time.Now().Add(imapTimeout)); err != nil {
		return "", -1, err
	}
	var whole strings.Builder
	for {
		part, err := a.r.ReadSlice('\n')
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return "", -1, err
		}
		if whole.Len()+len(part) > maxAnswerLine {
			return "", -1, fmt.Errorf("the server's answer is longer than %d bytes", maxAnswerLine)
		}
		whole.Write(part)
		if err == nil {
			break
		}
	}
	text = strings.TrimRight(whole.String(), "\r\n")
	open := strings.LastIndexByte(text, '{')
	if open < 0 || !strings.HasSuffix(text, "}") {
		return text, -1, nil
	}
	n, err := strconv.ParseUint(text[open+1:len(text)-1], 10, 32)
	if err != nil {
		return text, -1, nil
	}
	return strings.TrimSuffix(text[:open], " "), int64(n), nil
}

// quoteMailbox writes a mailbox name for a command (RFC 3501 §5.1.3).
func (a *appender) quoteMailbox(name string) string {
	name = strings.ReplaceAll(name, "/", a.separator)
	encoded := string(imapwire.AppendUTF7(nil, name))
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(encoded) + `"`
}

// create makes a mailbox unless it is there, and tells its UIDVALIDITY and next UID.
func (a *appender) create(name string) (validity uint32, next imap.UID, err error) {
	validity, next, err = a.status(name)
	if err == nil || !errors.As(err, &refusal{}) {
		return validity, next, err
	}
	for _, command := range []string{"CREATE", "SUBSCRIBE"} {
		if _, err := a.command(command+" "+a.quoteMailbox(name), ""); err != nil {
			return 0, 0, fmt.Errorf("mailbox %s: %w", name, err)
		}
	}
	validity, next, err = a.status(name)
	if err != nil {
		return 0, 0, fmt.Errorf("mailbox %s: %w", name, err)
	}
	return validity, next, nil
}

func (a *appender) status(name string) (validity uint32, next imap.UID, err error) {
	answers, err := a.command("STATUS "+a.quoteMailbox(name)+" (UIDNEXT UIDVALIDITY)", "")
	if err != nil {
		return 0, 0, err
	}
	for _, line := range answers {
		open := strings.LastIndexByte(line, '(')
		if open < 0 || !strings.HasPrefix(line, "* STATUS ") {
			continue
		}
		items := strings.Fields(strings.TrimSuffix(line[open+1:], ")"))
		for i := 0; i+1 < len(items); i += 2 {
			n, err := strconv.ParseUint(items[i+1], 10, 32)
			if err != nil {
				return 0, 0, fmt.Errorf("the server's answer is not readable: %s", printable(line))
			}
			switch strings.ToUpper(items[i]) {
			case "UIDNEXT":
				next = imap.UID(n)
			case "UIDVALIDITY":
				validity = uint32(n)
			}
		}
	}
	if validity == 0 || next == 0 {
		return 0, 0, fmt.Errorf("the server does not tell UIDVALIDITY and UIDNEXT of mailbox %s", name)
	}
	return validity, next, nil
}

// start begins to append; each outcome goes to report, in order, from one goroutine: where a message is stored, or
// that the server refuses it. An error of report ends the connection.
func (a *appender) start(report func(item, appendUID, error) error) {
	a.ended = make(chan struct{})
	go func() {
		defer close(a.ended)
		for {
			p, ok := a.oldest()
			if !ok {
				return
			}
			stored, err := a.answer(p.tag)
			if err == nil || errors.As(err, &refusal{}) {
				err = report(p.it, stored, err)
			}
			if err != nil {
				a.fail(err)
				return
			}
			a.mu.Lock()
			a.pending = a.pending[1:]
			a.bytes -= p.size
			a.cond.Broadcast()
			a.mu.Unlock()
		}
	}()
}

// oldest waits for the command whose answer comes next; false when there will be none.
func (a *appender) oldest() (pending, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for len(a.pending) == 0 && !a.closing {
		a.cond.Wait()
	}
	if len(a.pending) == 0 {
		return pending{}, false
	}
	return a.pending[0], true
}

func (a *appender) fail(err error) {
	a.mu.Lock()
	a.failed = err
	a.cond.Broadcast()
	a.mu.Unlock()
	a.conn.Close()
}

// answer reads until the tagged answer.
func (a *appender) answer(tag string) (appendUID, error) {
	for {
		line, err := a.line()
		if err != nil {
			return appendUID{}, err
		}
		if strings.HasPrefix(line, "* BYE") {
			return appendUID{}, fmt.Errorf("the server ends the connection: %s", printable(line[2:]))
		}
		if rest, ok := strings.CutPrefix(line, tag+" "); ok {
			if err := verdict(rest); err != nil {
				return appendUID{}, err
			}
			return parseAppendUID(rest)
		}
	}
}

// appendUID is where a message was stored (RFC 4315 §3).
type appendUID struct {
	validity uint32
	uid      imap.UID
}

func parseAppendUID(text string) (u appendUID, err error) {
	i := strings.Index(strings.ToUpper(text), "[APPENDUID ")
	if i < 0 {
		return u, fmt.Errorf("the server does not tell the UID of a message: %s", printable(text))
	}
	if _, err := fmt.Sscanf(text[i+len("[APPENDUID "):], "%d %d]", &u.validity, &u.uid); err != nil || u.uid == 0 {
		return u, fmt.Errorf("the server's answer has no UID: %s", printable(text))
	}
	return u, nil
}

// admit waits while too much is under way, and notes one more command.
func (a *appender) admit(p pending) error {
	full := func() bool {
		return len(a.pending) >= windowMessages || len(a.pending) > 0 && a.bytes+p.size > windowBytes
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.failed == nil && full() { // what is in the buffer gets no answer
		a.mu.Unlock()
		err := a.flush()
		a.mu.Lock()
		if err != nil && a.failed == nil {
			return err
		}
	}
	for a.failed == nil && full() {
		a.cond.Wait()
	}
	if a.failed != nil {
		return a.failed
	}
	a.pending = append(a.pending, p)
	a.bytes += p.size
	a.cond.Broadcast()
	return nil
}

// settle waits until nothing is under way, then runs f, which may use command.
func (a *appender) settle(f func() error) error {
	if err := a.flush(); err != nil {
		return a.brokenBy(err)
	}
	a.mu.Lock()
	for len(a.pending) > 0 && a.failed == nil {
		a.cond.Wait()
	}
	err := a.failed
	a.mu.Unlock()
	if err != nil {
		return err
	}
	return f()
}

// append sends one message.
func (a *appender) append(mailbox string, it item) error {
	content := it.content
	it.content = nil
	tag := a.nextTag()
	var line strings.Builder
	fmt.Fprintf(&line, "%s APPEND %s ", tag, a.quoteMailbox(mailbox))
	if flags := settable(it.flags); len(flags) > 0 {
		fmt.Fprintf(&line, "(%s) ", strings.Join(flags, " "))
	}
	if !it.date.IsZero() {
		line.Write(imapwire.AppendDateTime(nil, it.date))
		line.WriteByte(' ')
	}
	fmt.Fprintf(&line, "{%d+}\r\n", len(content))
	if err := a.admit(pending{tag, it, int64(len(content))}); err != nil {
		return err
	}
	if err := a.conn.SetWriteDeadline(time.Now().Add(imapTimeout)); err != nil {
		return err
	}
	for _, part := range [][]byte{[]byte(line.String()), content, []byte("\r\n")} {
		if _, err := a.w.Write(part); err != nil {
			return a.brokenBy(err)
		}
	}
	return nil
}

// brokenBy prefers what the reader saw: "the server ends the connection: ..." says more than a broken pipe.
func (a *appender) brokenBy(err error) error {
	a.conn.Close()
	<-a.ended
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.failed != nil {
		return a.failed
	}
	return err
}

// finish waits for the answers that are missing and ends the connection.
func (a *appender) finish() error {
	err := a.flush()
	if err != nil {
		err = a.brokenBy(err)
	}
	a.mu.Lock()
	a.closing = true
	a.cond.Broadcast()
	a.mu.Unlock()
	<-a.ended
	a.conn.Close()
	if a.failed != nil {
		return a.failed
	}
	return err
}

// settable leaves out what APPEND cannot set, and keywords that are no atoms.
func settable(flags []string) []string {
	var all []string
	for _, flag := range flags {
		if strings.EqualFold(flag, `\Recent`) || strings.ContainsAny(strings.TrimPrefix(flag, `\`), "\\ (){%*\"]\x7f") ||
			strings.IndexFunc(flag, func(r rune) bool { return r < ' ' || r > '~' }) >= 0 {
			continue
		}
		all = append(all, flag)
	}
	return all
}
