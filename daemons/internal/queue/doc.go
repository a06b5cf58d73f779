// Package queue is the switches' mail queue on a shared volume: group commit of what is accepted, attempts
// with their outcomes, and adoption of what a dead switch left. It knows no protocol and sends nothing: it hands
// out leases on entries that are due, and is told what became of them.
//
// The format and the rules of ownership are docs/queue.md. Invariants:
//
//   - Enqueue returns without error only after the entry is on stable storage.
//   - An entry is handed out by the run that owns it only: the exclusive name of the next claim decides, looked at
//     before each attempt and again after it.
//   - A recipient with a final state is never handed out again by a run that could see that state.
//   - Nothing is unlinked before every recipient in it is final.
//
// Left out on purpose: routing, destinations' limits, retry schedules and bounces, which are the caller's; and
// locks.
package queue
