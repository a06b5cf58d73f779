// Package access decides who may see and do what in the directory, by rules that lie in it.
//
// # Rules
//
// A rule is a value of shoalAccess of any entry, and is about that entry and what lies under it:
//
//	rule    = "{" number [ ";" version ] "}" "to" what 1*( "by" who ( rights [ "break" ] / "break" ) )
//	what    = "*" / 1*( dn / filter / attrs )
//	dn      = "dn" [ "." scope ] "=" text           ; without a scope: the entry itself
//	scope   = "base" / "exact" / "one" / "subtree" / "children"
//	filter  = "filter=" text                        ; RFC 4515
//	attrs   = "attrs=" name *( "," name )           ; "@class": those of a class; "entry", "children": as below
//	who     = "*" / 1*condition                     ; all of them must hold
//	condition = "anonymous" / "users" / "self" / "domain" / "colleagues" / "administrators" / dn
//	          / "group=" text / "role=" ( "*" / role *( "," role ) )
//	rights  = [ "=" ] right *( "," right )
//	right   = "none" / "auth" / "compare" / "search" / "read" / "add" / "delete" / "write" / "manage"
//	          / "password" / "replicate"
//	text    = word / <"> characters <">             ; in quotes, \" and \\ stand for " and \
//
// Words are separated by spaces and line ends. Without "=" a right brings those before it: compare auth; search compare and
// auth; read all of them; add and delete are read and one half of write; manage is write, and the change of what gives
// rights (shoalAccess, shoalAdministrator, shoalRole). With "=" it is exactly what is named.
//
// entry stands for the entry itself: reading it shows that it is there; adding, deleting and renaming it need add and delete
// of entry, and of children of the entry above.
//
// # Order
//
// For each attribute of an entry these are put together:
//
//	the service's own rules (builtin.go)     all that match count: nobody can take from a server what it needs
//	the rules in the directory               those of the nearest entry first, each entry's in the order of their
//	                                         numbers; the first that is about the attribute decides, by its first
//	                                         "by" that names the one who asks, and gives nothing if none does;
//	                                         "break" goes on to the next rule
//	the default rules (builtin.go)           as if they stood after all others
//
// Secrets are read by nobody but whom a rule of the service's own names for exactly that attribute.
// The root DN is asked nothing.
//
// # Versions
//
// This package knows version 1. A rule that it cannot read, because it is of a later version or damaged, denies everything
// to everybody at its place, but for what the service's own rules give.
//
// # Invariants
//
// What is compiled for an identity is true for one state of what is watched (Watched); the session asks anew when that
// changes. A decision depends on nothing but the identity, the entry and the rules, so it is the same on every shadow.
// Rules are written only if they can be read (Check).
//
// Left out on purpose: conditions on addresses and encryption of connections, on values, and sets as OpenLDAP has them.
package access
