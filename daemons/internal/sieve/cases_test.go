package sieve

// cases are scripts, run over plainMail where no other is given, with what they are to do. Those that are not alone
// are run by Dovecot's sieve-test as well.
var cases = []struct {
	name, script, mail, want, fails string
	alone                           bool
}{
	{name: "nothing", script: ``, want: "store INBOX"},
	{name: "comments", script: "# a\n/* b\n */ keep; # c", want: "store INBOX"},
	{name: "discard", script: `discard;`, want: ""},
	{name: "keep wins", script: `discard; keep;`, want: "store INBOX"},
	{name: "stop", script: `stop; discard;`, want: "store INBOX"},
	{name: "fileinto", script: `require "fileinto"; fileinto "work";`, want: "store work"},
	{name: "fileinto and keep", script: `require "fileinto"; fileinto "work"; keep;`, want: "store work; store INBOX"},
	{name: "twice into one", script: `require ["fileinto","imap4flags"]; fileinto :flags "\\Seen" "work"; fileinto :flags "x" "work";`, want: `store work [\Seen x]`, alone: true},
	{name: "copy", script: `require ["fileinto","copy"]; fileinto :copy "work"; redirect :copy "x@y.test";`, want: "store work; redirect x@y.test; store INBOX"},
	{name: "redirect", script: `redirect "x@y.test";`, want: "redirect x@y.test"},
	{name: "redirect with a name", script: `redirect "X <x@y.test>";`, want: "redirect x@y.test"},
	{name: "elsif", script: `require "fileinto"; if false { fileinto "a"; } elsif true { fileinto "b"; } else { fileinto "c"; }`, want: "store b"},
	{name: "else", script: `require "fileinto"; if false { fileinto "a"; } elsif not true { fileinto "b"; } else { fileinto "c"; }`, want: "store c"},
	{name: "allof anyof", script: `if allof (true, anyof (false, true), not allof (true, false)) { discard; }`},
	{name: "size", script: `if allof (size :over 100, size :under 1K, not size :over 1M) { discard; }`, mail: "Subject: x\n\n1234567890123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890\n"},

	{name: "header is", script: `if header "subject" "GRüße from the  sea" { discard; }`},
	{name: "header is not", script: `if header "subject" "from the sea" { discard; }`, want: "store INBOX"},
	{name: "header octet", script: `if header :comparator "i;octet" :contains "subject" "SEA" { discard; }`, want: "store INBOX"},
	{name: "header contains", script: `if header :contains ["x-none", "Subject"] ["nothing", "THE  SEA"] { discard; }`},
	{name: "header empty", script: `if header :contains "X-None" "" { discard; }`, want: "store INBOX"},
	{name: "header matches", script: `if header :matches "Subject" "*from*s?a" { discard; }`},
	{name: "exists", script: `if exists ["from", "To"] { discard; }`},
	{name: "exists not all", script: `if exists ["from", "X-None"] { discard; }`, want: "store INBOX"},
	{name: "address", script: `if address "from" "ANN+news@example.com" { discard; }`},
	{name: "address parts", script: `if allof (address :localpart "from" "ann+news", address :domain ["to", "cc"] "other.test") { discard; }`},
	{name: "address is no header", script: `if address :contains "from" "Ann Lee" { discard; }`, want: "store INBOX"},
	{name: "subaddress", script: `require "subaddress"; if allof (address :user "from" "ann", address :detail "from" "news") { discard; }`},
	{name: "no detail", script: `require "subaddress"; if address :detail :contains "to" "" { discard; }`, want: "store INBOX"},
	{name: "envelope", script: `require ["envelope","subaddress"]; if allof (envelope "from" "ann+news@example.com", envelope :detail "to" "lists") { discard; }`},

	{name: "count", script: `require "relational"; if allof (header :count "eq" "x-tag" "2", address :count "ge" ["to","cc"] "3") { discard; }`},
	{name: "count numeric", script: `require ["relational","comparator-i;ascii-numeric"]; if header :count "lt" :comparator "i;ascii-numeric" "x-tag" "10" { discard; }`},
	{name: "value", script: `require ["relational","comparator-i;ascii-numeric"]; if header :value "gt" :comparator "i;ascii-numeric" "x-count" "9" { discard; }`},
	{name: "value text", script: `require "relational"; if header :value "gt" "x-count" "9" { discard; }`, want: "store INBOX"},
	{name: "numeric infinity", script: `require ["relational","comparator-i;ascii-numeric"]; if header :value "gt" :comparator "i;ascii-numeric" "from" "99999999999" { discard; }`},

	{name: "variables", script: `require ["variables","fileinto"]; set "a" "x"; set "B" "${a}y"; fileinto "${b}${none}${A}";`, want: "store xyx"},
	{name: "no reference", script: `require ["variables","fileinto"]; set "a" "x"; fileinto "$a ${ a} ${a";`, want: "store $a ${ a} ${a"},
	{name: "match variables", script: `require ["variables","fileinto"]; if header :matches "x-tag" "*w?" { fileinto "${1} ${2} ${0} ${7}"; }`, want: "store t o two "},
	{name: "match keeps", script: `require ["variables","fileinto"]; if header :matches "x-tag" "*w?" {} if header :matches "subject" "nothing*" {} fileinto "${1}";`, want: "store t"},
	{name: "modifiers", script: `require ["variables","fileinto"]; set :lower :upperfirst "a" "jUST a*"; set :length "n" "${a}"; set :quotewildcard "q" "${a}"; fileinto "${a} ${n} ${q}";`, want: `store Just a* 7 Just a\*`},
	{name: "string", script: `require "variables"; set "a" "x"; if allof (string "${a}" "x", string :matches "abc" "a*") { discard; }`},
	{name: "string in another case", script: `require "variables"; set "a" "x"; if string "${a}" "X" { discard; }`, alone: true}, // RFC 5228 §2.7.3; Dovecot compares octets here
	{name: "string count", script: `require ["variables","relational"]; if string :count "eq" ["", "b", ""] "1" { discard; }`},
	{name: "encoded", script: `require ["encoded-character","fileinto"]; fileinto "${hex:41 62}${unicode:fc}${hex:zz}";`, want: "store Abü${hex:zz}"},
	{name: "encoded makes a reference", script: `require ["encoded-character","variables","fileinto"]; set "a" "x"; fileinto "${hex:24}{a}";`, want: "store x"},
	{name: "multi-line", script: "require \"fileinto\"; if header :contains \"subject\" text: # comment\nsea\n..\n.\n{ discard; }", want: "store INBOX"},

	{name: "flags", script: `require "imap4flags"; setflag "\\Seen"; addflag ["\\flagged x", "X", "\\Bad", "b(d"]; removeflag "\\Seen"; keep;`, want: `store INBOX [\Flagged x]`},
	{name: "flags of the action", script: `require ["imap4flags","fileinto"]; addflag "\\Seen"; fileinto :flags "y" "work"; keep :flags "";`, want: `store work [y]; store INBOX`, alone: true},
	{name: "hasflag", script: `require "imap4flags"; addflag ["a", "\\Seen"]; if allof (hasflag "A", hasflag :contains "EEN", not hasflag "b", hasflag "b a") { discard; }`},
	{name: "flag variables", script: `require ["imap4flags","variables","fileinto"]; addflag "v" "a b"; removeflag "v" "A"; fileinto "f${v}";`, want: "store fb"},
	{name: "flags count", script: `require ["imap4flags","relational"]; addflag "a b"; if hasflag :count "eq" "2" { discard; }`},

	{name: "body", script: `require "body"; if body :contains "söa" { discard; }`},
	{name: "body raw", script: `require "body"; if allof (body :raw :contains "s=C3=B6a", body :raw :contains "JVBER", not body :contains "JVBER") { discard; }`},
	{name: "body content", script: `require "body"; if allof (body :content "text/html" :contains "inner text", body :content "application" :contains "%PDF") { discard; }`, alone: true},
	{name: "body content of messages", script: `require "body"; if body :content "message" :contains "inner" { discard; }`, alone: true},

	{name: "date", script: `require ["date","relational"]; if allof (date :originalzone "date" "hour" "12", date :zone "+0000" "date" "hour" "11", date :value "ge" "date" "year" "2026", date "date" "date" "2026-11-17") { discard; }`},
	{name: "date parts", script: `require "date"; if allof (date :originalzone "date" "weekday" "2", date :originalzone "date" "julian" "61361", date :originalzone "date" "iso8601" "2026-11-17T12:05:09+01:00", date :originalzone "date" "std11" "Tue, 17 Nov 2026 12:05:09 +0100", date :originalzone "date" "zone" "+0100", date :originalzone "date" "time" "12:05:09") { discard; }`},
	{name: "date of received", script: `require "date"; if date :zone "+0000" "received" "date" "2026-11-17" { discard; }`},
	{name: "date of nothing", script: `require "date"; if date :matches "x-tag" "year" "*" { discard; }`, want: "store INBOX"},
	{name: "currentdate", script: `require ["date","variables","fileinto"]; if currentdate :matches :zone "+0200" "iso8601" "*" { fileinto "${1}"; }`, want: "store 2026-11-18T00:04:05+02:00", alone: true},
	{name: "index", script: `require "index"; if allof (header :index 2 "x-tag" "two", header :index 1 :last "x-tag" "two", not header :index 3 :contains "x-tag" "") { discard; }`},

	{name: "mailboxexists", script: `require ["mailbox","fileinto"]; if mailboxexists ["work", "Junk"] { fileinto "work"; } if mailboxexists ["work", "none"] { discard; } fileinto :create "new";`, want: "store work; store new create", alone: true},
	{name: "mailboxid", script: `require ["mailboxid","fileinto"]; if mailboxidexists "F1" { fileinto :mailboxid "F1" "work"; } if mailboxidexists ["F1","F2"] { keep; }`, want: "store work id F1", alone: true},
	{name: "special-use", script: `require ["special-use","fileinto"]; if allof (specialuse_exists "\\Junk", specialuse_exists "Junk" ["\\Junk"], not specialuse_exists "work" "\\Junk") { fileinto :specialuse "\\Junk" "Spam"; }`, want: `store Spam use \Junk`, alone: true},

	{name: "foreverypart", script: `require ["foreverypart","mime","variables","fileinto"]; set "n" ""; foreverypart { if header :mime :contenttype :matches "Content-Type" "*" { set "n" "${n} ${1}"; } } fileinto "${n}";`, want: "store  multipart/mixed text/plain application/pdf message/rfc822 text/html"},
	{name: "nested foreverypart", script: `require ["foreverypart","mime","variables","fileinto"]; set "n" ""; foreverypart { foreverypart { if header :mime :type :matches "Content-Type" "*" { set "n" "${n} ${1}"; } } break; } fileinto "${n}";`, want: "store  text application message text"},
	{name: "break by name", script: `require ["foreverypart","variables","fileinto"]; set "n" ""; foreverypart :name "o" { set "n" "${n}o"; foreverypart { set "n" "${n}i"; break :name "o"; } } fileinto "${n}";`, want: "store oi"},
	{name: "mime params", script: `require "mime"; if header :mime :anychild :param "filename" "content-disposition" "FISH.pdf" { discard; }`},
	{name: "mime top", script: `require "mime"; if header :mime :subtype "content-type" "pdf" { discard; }`, want: "store INBOX"},
	{name: "mime exists", script: `require "mime"; if allof (exists :mime :anychild "content-disposition", not exists :mime "content-disposition") { discard; }`},
	{name: "extracttext", script: `require ["foreverypart","mime","extracttext","variables","fileinto"]; foreverypart { if header :mime :contenttype "content-type" "text/plain" { extracttext :first 5 :upper "t"; } } fileinto "${t}";`, want: "store HELLO"},

	{name: "editheader", script: `require "editheader"; addheader "X-New" "new"; if header "x-new" "new" { keep; }`, want: "store INBOX edited", alone: true},
	{name: "deleteheader", script: `require "editheader"; deleteheader "x-tag" ["one"]; if allof (header "x-tag" "two", not header "x-tag" "one") { discard; }`},
	{name: "deleteheader count", script: `require ["editheader","relational"]; deleteheader :count "ge" "x-tag" "2"; if not exists "x-tag" { discard; }`, alone: true},
	{name: "deleteheader last", script: `require "editheader"; deleteheader :index 1 :last "x-tag"; if not header "x-tag" "two" { discard; }`},

	{name: "environment", script: `require "environment"; if allof (environment "location" "MDA", environment "phase" "during", not environment :contains "none" "") { discard; }`, alone: true},
	{name: "ihave", script: `require ["ihave","fileinto"]; if ihave "vnd.none" { nonsense :x "y"; } elsif ihave "copy" { fileinto :copy "work"; }`, want: "store work; store INBOX", alone: true},
	{name: "error", script: `require ["ihave","fileinto"]; fileinto "work"; error "no more";`, want: "store INBOX", fails: "no more"},
	{name: "spamtest", script: `require ["spamtest","spamtestplus","relational","comparator-i;ascii-numeric"]; if spamtest :value "eq" :comparator "i;ascii-numeric" "0" { discard; }`, alone: true},

	{name: "reject", script: `require "reject"; reject "go away";`, want: `reject false "go away"`},
	{name: "ereject", script: `require "ereject"; ereject "go away";`, want: `reject true "go away"`, alone: true},
	{name: "reject and keep", script: `require "reject"; reject "x"; keep;`, want: "store INBOX", fails: "cannot be rejected and kept"},
	{name: "reject twice", script: `require "reject"; reject "x"; reject "y";`, want: "store INBOX", fails: "twice"},

	{name: "vacation", script: `require "vacation"; vacation :days 3 "away";`, want: `vacation ann+news@example.com "Auto: Grüße from the  sea" "away" 72h0m0s; store INBOX`},
	{name: "vacation all", script: `require ["vacation","vacation-seconds","fcc","mailbox"]; vacation :seconds 7200 :subject "s" :from "bob@shoal.test" :addresses ["x@y.test"] :handle "h" :fcc "Sent" :create "away";`,
		want: `vacation ann+news@example.com "s" "away" 2h0m0s fcc Sent create; store INBOX`, alone: true},
	{name: "vacation twice", script: `require "vacation"; vacation "a"; vacation "b";`, want: "store INBOX", fails: "twice"},
	{name: "notify", script: `require ["enotify","variables"]; set "a" "mailto:me%40x@y.test"; notify "${a}";`, want: "store INBOX", fails: "notify", alone: true, mail: "x: y\n\n"},
	{name: "notify mailto", script: `require "enotify"; if valid_notify_method ["mailto:a@b.test"] { notify :importance "1" :message "mail!" "mailto:a@b.test?subject=a%20b&to=c@d.test"; }`, want: `notify [a@b.test c@d.test] 1 "mail!" [[subject a b]]; store INBOX`, alone: true},
	{name: "notify methods", script: `require "enotify"; if anyof (valid_notify_method "xmpp:a", not notify_method_capability "mailto:a@b.test" "Online" "maybe") { discard; }`, want: "store INBOX"},
	{name: "encodeurl", script: `require ["enotify","variables","fileinto"]; set :encodeurl "a" "x y&z"; fileinto "${a}";`, want: "store x%20y%26z"},
}
