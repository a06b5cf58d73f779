package mailstore

import "slices"

// ProblemKind says what is wrong, for programs.
type ProblemKind string

// The kinds of problems.
const (
	KindLog      ProblemKind = "log"      // a log that cannot be read: its mailbox or account cannot be served
	KindHole     ProblemKind = "hole"     // records behind a missing one, as a copy made of a log in use may have
	KindRecord   ProblemKind = "record"   // a record that does not parse, or is missing
	KindSnapshot ProblemKind = "snapshot" // a snapshot that says something else than the log
	KindState    ProblemKind = "state"    // a fold that breaks a rule
	KindFile     ProblemKind = "file"     // the file of a message is missing
	KindContent  ProblemKind = "content"  // the file of a message has another size or checksum than its name says
)

// Problem is something that Verify found wrong.
type Problem struct {
	Kind ProblemKind `json:"kind"`
	Path string      `json:"path"`
	What string      `json:"what"`
	// Account, Mailbox (an id) and UID say whose it is, where that is known.
	Account string `json:"account,omitempty"`
	Mailbox string `json:"mailbox,omitempty"`
	UID     uint32 `json:"uid,omitempty"`
}

func (p Problem) String() string { return p.Path + ": " + p.What }

// Orphan is a message file that no record names, older than the collector's age.
type Orphan struct {
	Account string `json:"account"`
	Mailbox string `json:"mailbox"`
	Path    string `json:"path"`
	Size    int64  `json:"size"`
	Valid   bool   `json:"valid"` // its content is what its name says
}

// Report is what Verify found.
type Report struct {
	Accounts  int   `json:"accounts"`
	Mailboxes int   `json:"mailboxes"`
	Messages  int   `json:"messages"`
	Records   int   `json:"records"`
	Snapshots int   `json:"snapshots"`
	Bytes     int64 `json:"bytes"`
	Read      int64 `json:"bytes_read"`
	// Moved accounts have only their closed log left on this volume.
	Moved int `json:"moved_accounts"`
	// Unreferenced message files are no problem: they may be deliveries in progress, or belong to
	// expunged messages; the collector deals with them. Orphans are those that it will remove.
	Unreferenced int      `json:"unreferenced"`
	Orphans      []Orphan `json:"orphans"`
	// Torn snapshots are no problem either: a power cut does that to those that nothing rests on yet. Nor are records
	// that cannot be read any more where a newer snapshot has what they said.
	Torn     int `json:"torn_snapshots"`
	Shadowed int `json:"shadowed_records"`
	// Unlisted mailboxes are deleted ones on their way to the trash, or were never finished.
	Unlisted int `json:"unlisted_mailboxes"`
	// Interest entries, and those older than a living server lets them grow; what lies in the trash.
	Interest      int       `json:"interest"`
	StaleInterest int       `json:"stale_interest"`
	Trash         int       `json:"trash"`
	Problems      []Problem `json:"problems"`
}

// Plus adds the report of what was checked later. A nil receiver is an empty report.
func (r *Report) Plus(o *Report) *Report {
	if r == nil {
		return o
	}
	return &Report{
		Accounts: r.Accounts + o.Accounts, Mailboxes: r.Mailboxes + o.Mailboxes, Messages: r.Messages + o.Messages,
		Records: r.Records + o.Records, Snapshots: r.Snapshots + o.Snapshots, Bytes: r.Bytes + o.Bytes, Read: r.Read + o.Read,
		Moved: r.Moved + o.Moved, Unreferenced: r.Unreferenced + o.Unreferenced, Orphans: slices.Concat(r.Orphans, o.Orphans),
		Torn: r.Torn + o.Torn, Shadowed: r.Shadowed + o.Shadowed, Unlisted: r.Unlisted + o.Unlisted,
		Interest: r.Interest + o.Interest, StaleInterest: r.StaleInterest + o.StaleInterest,
		Trash: o.Trash, Problems: slices.Concat(r.Problems, o.Problems),
	}
}

// Affected lists the accounts about which something was found, orphans included.
func (r *Report) Affected() []string {
	var out []string
	for _, p := range r.Problems {
		out = append(out, p.Account)
	}
	for _, o := range r.Orphans {
		out = append(out, o.Account)
	}
	slices.Sort(out)
	return slices.Compact(out)
}
