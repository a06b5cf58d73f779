package imapsession

import (
	"errors"
	"strings"
)

// What CAPABILITY says. A capability is listed only when the server has all of it; docs/rfc.md names
// the test that shows it.
const (
	// capabilitiesNew are those of a client that has not logged in, besides STARTTLS, LOGINDISABLED and
	// the mechanisms.
	capabilitiesNew = "IMAP4rev1 IMAP4rev2 LITERAL+ ID ENABLE SASL-IR IDLE"
	// capabilitiesAuthed are those of a client that has.
	capabilitiesAuthed = "IMAP4rev1 IMAP4rev2 LITERAL+ ID ENABLE IDLE NAMESPACE UNSELECT UIDPLUS MOVE ESEARCH " +
		"SEARCHRES WITHIN CONDSTORE QRESYNC CHILDREN LIST-EXTENDED LIST-STATUS SPECIAL-USE CREATE-SPECIAL-USE " +
		"STATUS=SIZE UTF8=ACCEPT OBJECTID SAVEDATE PREVIEW MULTIAPPEND QUOTA QUOTA=RES-STORAGE QUOTA=RES-MESSAGE " +
		"SORT SORT=DISPLAY ESORT THREAD=ORDEREDSUBJECT THREAD=REFERENCES I18NLEVEL=1 COMPRESS=DEFLATE " +
		"PARTIAL UIDONLY REPLACE UNAUTHENTICATE ACL RIGHTS=kxte LIST-MYRIGHTS METADATA LIST-METADATA NOTIFY INPROGRESS BINARY " +
		"CATENATE URL-PARTIAL URLAUTH URLAUTH=BINARY FILTERS"
)

// capabilities returns the list for the session's state.
func (s *session) capabilities() string {
	if s.state != stateNew {
		list := capabilitiesAuthed
		if s.t.z != nil {
			list = strings.Replace(list, " COMPRESS=DEFLATE", "", 1) // RFC 4978 §3: not again
		}
		if most := s.srv.limits().MessageLimit; most > 0 {
			list += " MESSAGELIMIT=" + itoa(uint64(most))
		}
		return list + " APPENDLIMIT=" + itoa(uint64(s.srv.limits().AppendLimit))
	}
	var b strings.Builder
	b.WriteString(capabilitiesNew)
	if s.srv.opt.TLS != nil && !s.t.isTLS() && s.t.canStartTLS() {
		b.WriteString(" STARTTLS")
	}
	conn := s.saslConn()
	for _, name := range s.srv.sasl.Names(conn) {
		b.WriteString(" AUTH=")
		b.WriteString(name)
	}
	if !conn.Secure() {
		b.WriteString(" LOGINDISABLED")
	}
	return b.String()
}

// greet sends the greeting (RFC 9051 §7.1.1).
func (s *session) greet() {
	s.enc.Raw("* OK [CAPABILITY ").Raw(s.capabilities()).Raw("] ")
	if name := s.srv.opt.Server; name != "" {
		s.enc.Raw(name).SP()
	}
	s.enc.Raw("Shoal ready\r\n")
}

func cmdCapability(s *session, c *call) error {
	if err := s.dec.End(); err != nil {
		return err
	}
	s.enc.Raw("* CAPABILITY ").Raw(s.capabilities()).CRLF()
	return nil
}

// cmdNoop is NOOP and CHECK: the news of the selected mailbox, read freshly.
func cmdNoop(s *session, c *call) error {
	if err := s.dec.End(); err != nil {
		return err
	}
	if s.news != nil {
		c.ask = true
	}
	if s.box == nil {
		return nil
	}
	if err := s.checkRights(c.ctx, true); errors.Is(err, errRevoked) {
		s.bye(unsharedText)
		return errOver
	} else if err != nil {
		return err
	}
	return s.box.refresh(c.ctx)
}

func cmdLogout(s *session, c *call) error {
	if err := s.dec.End(); err != nil {
		return err
	}
	s.enc.Raw("* BYE Goodbye\r\n")
	s.state = stateLogout
	return nil
}

// cmdID answers with name and version. What the client says about itself goes to the log.
//
//	id        = "ID" SP id-params-list
//	id-params = "(" *(string SP nstring) ")" / nil      RFC 2971 §4
func cmdID(s *session, c *call) error {
	if err := s.dec.SP(); err != nil {
		return err
	}
	var fields []any
	if !s.dec.AcceptWord("NIL") {
		key, n := "", 0
		err := s.dec.List(func() (err error) {
			if n++; n > 2*30 {
				return badf("More than 30 fields in ID") // RFC 2971 §3.3
			}
			if n%2 == 1 {
				key, err = s.dec.String()
				return err
			}
			value, ok, err := s.dec.NString()
			if ok && len(fields) < 12 {
				fields = append(fields, "id_"+strings.ToLower(printable(key, 30)), printable(value, 100))
			}
			return err
		})
		if err != nil {
			return err
		}
		if n%2 == 1 {
			return badf("ID needs pairs of field and value")
		}
	}
	if err := s.dec.End(); err != nil {
		return err
	}
	if len(fields) > 0 {
		s.log().Info("client said who it is", append([]any{"event", "imap-id"}, fields...)...)
	}
	s.enc.Raw(`* ID ("name" "Shoal"`)
	if v := s.srv.opt.Version; v != "" {
		s.enc.Raw(` "version" `).String(v)
	}
	s.enc.Raw(")\r\n")
	return nil
}

// printable makes a text from a client fit for a log line.
func printable(s string, most int) string {
	if len(s) > most {
		s = s[:most]
	}
	return strings.Map(func(r rune) rune {
		if r < 0x20 || r == 0x7f {
			return -1
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
}

// cmdEnable switches extensions on (RFC 5161, RFC 9051 §6.3.1). Unknown names are passed over.
func cmdEnable(s *session, c *call) error {
	var names []string
	for {
		if err := s.dec.SP(); err != nil {
			return err
		}
		name, err := s.dec.Keyword()
		if err != nil {
			return err
		}
		names = append(names, name)
		if s.dec.AtEnd() {
			break
		}
	}
	if err := s.dec.End(); err != nil {
		return err
	}
	s.enc.Raw("* ENABLED")
	for _, name := range names {
		switch name {
		case "CONDSTORE":
			s.condstor = true
		case "QRESYNC":
			s.condstor, s.qresync = true, true
		case "IMAP4REV2":
			name = "IMAP4rev2"
			s.rev2 = true
		case "UTF8=ACCEPT":
			s.utf8 = true
		case "UIDONLY":
			s.uidOnly = true
		case "METADATA":
			if err := s.enableMetadata(c.ctx); err != nil {
				return err
			}
		default:
			continue
		}
		s.enc.SP().Raw(name)
	}
	s.enc.CRLF()
	if s.rev2 || s.utf8 {
		s.dec.SetUTF8(true)
		s.enc.SetUTF8(true)
	}
	return nil
}
