package imapsession

import (
	"crypto/tls"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"shoal/daemons/internal/clock"
	"shoal/daemons/internal/conf"
	"shoal/daemons/internal/imapwire"
	"shoal/daemons/internal/sasl"
	"shoal/daemons/internal/sharing"
)

// Options are what a server is made of. Store, Auth and Log are required.
type Options struct {
	Store Store
	Auth  sasl.Authenticator // *authn.Authenticator
	// Directory knows accounts and groups, for access lists: *dirclient.Client. nil: nobody but the user himself is known.
	Directory sharing.Directory
	TLS       *tls.Config           // for STARTTLS and for ServeTLS; nil: neither is offered
	Server    string                // name of this server, in the greeting and in ID
	Version   string                // in the answer to ID
	Log       *slog.Logger          // events of sessions, and the errors that end them
	Metrics   prometheus.Registerer // nil: metrics are counted and not shown
	Clock     clock.Clock           // nil: the system's
	Limits    Limits                // a zero value stands for the defaults as a whole
}

// Limits are the settings of IMAP: each one an attribute of the block imap in the configuration of
// boxd, with its default beside it.
type Limits struct {
	// AllowPlain permits LOGIN and AUTHENTICATE without TLS: for a network that nobody listens to.
	AllowPlain bool `hcl:"allow_plain,optional" conf:"live" default:"false"`
	// LoginTimeout ends a connection that has not logged in, IdleTimeout one that says nothing
	// (RFC 9051 §5.4 asks for at least 30 minutes).
	LoginTimeout time.Duration `hcl:"login_timeout,optional" conf:"live" default:"1m" min:"1s" max:"1h"`
	IdleTimeout  time.Duration `hcl:"idle_timeout,optional" conf:"live" default:"31m" min:"1m" max:"24h"`
	// ReadTimeout bounds the wait for more bytes of a command that has begun, WriteTimeout the wait
	// for a client that does not take its answer.
	ReadTimeout  time.Duration `hcl:"read_timeout,optional" conf:"live" default:"2m" min:"1s" max:"1h"`
	WriteTimeout time.Duration `hcl:"write_timeout,optional" conf:"live" default:"2m" min:"1s" max:"1h"`
	// CommandTimeout bounds the work for one command that waits for the store or the directory.
	CommandTimeout time.Duration `hcl:"command_timeout,optional" conf:"live" default:"5m" min:"1s" max:"1h"`
	// BadCommands in a row end the connection; LoginFailures on one connection do too.
	BadCommands   int `hcl:"bad_commands,optional" conf:"live" default:"3" min:"1" max:"1000"`
	LoginFailures int `hcl:"login_failures,optional" conf:"live" default:"4" min:"1" max:"1000"`
	// PreLoginCommands bounds the commands before a login.
	PreLoginCommands int `hcl:"pre_login_commands,optional" conf:"live" default:"50" min:"2" max:"10000"`
	// MaxConnections bounds all IMAP connections of the server, MaxPerAddress those from one client
	// address, MaxPerUser those logged in to one account.
	MaxConnections int `hcl:"max_connections,optional" conf:"live" default:"50000" min:"1" max:"10000000"`
	MaxPerAddress  int `hcl:"max_connections_per_address,optional" conf:"live" default:"1000" min:"1" max:"10000000"`
	MaxPerUser     int `hcl:"max_connections_per_user,optional" conf:"live" default:"100" min:"1" max:"1000000"`
	// AppendLimit is the largest message that APPEND takes.
	AppendLimit conf.Size `hcl:"append_limit,optional" conf:"live" default:"64 MiB" min:"1 KiB" max:"4 GiB"`
	// LineLimit bounds a command line, LiteralLimit a literal that is not a message, CommandLimit a
	// command with all its lines and such literals.
	LineLimit    conf.Size `hcl:"line_limit,optional" conf:"live" default:"64 KiB" min:"8 KiB" max:"16 MiB"`
	LiteralLimit conf.Size `hcl:"literal_limit,optional" conf:"live" default:"64 KiB" min:"1 KiB" max:"16 MiB"`
	CommandLimit conf.Size `hcl:"command_limit,optional" conf:"live" default:"256 KiB" min:"8 KiB" max:"64 MiB"`
	// Nesting bounds parentheses, SetRanges the runs of numbers in one message set, SearchKeys the
	// keys of one SEARCH, FetchItems the items of one FETCH.
	Nesting    int `hcl:"nesting,optional" conf:"live" default:"32" min:"4" max:"1000"`
	SetRanges  int `hcl:"set_ranges,optional" conf:"live" default:"16384" min:"100" max:"1000000"`
	SearchKeys int `hcl:"search_keys,optional" conf:"live" default:"1000" min:"10" max:"100000"`
	FetchItems int `hcl:"fetch_items,optional" conf:"live" default:"256" min:"10" max:"10000"`
	// MailboxNameLimit is the longest name of a mailbox in bytes of UTF-8, MailboxLevels the deepest.
	MailboxNameLimit int `hcl:"mailbox_name_limit,optional" conf:"live" default:"500" min:"16" max:"700"`
	MailboxLevels    int `hcl:"mailbox_levels,optional" conf:"live" default:"32" min:"1" max:"100"`
	// SubmitUsers are the addresses, separated by spaces, of accounts that submission servers log in as: they may use the URLs
	// that URLAUTH makes for submission.
	SubmitUsers string `hcl:"submit_users,optional" conf:"live" default:""`
	// MessageLimit bounds the messages that one command works on (RFC 9738, which asks for at least 1000), 0: no bound.
	MessageLimit int `hcl:"message_limit,optional" conf:"live" default:"0" min:"0" max:"100000000"`
	// ProgressInterval is how often a command that takes long says how far it is.
	ProgressInterval time.Duration `hcl:"progress_interval,optional" conf:"live" default:"10s" min:"1s" max:"1h"`
	// NotifyMailboxes bounds the mailboxes that NOTIFY watches for one connection.
	NotifyMailboxes int `hcl:"notify_mailboxes,optional" conf:"live" default:"500" min:"1" max:"100000"`
	// OtherUsers and PublicFolders are what the names of other users' and of public mailboxes begin with; empty: there are none.
	OtherUsers    string `hcl:"other_users,optional" conf:"live" default:"Other Users"`
	PublicFolders string `hcl:"public_folders,optional" conf:"live" default:"Public Folders"`
	// ACLEntries bounds the access list of a mailbox.
	ACLEntries int `hcl:"acl_entries,optional" conf:"live" default:"200" min:"10" max:"10000"`
	// Annotations bounds the annotations of a mailbox, or of the server, that one account keeps, AnnotationSize the value of one,
	// AnnotationStorage all that an account keeps together.
	Annotations       int       `hcl:"annotations,optional" conf:"live" default:"100" min:"10" max:"10000"`
	AnnotationSize    conf.Size `hcl:"annotation_size,optional" conf:"live" default:"16 KiB" min:"1 KiB" max:"512 KiB"`
	AnnotationStorage conf.Size `hcl:"annotation_storage,optional" conf:"live" default:"1 MiB" min:"64 KiB" max:"64 MiB"`
	// ServerComment and AdminContact are what clients are told as annotations of the server (RFC 5464); AdminContact is a URI.
	ServerComment string `hcl:"server_comment,optional" conf:"live"`
	AdminContact  string `hcl:"admin_contact,optional" conf:"live"`
	// Keywords bounds the keywords of one message.
	Keywords int `hcl:"keywords,optional" conf:"live" default:"64" min:"1" max:"1000"`
}

// DefaultLimits are the limits of a server whose configuration says nothing.
func DefaultLimits() Limits {
	var l Limits
	conf.SetDefaults(&l)
	return l
}

// bounds are Limits as a session uses them: with those of the codec, before and after the login.
type bounds struct {
	Limits
	fresh, trusted imapwire.Limits
}

// The codec's limits before a login, beyond which no login goes.
const (
	freshLine    = 16 << 10
	freshLiteral = 8 << 10
	freshCommand = 32 << 10
)

func newBounds(l Limits) *bounds {
	b := &bounds{Limits: l, trusted: l.wire()}
	b.fresh = b.trusted
	b.fresh.Line = min(b.fresh.Line, freshLine)
	b.fresh.Literal = min(b.fresh.Literal, freshLiteral)
	b.fresh.Command = min(b.fresh.Command, freshCommand)
	return b
}

func (l *Limits) wire() imapwire.Limits {
	return imapwire.Limits{
		Line:       int(l.LineLimit),
		Literal:    int64(l.LiteralLimit),
		Command:    int64(l.CommandLimit),
		Nesting:    l.Nesting,
		SetRanges:  l.SetRanges,
		SearchKeys: l.SearchKeys,
		FetchItems: l.FetchItems,
	}.WithDefaults()
}
