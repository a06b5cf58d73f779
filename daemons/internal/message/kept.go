package message

import (
	"errors"
	"io"
	"strings"
)

// FieldSet is a set of header fields that summaries keep.
type FieldSet uint64

// keptNames are the header fields that a Summary keeps as they stand in the message: those that mail programs ask
// for in lists of messages, and that people search by. The place of a name is its number in packed summaries:
// a change here is a new version of the packed form. Number 0 is the blank line that ends the header.
//
// What is left out: Received, DKIM-Signature, ARC-* and Authentication-Results, which would make a summary two to
// four times as long, and the verdicts of filters.
var keptNames = [...]string{
	1: "date", "from", "sender", "reply-to", "to", "cc", "bcc", "subject", "message-id", "in-reply-to", "references",
	"content-type", "content-transfer-encoding", "content-description", "content-disposition", "content-language", "mime-version",
	"priority", "x-priority", "importance", "x-msmail-priority", "precedence", "auto-submitted",
	"list-id", "list-post", "list-subscribe", "list-unsubscribe", "list-unsubscribe-post",
	"disposition-notification-to", "mail-followup-to", "mail-reply-to", "return-path", "newsgroups", "followup-to",
	"lines", "x-label", "x-keywords", "x-original-to", "delivered-to", "x-tuid", "x-draft-info", "x-mozilla-draft-info", "x-identity-key",
	"x-uniform-type-identifier", "x-universally-unique-identifier", "x-k9mail-identity", "x-protective-marking",
	"chat-version", "chat-is-post-message", "autocrypt-setup-message", "x-microsoft-original-message-id", "x-spam-flag",
	"content-class", "x-evolution-source", "x-calendar-attachment", "x-forward", "bimi-indicator", "bimi-location",
}

// Every name has a bit in a FieldSet.
const _ = uint(64 - len(keptNames))

const longestKept = len("x-universally-unique-identifier")

var keptNumbers = func() map[string]uint8 {
	m := make(map[string]uint8, len(keptNames))
	for i, name := range keptNames[1:] {
		m[name] = uint8(i + 1)
	}
	return m
}()

// keptNumber is the number of a field, 0 where it is not kept.
func keptNumber[S string | []byte](name S) uint8 {
	if len(name) > longestKept {
		return 0
	}
	var buf [longestKept]byte
	for i := 0; i < len(name); i++ {
		c := name[i]
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		buf[i] = c
	}
	return keptNumbers[string(buf[:len(name)])]
}

// KeptFields is the set of the named fields, in any case of letters; ok is false where summaries do not keep
// all of them.
func KeptFields(names []string) (set FieldSet, ok bool) {
	for _, name := range names {
		n := keptNumber(name)
		if n == 0 {
			return 0, false
		}
		set |= 1 << n
	}
	return set, true
}

// keptLines is a field, or the blank line, in what a summary keeps of a header.
type keptLines struct {
	number uint8
	size   int
}

// maxKept bounds what is kept of one header, in bytes.
const maxKept = 16 << 10

var errKeptTooLong = errors.New("more header than a summary keeps")

// keepFields reads the header of p and returns what summaries keep of it: the fields, in their order and with
// every byte, one after the other.
func keepFields(r io.ReaderAt, p *Part) (raw string, index []keptLines, err error) {
	header, err := readHeaderBytes(r, nil, p.HeaderOffset, p.BodyOffset)
	if err != nil {
		return "", nil, err
	}
	var b strings.Builder
	for rest := header; len(rest) > 0; {
		var name, field []byte
		name, field, rest = nextField(rest)
		var number uint8
		if name != nil {
			number = keptNumber(name)
		}
		if number == 0 && !isBlank(field) {
			continue
		}
		if b.Len()+len(field) > maxKept {
			return "", nil, errKeptTooLong
		}
		b.Write(field)
		index = append(index, keptLines{number, len(field)})
	}
	return b.String(), index, nil
}
