// Package outbound delivers one message over SMTP to another mail system: through the mail exchangers of a domain
// (RFC 5321 §5) or a smart host, with opportunistic TLS, and tells the outcome of each recipient.
package outbound
