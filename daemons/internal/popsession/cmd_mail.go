package popsession

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"shoal/daemons/internal/mailstore"
	"shoal/daemons/internal/message"
)

// cmdStat is STAT of RFC 1939 §5.
func cmdStat(s *session, _ context.Context, args string) error {
	if err := noArguments(args); err != nil {
		return err
	}
	return s.ok("%d %d", s.drop.count, s.drop.size)
}

// cmdList is LIST of RFC 1939 §5: number and size, of one message or of all that are not marked as deleted.
func cmdList(s *session, _ context.Context, args string) error {
	return s.listing(args, fmt.Sprintf("%d messages (%d octets)", s.drop.count, s.drop.size), func(b []byte, m mailstore.Message) []byte {
		return strconv.AppendInt(b, m.Size, 10)
	})
}

// cmdUidl is UIDL of RFC 1939 §7.
func cmdUidl(s *session, _ context.Context, args string) error {
	return s.listing(args, "Unique ids follow", func(b []byte, m mailstore.Message) []byte {
		return append(b, s.drop.uidl(m)...)
	})
}

// listing answers with a line for one message or for all.
func (s *session) listing(args, head string, about func([]byte, mailstore.Message) []byte) error {
	if args != "" {
		n, m, err := s.one(args)
		if err != nil {
			return err
		}
		return s.ok("%d %s", n, about(nil, m))
	}
	s.line("+OK " + head)
	var b []byte
	for i, m := range s.drop.state.All() {
		if s.drop.deleted.Contains(m.UID) {
			continue
		}
		b = append(strconv.AppendInt(b[:0], int64(i+1), 10), ' ')
		b = append(about(b, m), "\r\n"...)
		if _, err := s.w.Write(b); err != nil {
			return err
		}
	}
	s.line(".")
	return nil
}

// one is the message that the only argument of a command names.
func (s *session) one(args string) (n int, m mailstore.Message, err error) {
	n, err = number(args)
	if err != nil {
		return 0, m, err
	}
	m, ok := s.drop.message(n)
	if !ok {
		return 0, m, fail("", "There is no such message")
	}
	return n, m, nil
}

func number(arg string) (int, error) {
	if len(arg) == 0 || len(arg) > 10 || strings.Trim(arg, "0123456789") != "" {
		return 0, misuse("A number is needed")
	}
	n, err := strconv.Atoi(arg)
	if err != nil {
		return 0, misuse("A number is needed")
	}
	return n, nil
}

// cmdRetr is RETR of RFC 1939 §5.
func cmdRetr(s *session, ctx context.Context, args string) error {
	_, m, err := s.one(args)
	if err != nil {
		return err
	}
	if err := s.send(ctx, m, -1); err != nil {
		return err
	}
	s.drop.seen.Add(m.UID)
	s.drop.retrieved++
	s.srv.m.retrieved.Inc()
	return nil
}

// cmdTop is TOP of RFC 1939 §7: the header, and so many lines of the body.
func cmdTop(s *session, ctx context.Context, args string) error {
	first, second, _ := strings.Cut(args, " ")
	_, m, err := s.one(first)
	if err != nil {
		return err
	}
	lines, err := number(second)
	if err != nil {
		return err
	}
	return s.send(ctx, m, lines)
}

// send answers with a message, of whose body only so many lines are wanted unless lines is negative. Once +OK is
// out, an error of the store can only be told by closing the connection: a client must not take half a message
// for a whole one, and delete it.
func (s *session) send(ctx context.Context, m mailstore.Message, lines int) error {
	file, err := s.drop.box.OpenFile(ctx, m)
	switch {
	case errors.Is(err, mailstore.ErrNoMessage):
		return fail("", "The message has been removed by another session")
	case errors.Is(err, mailstore.ErrCorrupt):
		s.log().Error("message cannot be read", "uid", m.UID, "message", m.ID(), "error", err)
		return fail(codePermanent, "The message is damaged")
	case err != nil:
		return s.storeFailure("message cannot be opened", err)
	}
	defer file.Close()
	text, size, err := message.Textual(file, file.Size(), false)
	if err == nil && !s.utf8 {
		text, size, err = message.Downgraded(text, size)
	}
	if err != nil {
		return s.storeFailure("message cannot be read", err)
	}
	if lines < 0 {
		s.line(fmt.Sprintf("+OK %d octets", size))
	} else {
		s.line("+OK Top of the message follows")
	}
	out := stuffer{w: s.w, left: lines}
	if b := file.Bytes(); b != nil && text == io.ReaderAt(file) {
		out.end(out.write(b))
	} else if err := out.copy(io.NewSectionReader(text, 0, size)); err != nil {
		s.log().Error("message cannot be read", "uid", m.UID, "message", m.ID(), "error", err)
		return errOver
	}
	_, err = s.w.Write(nil) // the writer's error, if it has one
	return err
}

// cmdDele is DELE of RFC 1939 §5: a mark, which counts at QUIT.
func cmdDele(s *session, _ context.Context, args string) error {
	n, m, err := s.one(args)
	if err != nil {
		return err
	}
	s.drop.mark(m)
	return s.ok("Message %d will be deleted", n)
}

// cmdRset is RSET of RFC 1939 §5.
func cmdRset(s *session, _ context.Context, args string) error {
	if err := noArguments(args); err != nil {
		return err
	}
	s.drop.reset()
	return s.ok("%d messages (%d octets)", s.drop.count, s.drop.size)
}

// cmdNoop is NOOP of RFC 1939 §5.
func cmdNoop(s *session, _ context.Context, args string) error {
	if err := noArguments(args); err != nil {
		return err
	}
	return s.ok("Done")
}

// cmdQuit is QUIT of RFC 1939 §4 and §6. What was marked is done before the answer.
func cmdQuit(s *session, ctx context.Context, args string) error {
	if err := noArguments(args); err != nil {
		return err
	}
	in := s.state
	s.state = stateOver
	if in == stateTransaction {
		expired := s.drop.expire(s.srv.limits(), s.srv.clock.Now())
		if err := s.drop.update(ctx); err != nil {
			return s.storeFailure("cannot update the INBOX", err)
		}
		s.srv.m.removed.Add(float64(s.drop.removed))
		s.srv.m.expired.Add(float64(expired))
	}
	return s.ok("Bye")
}
