package imapsession

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"strings"

	"github.com/emersion/go-imap/v2"

	"shoal/daemons/internal/dirclient"
	"shoal/daemons/internal/imapwire"
	"shoal/daemons/internal/mailstore"
	"shoal/daemons/internal/message"
)

// URLAUTH (RFC 4467): somebody who may read a message makes a URL with which others may read it, a submission server for instance.
//
// The mechanism INTERNAL: the token of a URL is an HMAC-SHA256 of it under the access key of its mailbox, behind an octet that
// names the algorithm. The access key is made of a random key of the account and one of the mailbox. Both are attributes in the
// account's log, so that every box knows them; that of the account is made when it is first needed, that of a mailbox only when
// RESETKEY names it. RESETKEY without a mailbox replaces the account's.

// The account's attributes.
const (
	attrURLKey    = "urlkey"
	attrURLKeyBox = "urlkeyof" // and the mailbox's id in letters
)

// urlAlgorithm stands before a token: HMAC-SHA256.
const urlAlgorithm = "01"

// maxURLs bounds the URLs in one command.
const maxURLs = 100

func newURLKey() string {
	var b [16]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

// boxKeyName is the name of the attribute with a mailbox's key.
func boxKeyName(id string) string {
	b := []byte(attrURLKeyBox)
	for i := range len(id) {
		b = append(b, 'a'+id[i]>>4, 'a'+id[i]&15)
	}
	return string(b)
}

// urlToken is the token of a URL whose mailbox is mb. create makes the account's key if there is none; otherwise the token is empty
// then.
func urlToken(ctx context.Context, mb *mailstore.Mailbox, rump string, create bool) (string, error) {
	acc := mb.Account()
	key, err := acc.Attribute(ctx, attrURLKey)
	if err != nil {
		return "", err
	}
	if key == "" {
		if !create {
			return "", nil
		}
		if err := acc.SetAttribute(ctx, attrURLKey, newURLKey()); err != nil {
			return "", err
		}
		if key, err = acc.Attribute(ctx, attrURLKey); err != nil { // another box may have been later
			return "", err
		}
	}
	own, err := acc.Attribute(ctx, boxKeyName(mb.ID()))
	if err != nil {
		return "", err
	}
	access := hmac.New(sha256.New, []byte(key))
	access.Write([]byte(mb.ID() + " " + own))
	token := hmac.New(sha256.New, access.Sum(nil))
	token.Write([]byte(rump))
	return urlAlgorithm + hex.EncodeToString(token.Sum(nil)), nil
}

// cmdResetKey is RESETKEY (RFC 4467 §7).
//
//	resetkey = "RESETKEY" [SP mailbox *(SP mechanism)]
func cmdResetKey(s *session, c *call) error {
	var name string
	if !s.dec.AtEnd() {
		if err := s.dec.SP(); err != nil {
			return err
		}
		var err error
		if name, err = s.dec.Mailbox(); err != nil {
			return err
		}
		for !s.dec.AtEnd() {
			if err := s.dec.SP(); err != nil {
				return err
			}
			mechanism, err := s.dec.Keyword()
			if err != nil {
				return err
			}
			if mechanism != "INTERNAL" {
				return badf("Unknown mechanism: %s", mechanism)
			}
		}
	}
	if err := s.dec.End(); err != nil {
		return err
	}
	key := attrURLKey
	if name != "" {
		mb, err := s.acc.Open(c.ctx, name)
		if err != nil {
			return err
		}
		key = boxKeyName(mb.ID())
	}
	if err := s.acc.SetAttribute(c.ctx, key, newURLKey()); err != nil {
		return err
	}
	c.ok("URLMECH INTERNAL", "")
	return nil
}

// cmdGenURLAuth is GENURLAUTH (RFC 4467 §7).
//
//	genurlauth = "GENURLAUTH" 1*(SP url-rump SP mechanism)
func cmdGenURLAuth(s *session, c *call) error {
	var rumps []string
	for first := true; first || !s.dec.AtEnd(); first = false {
		if len(rumps) == maxURLs {
			return badf("More than %d URLs", maxURLs)
		}
		if err := s.dec.SP(); err != nil {
			return err
		}
		text, err := s.dec.AString()
		if err != nil {
			return err
		}
		if err := s.dec.SP(); err != nil {
			return err
		}
		mechanism, err := s.dec.Keyword()
		if err != nil {
			return err
		}
		if mechanism != "INTERNAL" {
			return badf("Unknown mechanism: %s", mechanism)
		}
		rumps = append(rumps, text)
	}
	if err := s.dec.End(); err != nil {
		return err
	}
	full := make([]string, len(rumps))
	for i, text := range rumps {
		u, err := imapwire.ParseURL(text)
		if err != nil {
			return err
		}
		switch {
		case u.Host == "" || u.Mailbox == "":
			return badf("The URL must be absolute and name a mailbox")
		case u.Access == "" || u.Mechanism != "":
			return badf("The URL must end in URLAUTH with an access")
		case !isUser(s.user, u.User, s.user.Address):
			return badf("The URL must name its user, and that is you")
		}
		mb, err := s.acc.Open(c.ctx, u.Mailbox)
		if errors.Is(err, mailstore.ErrNoMailbox) {
			return badf("The URL names no mailbox")
		}
		if err != nil {
			return err
		}
		token, err := urlToken(c.ctx, mb, u.Rump, true)
		if err != nil {
			return err
		}
		full[i] = text + ":internal:" + token
	}
	s.enc.Raw("* GENURLAUTH")
	for _, text := range full {
		s.enc.SP().String(text)
	}
	s.enc.CRLF()
	return s.enc.Err()
}

// isUser reports whether a name in a URL is the account's: an address of it, or its local part for users of the same domain as
// the address near.
func isUser(a *dirclient.Account, name, near string) bool {
	if !strings.Contains(name, "@") {
		name += near[strings.LastIndexByte(near, '@'):]
	}
	if strings.EqualFold(name, a.Address) {
		return true
	}
	for _, other := range a.Addresses {
		if strings.EqualFold(name, other) {
			return true
		}
	}
	return false
}

// urlRequest is one URL of URLFETCH, with what is wanted of it (RFC 5524 §3).
type urlRequest struct {
	text                    string
	extended                bool
	structure, binary, body bool
}

// cmdURLFetch is URLFETCH (RFC 4467 §7, RFC 5524).
//
//	urlfetch      = "URLFETCH" 1*(SP (url-full / "(" url-full *(SP param) ")"))
//	param         = "BODYPARTSTRUCTURE" / "BINARY" / "BODY"
func cmdURLFetch(s *session, c *call) error {
	var requests []urlRequest
	for first := true; first || !s.dec.AtEnd(); first = false {
		if len(requests) == maxURLs {
			return badf("More than %d URLs", maxURLs)
		}
		if err := s.dec.SP(); err != nil {
			return err
		}
		r, err := s.urlRequest()
		if err != nil {
			return err
		}
		requests = append(requests, r)
	}
	if err := s.dec.End(); err != nil {
		return err
	}
	for i := range requests {
		if err := s.urlFetch(c, &requests[i]); err != nil {
			return err
		}
	}
	return s.enc.Err()
}

func (s *session) urlRequest() (r urlRequest, err error) {
	if s.dec.Peek() != '(' {
		r.text, err = s.dec.AString()
		return r, err
	}
	n := 0
	err = s.dec.List(func() error {
		if n++; n == 1 {
			r.text, err = s.dec.AString()
			return err
		}
		word, err := s.dec.Keyword()
		if err != nil {
			return err
		}
		for name, flag := range map[string]*bool{"BODYPARTSTRUCTURE": &r.structure, "BINARY": &r.binary, "BODY": &r.body} {
			if word == name {
				if *flag {
					return badf("%s given twice", word)
				}
				*flag, r.extended = true, true
				return nil
			}
		}
		return badf("Unknown parameter of URLFETCH: %s", word)
	})
	switch {
	case err != nil:
		return r, err
	case n == 0:
		return r, badf("A URL is missing")
	case r.binary && r.body:
		return r, badf("BINARY and BODY exclude each other")
	}
	return r, nil
}

// urlFetch answers one URL. Whatever is wrong with it, the answer is NIL: nobody learns what there is.
func (s *session) urlFetch(c *call, r *urlRequest) error {
	e := &s.enc
	u, err := imapwire.ParseURL(r.text)
	var part *urlPart
	if err == nil {
		part, err = s.openAuthorized(c.ctx, u)
	}
	if err != nil {
		if answer, report := answerTo(err); report && answer.code == "UNAVAILABLE" {
			return err
		}
		e.Raw("* URLFETCH ").String(r.text).Raw(" NIL\r\n")
		return nil
	}
	defer part.close()
	e.Raw("* URLFETCH ").String(r.text)
	if r.structure {
		e.Raw(" (BODYPARTSTRUCTURE ")
		if sub := part.root.Find(u.Item.Part); u.Item.Text != imapwire.SectionWhole || sub == nil {
			e.Raw("NIL")
		} else {
			e.Append(func(b []byte) []byte { return message.AppendStructure(b, sub, true, e.UTF8()) })
		}
		e.Byte(')')
	}
	switch {
	case r.binary:
		e.Raw(" (BINARY ")
		if err := s.urlBinary(u, part); err != nil {
			return err
		}
		e.Byte(')')
	case r.body:
		e.Raw(" (BODY ")
		s.stream(part.SectionReader)
		e.Byte(')')
	case !r.extended:
		e.SP()
		s.stream(part.SectionReader)
	}
	e.CRLF()
	return e.Err()
}

// urlBinary writes what a URL names without its transfer encoding: as literal8 where it has NUL, NIL where it cannot be decoded.
func (s *session) urlBinary(u *imapwire.URL, part *urlPart) error {
	if u.Item.Text != imapwire.SectionWhole || len(u.Item.Part) == 0 {
		s.stream(part.SectionReader)
		return nil
	}
	want := imap.FetchItemBinarySection{Part: u.Item.Part}
	if u.Item.Partial {
		want.Partial = &imap.SectionPartial{Offset: int64(u.Item.Offset), Size: int64(u.Item.Length)}
	}
	var seen nulSeeker
	r, err := part.root.Binary(part.text, &want)
	if err == nil {
		_, err = io.Copy(&seen, r)
	}
	if errors.Is(err, message.ErrUnknownEncoding) {
		s.enc.Raw("NIL")
		return nil
	}
	if err == nil {
		r, err = part.root.Binary(part.text, &want)
	}
	if err != nil {
		return streamError(err)
	}
	s.enc.LiteralHeader(seen.size, seen.nul).Stream(r, seen.size)
	return nil
}

// nulSeeker counts what is written and notes a NUL in it.
type nulSeeker struct {
	size int64
	nul  bool
}

func (n *nulSeeker) Write(p []byte) (int, error) {
	n.size += int64(len(p))
	n.nul = n.nul || bytes.IndexByte(p, 0) >= 0
	return len(p), nil
}

// openAuthorized opens what an authorized URL names, with the rights of its user.
func (s *session) openAuthorized(ctx context.Context, u *imapwire.URL) (*urlPart, error) {
	switch {
	case u.Host == "" || u.Mailbox == "" || u.Mechanism != "INTERNAL":
		return nil, errNoURL
	case !u.Expire.IsZero() && s.srv.clock.Now().After(u.Expire):
		return nil, errNoURL
	case !s.mayUse(u.Access):
		return nil, errNoURL
	}
	acc, err := s.urlAccount(ctx, u.User)
	if err != nil {
		return nil, err
	}
	mb, err := acc.Open(ctx, u.Mailbox)
	if err != nil {
		return nil, err
	}
	token, err := urlToken(ctx, mb, u.Rump, false)
	if err != nil {
		return nil, err
	}
	if token == "" || !hmac.Equal([]byte(token), []byte(u.Token)) {
		return nil, errNoURL
	}
	return s.openURL(ctx, acc, u)
}

// mayUse reports whether an access is for this session (RFC 4467 §3).
func (s *session) mayUse(access string) bool {
	word, user, _ := strings.Cut(access, "+")
	switch word {
	case "anonymous", "authuser": // there are no anonymous logins
		return true
	case "user":
		return isUser(s.user, user, s.user.Address)
	}
	for name := range strings.FieldsSeq(s.srv.limits().SubmitUsers) { // "submit+"
		if isUser(s.user, name, s.user.Address) {
			return true
		}
	}
	return false
}

// urlAccount is the account of the user that a URL names.
func (s *session) urlAccount(ctx context.Context, user string) (*mailstore.Account, error) {
	if user == "" {
		return nil, errNoURL
	}
	if isUser(s.user, user, s.user.Address) {
		return s.acc, nil
	}
	if !strings.Contains(user, "@") {
		user += s.user.Address[strings.LastIndexByte(s.user.Address, '@'):]
	}
	owner, err := s.srv.opt.Directory.Account(ctx, user)
	switch {
	case errors.Is(err, dirclient.ErrNoSuchAccount), errors.Is(err, dirclient.ErrNoSuchDomain):
		return nil, errNoURL
	case err != nil:
		return nil, errors.Join(mailstore.ErrUnavailable, err)
	case owner.Status != dirclient.StatusActive:
		return nil, errNoURL
	}
	return s.srv.opt.Store.Account(ctx, owner.Volume, owner.ID)
}
