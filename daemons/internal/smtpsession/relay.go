package smtpsession

import (
	"io"

	"github.com/emersion/go-smtp"
)

// What the boxes send: redirects, vacation replies, notifications and the like of their users' Sieve scripts. It comes over LMTP
// with the certificate of a box, and all of it goes into the queue: 250 means that it is on stable storage there. The sender's
// address is the box's word, and recipients may be anywhere; the loop counts are those of other mail, Delivered-To included.

// LMTPData takes a message of a box. All recipients have the same outcome.
func (s *session) LMTPData(r io.Reader, status smtp.StatusCollector) error {
	tx := s.tx
	if tx == nil || len(tx.rcpts) == 0 {
		return reply(503, 5, 5, 1, "No recipient was accepted")
	}
	counted := &counter{r: r}
	done, err := s.send(tx, counted)
	s.log(tx, counted.n, done, err)
	if err != nil {
		return err
	}
	for _, rc := range tx.rcpts {
		status.SetStatus(rc.text, nil)
	}
	return nil
}
