package lmtpsession

import (
	"context"
	"fmt"
	"testing"

	"shoal/daemons/internal/dirclient"
)

type policy struct{ value string }

func (p *policy) Domain(context.Context, string) (*dirclient.Domain, error) {
	return &dirclient.Domain{Name: "d.test", Status: dirclient.StatusActive, Subaddress: p.value}, nil
}

// Where mail for user+detail goes is the domain's policy; the detail comes as ORCPT.
func TestSubaddressPolicy(t *testing.T) {
	p := &policy{}
	alice := *people["alice@d.test"]
	alice.Addresses = []string{"alice@d.test", "alias@d.test"}
	r := newRig(t, func(o *Options) { o.Domains, o.Separators, o.Accounts = p, "+", directory{"alice@d.test": &alice} })
	a, err := r.store.Account(t.Context(), people["alice@d.test"].Volume, people["alice@d.test"].ID)
	if err != nil {
		t.Fatal(err)
	}
	where := func() (out string) {
		list, err := a.Mailboxes(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range list {
			box, err := a.OpenID(t.Context(), m.ID)
			if err != nil {
				t.Fatal(err)
			}
			st, err := box.State(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			out += fmt.Sprintf("%s %d %v;", m.Name, st.Len(), m.Subscribed)
		}
		return out
	}
	deliver := func(orcpt string) {
		r.play(hello + "C1: MAIL FROM:<x@far.test>\nS1: 250 {{.*}}\nC1: RCPT TO:<alice@d.test> ORCPT=rfc822;" + orcpt +
			"\nS1: 250 {{.*}}\nC1: DATA\nS1: 354 {{.*}}\nC1!: text\\r\\n.\\r\\n\nS1: 250 {{.*}}\n")
	}
	for _, x := range []struct{ policy, orcpt, want string }{
		{"", "alice+2Blists@d.test", "INBOX 1 true;"},
		{dirclient.SubaddressInbox, "alice+2Blists@d.test", "INBOX 2 true;"},
		{dirclient.SubaddressFolder, "alice+2Blists@d.test", "INBOX 3 true;"},
		{dirclient.SubaddressCreate, "alice+2Blists@d.test", "INBOX 3 true;lists 1 true;"},
		{dirclient.SubaddressFolder, "alice+2BLISTS@d.test", "INBOX 3 true;lists 2 true;"},
		{dirclient.SubaddressCreate, "somebody+2Bother@d.test", "INBOX 4 true;lists 2 true;"}, // not an address of hers
		{dirclient.SubaddressCreate, "alice+2Ba/b@d.test", "INBOX 5 true;lists 2 true;"},
		{dirclient.SubaddressCreate, "alice+2Binbox@d.test", "INBOX 6 true;lists 2 true;"},
	} {
		p.value = x.policy
		deliver(x.orcpt)
		if got := where(); got != x.want {
			t.Errorf("policy %q, %s: %s, want %s", x.policy, x.orcpt, got, x.want)
		}
	}
}
