package relay

import (
	"slices"
	"strings"
	"testing"

	"shoal/daemons/internal/queue"
)

func TestAliasesAndForwards(t *testing.T) {
	g := newRig(t, nil)
	g.routes["team@here.test"] = "alias: bob@here.test kept@here.test carol@far.test dan@far.test eve@other.test team@here.test"
	g.routes["kept@here.test"] = "keep: kept@far.test"
	g.put("sender@away.test", "team@here.test")
	g.work()
	g.empty()
	if len(g.local.sent) != 1 || !slices.Equal(g.local.sent[0].to, []string{"bob@here.test", "kept@here.test"}) {
		t.Errorf("the boxes got %+v", g.local.sent)
	}
	var to []string
	for _, s := range g.remote.sent {
		to = append(to, strings.Join(s.to, " "))
		if s.from != "sender@away.test" || s.text != "Delivered-To: team@here.test\r\n"+text || s.orcpt[0] != "rfc822;team@here.test" {
			t.Errorf("sent %+v", s)
		}
	}
	slices.Sort(to)
	if want := []string{"eve@other.test", "kept@far.test carol@far.test dan@far.test"}; !slices.Equal(to, want) {
		t.Errorf("others got %q, want %q", to, want)
	}
}

// What an alias stands for has the life of the message that came for it, and its own failures.
func TestExpandedEntries(t *testing.T) {
	g := newRig(t, nil)
	g.routes["team@here.test"] = "alias: nobody@here.test carol@far.test"
	g.remote.answer["far.test"] = refused(451, "4.2.0", "later")
	g.put("alice@here.test", "team@here.test FAILURE rfc822;orig@here.test")
	for range 2 {
		g.step() // the alias, and one of its entries
	}
	list, err := g.q.List(0, 10)
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range list {
		if i.From != "" && (!i.Accepted.Equal(start) || !i.Expires.Equal(start.Add(g.r.s.ExpireAfter)) || i.Trace != "trace1") {
			t.Errorf("%+v", i)
		}
	}
	g.work()
	reports := g.reports()
	if len(reports) != 1 {
		t.Fatalf("%d reports", len(reports))
	}
	contains(t, reports[0], "Final-Recipient: rfc822; nobody@here.test", "Original-Recipient: rfc822; orig@here.test")
	if g.q.Len() != 1 {
		t.Errorf("%d entries", g.q.Len())
	}
}

func TestLoops(t *testing.T) {
	received := strings.Repeat("Received: from a by b; x\r\n", 101)
	for _, c := range []struct{ name, front, to, want string }{
		{"too many hops", received, "bob@far.test", "5.4.6"},
		{"too many hops to an alias", received, "team@here.test", "5.4.6"},
		{"as many as may be", strings.Repeat("Received: from a by b; x\r\n", 99), "bob@far.test", ""},
		{"sent on before", "X: y\r\nDELIVERED-TO : Team@here.test\r\n", "team@here.test", "5.4.6"},
		{"sent on by another", "Delivered-To: other@here.test\r\n", "team@here.test", ""},
		{"named in the body", "Subject: x\r\n\r\nDelivered-To: team@here.test\r\n", "team@here.test", ""},
		{"a circle of aliases", "", "circle@here.test", "5.4.6"},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := newRig(t, nil)
			g.routes["team@here.test"] = "alias: bob@far.test"
			g.routes["circle@here.test"] = "alias: circle2@here.test"
			g.routes["circle2@here.test"] = "alias: circle@here.test"
			g.enqueue(c.front+text, queue.Envelope{From: "alice@here.test", Recipients: []queue.Recipient{{Address: c.to}}, Accepted: start.Unix(),
				Expires: start.Add(g.r.s.ExpireAfter).Unix()})
			g.work()
			g.empty()
			reports := g.reports()
			switch {
			case c.want == "" && (len(reports) != 0 || len(g.remote.sent) != 1):
				t.Errorf("%d reports, %d sent", len(reports), len(g.remote.sent))
			case c.want != "" && (len(reports) != 1 || len(g.remote.sent) != 0):
				t.Errorf("%d reports, %d sent", len(reports), len(g.remote.sent))
			case c.want != "":
				contains(t, reports[0], "Status: "+c.want)
			}
		})
	}
}

// A directory that changes while entries are on their way: what was expanded is expanded again only where it must be.
func TestExpandedAgain(t *testing.T) {
	g := newRig(t, nil)
	g.routes["kept@here.test"] = "keep: kept@far.test"
	g.enqueue(text, queue.Envelope{From: "x@away.test", Recipients: []queue.Recipient{{Address: "kept@here.test", From: "team@here.test"}},
		Accepted: start.Unix(), Expires: start.Add(g.r.s.ExpireAfter).Unix()})
	g.work()
	g.empty()
	if len(g.local.sent) != 1 || len(g.remote.sent) != 0 {
		t.Errorf("boxes %+v, others %+v", g.local.sent, g.remote.sent)
	}
}
