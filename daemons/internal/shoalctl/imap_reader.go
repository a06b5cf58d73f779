package shoalctl

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/emersion/go-imap/v2"

	"shoal/daemons/internal/imapwire"
)

// imapReader reads an account's mail over IMAP and changes nothing there: mailboxes are opened by EXAMINE,
// contents taken by BODY.PEEK[].
type imapReader struct {
	a      *appender // its connection; nothing is appended
	broken bool      // a content was left unread
}

// mailboxView is a mailbox as the reader found it.
type mailboxView struct {
	name       string // UTF-8, levels separated by "/"
	raw        string // as the server writes it
	subscribed bool
	validity   uint32
	next       imap.UID
	messages   int64
	size       int64 // bytes of all messages; -1: the server does not tell
}

// storedMessage is one message of a mailbox.
type storedMessage struct {
	uid   imap.UID
	size  int64
	date  time.Time
	flags []string
}

// readBatch is how many messages are asked for with one command.
const readBatch = 500

// imapTLS is how the certificate of the IMAP service is verified.
func imapTLS(c *IMAP) (*tls.Config, error) {
	config := &tls.Config{}
	if c.CAFile == "" {
		return config, nil
	}
	text, err := os.ReadFile(c.CAFile)
	if err != nil {
		return nil, err
	}
	config.RootCAs = x509.NewCertPool()
	if !config.RootCAs.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("%s holds no certificate", c.CAFile)
	}
	return config, nil
}

// openIMAP connects over TLS and logs in.
func openIMAP(c *IMAP, user, password string) (*imapReader, error) {
	a, err := dialIMAP(c, user, password)
	if err != nil {
		return nil, err
	}
	return &imapReader{a: a}, nil
}

// close says goodbye, unless a content was left unread.
func (r *imapReader) close() {
	if !r.broken {
		_, _ = r.a.command("LOGOUT", "")
	}
	r.a.conn.Close()
}

// ask sends a command and gives each untagged answer to f: the line up to the first literal, without its length, and
// the literal as a stream that f may read. What follows the literal is left out.
func (r *imapReader) ask(command string, f func(answer string, literal io.Reader) error) error {
	tag := r.a.nextTag()
	if _, err := fmt.Fprintf(r.a.w, "%s %s\r\n", tag, command); err != nil {
		return err
	}
	if err := r.a.flush(); err != nil {
		return err
	}
	for {
		line, size, err := r.a.part()
		if err != nil {
			return err
		}
		if rest, ok := strings.CutPrefix(line, tag+" "); ok {
			return verdict(rest)
		}
		if strings.HasPrefix(line, "* BYE") && command != "LOGOUT" {
			return fmt.Errorf("the server ends the connection: %s", printable(line[2:]))
		}
		if size < 0 {
			if err := f(line, nil); err != nil {
				return err
			}
			continue
		}
		body := &io.LimitedReader{R: &patient{r.a}, N: size}
		if err := f(line, body); err != nil {
			r.broken = true
			return err
		}
		if _, err := io.Copy(io.Discard, body); err != nil {
			return err
		}
		if body.N > 0 {
			return io.ErrUnexpectedEOF
		}
		if _, err := r.a.line(); err != nil { // what follows the literal
			return err
		}
	}
}

// patient gives each piece of a literal as long as an answer.
type patient struct{ a *appender }

func (p *patient) Read(b []byte) (int, error) {
	if err := p.a.conn.SetReadDeadline(time.Now().Add(imapTimeout)); err != nil {
		return 0, err
	}
	return p.a.r.Read(b)
}

