// Package mailstore keeps mail on volumes that any number of servers use at the same time, without a lock, a
// database or an owner of a mailbox. A mailbox is a log of symbolic links and a heap of immutable message files;
// docs/store.md is the format and its rules, word for word what this package does.
//
// Invariants, on which the rest stands:
//
//   - Whoever creates log/<k>/<N> has committed record N; the state is the fold of the records, the same on every
//     server. UIDs come from the fold and ascend; the mod-sequence is N.
//   - A message file is stable before the record that names it, and never changes.
//   - A floor is created before the first record under it is removed. What was read counts only if a listing of w/
//     made after it shows no floor over the segment that reading began with.
//   - Nothing is acknowledged before its record is verified in that way and durable.
//   - Names made from nonces are used once.
//
// How it is built: layout, ids, record, mailop, acctop are the format; fold and state make immutable states of
// a mailbox, acctstate of an account; snapshot, mailsnap and acctsnap write and read them; journal, load and
// commit drive one log by the rules; compact, collect, trash and maintain tidy up; store, account, mailbox, copy,
// stage, deliver, messagefile and watch are what callers see; cache* keep what was derived from messages; verify
// checks it all.
//
// A store has one journal per log, and with it one committer: callers that come together share a record.
// Every file operation goes through vfs and counts against a bound per volume.
//
// Left out on purpose: protocols, quotas (sums over states), search, parsing of messages, directory and
// authentication. The package never sleeps on behalf of a caller except after a lost race.
package mailstore
