// Package ldapsession serves LDAPv3 (RFC 4511) from a directory store.
//
// One goroutine reads a connection: it takes all requests that have arrived, carries them out, and
// sends all answers in one write. Three kinds of operations do not finish in that goroutine: searches
// with many candidates, updates (which wait for their group's commit) and persistent searches. Their
// answers come when they are ready, in any order, as RFC 4511 §3.1 allows.
//
// Order within one connection: updates take effect in the order in which they were sent. A search or
// compare sees the effect of every update sent before it. A bind waits until everything before it is
// finished (persistent searches are ended), and nothing after it begins before it is done; so does
// StartTLS, which refuses to run while anything is under way.
//
// Bounds: the size of a request (smaller before a bind), its filter, its controls; operations under
// way; entries and time of a search; the time to bind, to ask, to take answers. A client that takes
// no answers stops its own operations, and is cut off after Limits.Write. Passwords are hashed and
// verified by a bounded pool (Passwords).
//
// Between requests a connection holds a goroutine and a small struct, and no buffers.
//
// Binds are simple or SASL (sasl.go: EXTERNAL, PLAIN, SCRAM). Passwords are under a policy (policy.go); what is seen of
// failed logins is kept here and told to the directory together (failures.go).
//
// Left out on purpose: security layers of SASL; contexts of paged, sorted and windowed searches, each of which is made anew (sort.go); who may
// do what, which the caller decides by Options.Rights.
package ldapsession
