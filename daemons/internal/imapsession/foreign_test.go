package imapsession

import (
	"bytes"
	"io"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"
	"github.com/emersion/go-sasl"
)

const sample = "From: =?utf-8?q?Zo=C3=AB?= <zoe@z.test>\r\n" +
	"To: Bob <bob@b.test>, carol@c.test\r\n" +
	"Subject: With an attachment\r\n" +
	"Date: Mon, 2 Mar 2020 23:30:00 -0500\r\n" +
	"Message-ID: <one@z.test>\r\n" +
	"MIME-Version: 1.0\r\n" +
	"Content-Type: multipart/mixed; boundary=b1\r\n" +
	"\r\n" +
	"--b1\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nHello\r\n" +
	"--b1\r\nContent-Type: application/octet-stream; name=x.bin\r\nContent-Transfer-Encoding: base64\r\n" +
	"Content-Disposition: attachment; filename=x.bin\r\n\r\nAAEC/w==\r\n--b1--\r\n"

// A client written by others does what clients do.
func TestForeignClient(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	news := make(chan uint32, 10)
	c, err := imapclient.DialInsecure(r.addr, &imapclient.Options{
		UnilateralDataHandler: &imapclient.UnilateralDataHandler{
			Mailbox: func(data *imapclient.UnilateralDataMailbox) {
				if data.NumMessages != nil {
					news <- *data.NumMessages
				}
			},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(c.Authenticate(sasl.NewPlainClient("", "alice", "secret")))
	must(c.Create("Archive/2020", &imap.CreateOptions{SpecialUse: []imap.MailboxAttr{imap.MailboxAttrArchive}}).Wait())
	must(c.Subscribe("Archive/2020").Wait())
	boxes, err := c.List("", "*", &imap.ListOptions{ReturnSubscribed: true, ReturnStatus: &imap.StatusOptions{NumMessages: true, Size: true}}).Collect()
	must(err)
	if len(boxes) != 3 || boxes[0].Mailbox != "INBOX" || boxes[0].Status == nil || boxes[2].Mailbox != "Archive/2020" {
		t.Errorf("LIST: %+v", boxes)
	}

	date := time.Date(2021, 5, 6, 7, 8, 9, 0, time.UTC)
	app := c.Append("INBOX", int64(len(sample)), &imap.AppendOptions{Flags: []imap.Flag{imap.FlagFlagged, "$Forwarded"}, Time: date})
	_, err = io.WriteString(app, sample)
	must(err)
	must(app.Close())
	appended, err := app.Wait()
	must(err)
	if appended.UID != 1 || appended.UIDValidity == 0 {
		t.Errorf("APPEND: %+v", appended)
	}
	selected, err := c.Select("INBOX", &imap.SelectOptions{CondStore: true}).Wait()
	must(err)
	if selected.NumMessages != 1 || selected.UIDNext != 2 || selected.HighestModSeq == 0 || selected.UIDValidity != appended.UIDValidity {
		t.Errorf("SELECT: %+v", selected)
	}

	body := &imap.FetchItemBodySection{Peek: true}
	text := &imap.FetchItemBodySection{Part: []int{1}, Peek: true}
	binary := &imap.FetchItemBinarySection{Part: []int{2}, Peek: true}
	msgs, err := c.Fetch(imap.SeqSetNum(1), &imap.FetchOptions{
		Envelope: true, Flags: true, InternalDate: true, RFC822Size: true, UID: true, ModSeq: true,
		BodyStructure: &imap.FetchItemBodyStructure{Extended: true},
		BodySection:   []*imap.FetchItemBodySection{body, text},
		BinarySection: []*imap.FetchItemBinarySection{binary},
	}).Collect()
	must(err)
	if len(msgs) != 1 {
		t.Fatalf("FETCH: %d messages", len(msgs))
	}
	m := msgs[0]
	if m.Envelope.Subject != "With an attachment" || m.Envelope.From[0].Name != "Zoë" || len(m.Envelope.To) != 2 || m.Envelope.MessageID != "one@z.test" {
		t.Errorf("envelope: %+v", m.Envelope)
	}
	if !m.InternalDate.Equal(date) || m.RFC822Size != int64(len(sample)) || m.UID != 1 || m.ModSeq == 0 || len(m.Flags) != 2 {
		t.Errorf("message: %v %d %d %d %v", m.InternalDate, m.RFC822Size, m.UID, m.ModSeq, m.Flags)
	}
	if got := m.FindBodySection(body); string(got) != sample {
		t.Errorf("body is %q", got)
	}
	if got := m.FindBodySection(text); string(got) != "Hello" {
		t.Errorf("text is %q", got)
	}
	if got := m.FindBinarySection(binary); !bytes.Equal(got, []byte{0, 1, 2, 255}) {
		t.Errorf("binary is %q", got)
	}
	mixed, ok := m.BodyStructure.(*imap.BodyStructureMultiPart)
	if !ok || mixed.Subtype != "mixed" || len(mixed.Children) != 2 || mixed.Children[1].(*imap.BodyStructureSinglePart).Filename() != "x.bin" {
		t.Errorf("structure: %+v", m.BodyStructure)
	}

	found, err := c.UIDSearch(&imap.SearchCriteria{Header: []imap.SearchCriteriaHeaderField{{Key: "From", Value: "zoë"}}, Flag: []imap.Flag{imap.FlagFlagged}},
		&imap.SearchOptions{ReturnAll: true, ReturnCount: true}).Wait()
	must(err)
	if found.Count != 1 || len(found.AllUIDs()) != 1 {
		t.Errorf("SEARCH: %+v", found)
	}
	stored, err := c.Store(imap.SeqSetNum(1), &imap.StoreFlags{Op: imap.StoreFlagsAdd, Flags: []imap.Flag{imap.FlagSeen}}, nil).Collect()
	must(err)
	if len(stored) != 1 || len(stored[0].Flags) != 3 {
		t.Errorf("STORE: %+v", stored)
	}
	copied, err := c.Copy(imap.SeqSetNum(1), "Archive/2020").Wait()
	must(err)
	if copied.UIDValidity == 0 || copied.DestUIDs.String() != "1" {
		t.Errorf("COPY: %+v", copied)
	}
	moved, err := c.Move(imap.UIDSetNum(1), "Archive/2020").Wait()
	must(err)
	if moved.DestUIDs.String() != "2" {
		t.Errorf("MOVE: %+v", moved)
	}
	if n := c.Mailbox().NumMessages; n != 0 {
		t.Errorf("%d messages after MOVE", n)
	}

	idle, err := c.Idle()
	must(err)
	r.deliver("alice", "INBOX", sample, sample)
	for got := uint32(0); got != 2; {
		select {
		case got = <-news:
		case <-time.After(20 * time.Second):
			t.Fatal("nothing is told during IDLE")
		}
	}
	must(idle.Close())
	must(idle.Wait())
	_, err = c.Store(imap.SeqSetNum(1), &imap.StoreFlags{Op: imap.StoreFlagsSet, Flags: []imap.Flag{imap.FlagDeleted}, Silent: true}, nil).Collect()
	must(err)
	gone, err := c.Expunge().Collect()
	must(err)
	if len(gone) != 1 || gone[0] != 1 {
		t.Errorf("EXPUNGE: %v", gone)
	}
	status, err := c.Status("Archive/2020", &imap.StatusOptions{NumMessages: true, UIDNext: true, NumUnseen: true, Size: true, HighestModSeq: true}).Wait()
	must(err)
	if *status.NumMessages != 2 || status.UIDNext != 3 || *status.NumUnseen != 0 || *status.Size != int64(2*len(sample)) {
		t.Errorf("STATUS: %+v", status)
	}
	ns, err := c.Namespace().Wait()
	must(err)
	if len(ns.Personal) != 1 || ns.Personal[0].Delim != '/' {
		t.Errorf("NAMESPACE: %+v", ns)
	}
	must(c.Unselect().Wait())
	must(c.Delete("Archive/2020").Wait())
	must(c.Logout().Wait())
}
