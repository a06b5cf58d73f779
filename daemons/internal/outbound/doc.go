// Package outbound delivers one message over SMTP to another mail system: through the mail exchangers of a domain
// (RFC 5321 §5) or a smart host, with opportunistic TLS, and tells the outcome of each recipient.
//
// # Where to
//
//	[address]                   that address
//	domain with MX              by preference, equal ones in random order, each host by IPv6 and IPv4
//	domain without MX           its own addresses (RFC 5321 §5.1)
//	domain with MX 0 "."        refused for good: 5.1.10 (RFC 7505)
//	no such domain              refused for good: 5.1.2
//	the resolver fails          try again later: 4.4.3
//
// An exchanger that is this server itself, by name or address, is left out with all that are not preferred to it; when none
// remains, the mail would come back: 5.4.6. Loopback and unspecified addresses are never connected to.
//
// # On the wire
//
//	EHLO, HELO where that is refused; STARTTLS where offered; AUTH at a smart host
//	MAIL and RCPT in one write where PIPELINING is offered; SIZE, BODY, SMTPUTF8, RET, ENVID, NOTIFY, ORCPT likewise
//	DATA: lines end in CRLF, always; a CR or LF that stands alone becomes a line end, and each line that begins
//	with a dot gets another one, so that no receiver can find an end of data, or a command, in a message
//
// # Promises
//
//   - A recipient counts as taken only when its RCPT and the message were answered 2yz.
//   - Until the last octet of a message has been sent, a server that fails is replaced by the next one. After that, without an answer, it
//     may have been taken: the outcome is temporary, and it is said.
//   - A message whose reader fails is never ended with a dot.
//   - Every wait has a bound, and every reply is bounded in size.
//   - Trouble of our own (a wrong password for the smart host, no TLS where it is demanded) is never a reason to bounce.
//
// Left out on purpose: DANE and MTA-STS, conversion of 8-bit content, CHUNKING, and when to try again, which is the caller's.
package outbound
