// Package relay works the queue: it takes the entries that are due, decides where their recipients go, tries,
// and writes down what came of it, with a bound on what one destination may take at once, a schedule for the next try, a
// warning, and a bounce at the end. The switch wires it to the queue, the routes, the boxes and the outside.
//
// # What becomes of a recipient
//
//	the directory cannot be asked       tried again
//	an account of ours                  to the boxes over LMTP: delivered, failed, or tried again
//	an alias, a forward                 expanded: new entries for those it stands for, with the sender, the life and the
//	                                    original recipient (ORCPT) of the old one
//	a domain of ours, nobody there      failed, 5.1.1
//	suspended                           tried again
//	anything else                       to other systems: relayed, failed, or tried again
//
// # When
//
// A new entry at once. After a try that did not succeed 1, 5, 15, 30, 60, 120 minutes later and then every max_retry, each
// a fifth more or less. The sender is warned once after warn_after; what has not succeeded when its life is over has failed.
//
// A destination (a domain, the smart host, all boxes together) takes first_concurrency at once, one more after
// each success, up to per_destination. One that cannot be reached is left alone for 1, 2, 4 ... 30 minutes (the boxes: 5 s to 1 minute), and its
// entries meanwhile are not tried: only their places in the schedule are moved. Entries that find all places of a destination taken wait
// in memory, a few, or come back later. So a slow or dead destination keeps nobody else waiting.
//
// # Notifications (RFC 3461)
//
// Failure, delay and, where asked for, success are reported to the sender; the report is in the queue before the recipient's state is
// written, so that it cannot be lost (a crash in between may send it twice). A report that cannot be delivered is never reported: it is
// dropped, logged (event=double_bounce) and counted. It is not sent to postmaster: nobody reads those, and the log has all of it.
// postmaster itself is a recipient like any other; where its mail goes is package route's to say.
//
// # Loops
//
// More than max_hops Received fields end a message. Aliases and forwards are followed to their ends at once, each met once. What is
// expanded gets a Delivered-To field with the address that was replaced; a message that has one for the address already has come round: 5.4.6.
//
// # Invariants
//
//   - A recipient's final state is recorded only after a 2yz or 5yz for it, at the end of its life, or when its successors are on stable storage.
//   - A crash between a 250 and its record sends again: at least once, never nought times.
//
// Left out on purpose: SRS and ARC for forwards, priorities, mailing lists.
package relay