// mailboxes lists the account's mailboxes, INBOX first, the others by name, without those that only hold others.
func (r *imapReader) mailboxes() ([]mailboxView, error) {
	list := func(command string, f func(name string, attributes []string)) error {
		return r.ask(command+` "" "*"`, func(answer string, literal io.Reader) error {
			rest, ok := strings.CutPrefix(answer, "* "+command+" ")
			if !ok {
				return nil
			}
			tokens := imapTokens(rest) // (attributes) delimiter name
			name := ""
			switch {
			case literal != nil:
				text, err := io.ReadAll(io.LimitReader(literal, maxAnswerLine))
				if err != nil {
					return err
				}
				name = string(text)
			case len(tokens) >= 3:
				name = tokens[2]
			default:
				return fmt.Errorf("the server's answer is not readable: %s", printable(answer))
			}
			decoded, err := imapwire.DecodeUTF7(name)
			if err != nil {
				return fmt.Errorf("mailbox %q: %w", name, err)
			}
			f(decoded, strings.Fields(strings.Trim(tokens[0], "()")))
			return nil
		})
	}
	subscribed := map[string]bool{}
	if err := list("LSUB", func(name string, _ []string) { subscribed[name] = true }); err != nil && !errors.As(err, &refusal{}) {
		return nil, fmt.Errorf("list subscriptions: %w", err)
	}
	var views []mailboxView
	err := list("LIST", func(name string, attributes []string) {
		for _, a := range attributes {
			if strings.EqualFold(a, `\Noselect`) || strings.EqualFold(a, `\NonExistent`) {
				return
			}
		}
		views = append(views, mailboxView{name: slashed(name, r.a.separator), raw: name, subscribed: subscribed[name]})
	})
	if err != nil {
		return nil, fmt.Errorf("list mailboxes: %w", err)
	}
	slices.SortFunc(views, func(a, b mailboxView) int { return folderOrder(a.name, b.name) })
	return views, nil
}

// slashed writes a mailbox name with "/" between levels.
func slashed(name, separator string) string {
	switch {
	case strings.EqualFold(name, "INBOX"):
		return "INBOX"
	case separator == "/" || separator == "":
		return name
	}
	return strings.ReplaceAll(strings.ReplaceAll(name, "/", "_"), separator, "/")
}

// imapTokens takes apart what stands in an answer: atoms, quoted strings (their content), and parenthesised lists as
// a whole with the parentheses.
func imapTokens(s string) []string {
	var all []string
	for s = strings.TrimLeft(s, " "); s != ""; s = strings.TrimLeft(s, " ") {
		switch s[0] {
		case '"':
			var text strings.Builder
			i := 1
			for ; i < len(s) && s[i] != '"'; i++ {
				if s[i] == '\\' && i+1 < len(s) {
					i++
				}
				text.WriteByte(s[i])
			}
			all, s = append(all, text.String()), s[min(i+1, len(s)):]
		case '(':
			i := strings.IndexByte(s, ')')
			if i < 0 {
				return append(all, s)
			}
			all, s = append(all, s[:i+1]), s[i+1:]
		default:
			i := strings.IndexAny(s, " (")
			if i < 0 {
				i = len(s)
			}
			all, s = append(all, s[:i]), s[i:]
		}
	}
	return all
}

// quote writes a mailbox name as the server has it.
func (r *imapReader) quote(raw string) string {
	encoded := string(imapwire.AppendUTF7(nil, raw))
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(encoded) + `"`
}

// open opens a mailbox for reading and fills its view.
func (r *imapReader) open(m *mailboxView) error {
	err := r.ask("EXAMINE "+r.quote(m.raw), func(answer string, _ io.Reader) error {
		var n int64
		if _, err := fmt.Sscanf(answer, "* %d EXISTS", &n); err == nil {
			m.messages = n
		}
		if i := strings.Index(answer, "[UIDVALIDITY "); i >= 0 {
			if _, err := fmt.Sscanf(answer[i:], "[UIDVALIDITY %d]", &m.validity); err != nil {
				return fmt.Errorf("the server's answer is not readable: %s", printable(answer))
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("mailbox %s: %w", m.name, err)
	}
	return nil
}

// measure asks how much is in a mailbox, without opening it. A refusal means that there is none.
func (r *imapReader) measure(m *mailboxView) error {
	items := "MESSAGES UIDNEXT UIDVALIDITY"
	m.size = -1
	if slices.Contains(r.a.caps, "STATUS=SIZE") {
		items += " SIZE"
	}
	err := r.ask("STATUS "+r.quote(m.raw)+" ("+items+")", func(answer string, _ io.Reader) error {
		open := strings.LastIndexByte(answer, '(')
		if !strings.HasPrefix(answer, "* STATUS ") || open < 0 {
			return nil
		}
		tokens := strings.Fields(strings.TrimSuffix(answer[open+1:], ")"))
		for i := 0; i+1 < len(tokens); i += 2 {
			n, err := strconv.ParseInt(tokens[i+1], 10, 64)
			if err != nil {
				return fmt.Errorf("the server's answer is not readable: %s", printable(answer))
			}
			switch strings.ToUpper(tokens[i]) {
			case "MESSAGES":
				m.messages = n
			case "UIDNEXT":
				m.next = imap.UID(n)
			case "UIDVALIDITY":
				m.validity = uint32(n)
			case "SIZE":
				m.size = n
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("mailbox %s: %w", m.name, err)
	}
	return nil
}

// messages gives uid and size of the messages of the open mailbox whose UID is at least first.
func (r *imapReader) messages(first imap.UID) ([]storedMessage, error) {
	var all []storedMessage
	err := r.ask(fmt.Sprintf("UID FETCH %d:* (UID RFC822.SIZE)", first), func(answer string, _ io.Reader) error {
		m, ok, err := parseFetch(answer)
		if ok && m.uid >= first && m.size >= 0 { // "n:*" names the last message even if it is below n
			all = append(all, m)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list messages: %w", err)
	}
	return all, nil
}

// parseFetch reads the items of a FETCH answer up to the content; ok says whether it is one. Without RFC822.SIZE size
// is -1.
func parseFetch(answer string) (m storedMessage, ok bool, err error) {
	number, rest, _ := strings.Cut(strings.TrimPrefix(answer, "* "), " FETCH (")
	if _, err := strconv.ParseUint(number, 10, 32); err != nil || rest == "" {
		return m, false, nil
	}
	m.size = -1
	tokens := imapTokens(strings.TrimSuffix(rest, ")"))
	bad := func() (storedMessage, bool, error) {
		return m, false, fmt.Errorf("the server's answer is not readable: %s", printable(answer))
	}
	for i := 0; i+1 < len(tokens); i += 2 {
		value := tokens[i+1]
		switch strings.ToUpper(tokens[i]) {
		case "UID":
			n, err := strconv.ParseUint(value, 10, 32)
			if err != nil {
				return bad()
			}
			m.uid = imap.UID(n)
		case "RFC822.SIZE":
			if m.size, err = strconv.ParseInt(value, 10, 64); err != nil {
				return bad()
			}
		case "INTERNALDATE":
			if m.date, err = time.Parse("_2-Jan-2006 15:04:05 -0700", value); err != nil {
				return bad()
			}
		case "FLAGS":
			m.flags = strings.Fields(strings.Trim(value, "()"))
		}
	}
	return m, m.uid != 0, nil
}

// contents gives the messages of these UIDs of the open mailbox to f, each with its content as a stream that is
// valid until f returns. Messages that are gone meanwhile are left out. After an error of f the connection is of
// no more use.
func (r *imapReader) contents(uids []imap.UID, f func(storedMessage, io.Reader) error) error {
	for batch := range slices.Chunk(uids, readBatch) {
		command := "UID FETCH " + imap.UIDSetNum(batch...).String() + " (UID FLAGS INTERNALDATE RFC822.SIZE BODY.PEEK[])"
		err := r.ask(command, func(answer string, literal io.Reader) error {
			head, isContent := strings.CutSuffix(answer, " BODY[]")
			if literal != nil && !isContent {
				return nil
			}
			m, ok, err := parseFetch(head)
			if err != nil || !ok || literal == nil && !strings.Contains(answer, ` BODY[] ""`) {
				return err // not an answer with a content: flags that another client changed
			}
			if literal == nil {
				literal = strings.NewReader("")
			}
			counted := &countingReader{r: literal}
			if err := f(m, counted); err != nil {
				return err
			}
			if _, err := io.Copy(io.Discard, counted); err != nil {
				return fmt.Errorf("fetch of message %d: %w", m.uid, err)
			}
			if counted.n != m.size || m.date.IsZero() {
				return fmt.Errorf("message %d has %d bytes, the server said %d", m.uid, counted.n, m.size)
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("fetch: %w", err)
		}
	}
	return nil
}
