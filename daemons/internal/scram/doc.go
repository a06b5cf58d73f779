// Package scram is SCRAM, the salted challenge response mechanism of SASL: its stored verifiers, and both sides
// of the exchange (RFC 5802 with SHA-1, RFC 7677 with SHA-256), with channel bindings (RFC 5929, RFC 9266).
//
// A verifier lets a server check that a client knows the password, and proves to the client that the server knows
// the verifier; the password itself is in neither, and never on the wire. It is kept as text in the form of RFC 5803:
//
//	SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>      base64
//
// Who steals a verifier can guess passwords at the cost of its iterations, and can play the server; he cannot log in
// with it. Verifiers are therefore secrets like password hashes.
//
// The exchange, without the framing of the protocol that carries it:
//
//	client-first  = gs2-cbind-flag "," ["a=" authzid] "," "n=" name ",r=" nonce ["," extensions]
//	server-first  = "r=" nonce nonce ",s=" base64 ",i=" number
//	client-final  = "c=" base64(gs2-header [cbind-data]) ",r=" nonce nonce ["," extensions] ",p=" base64
//	server-final  = "v=" base64 / "e=" error
//
// Invariants: every message is bounded; proofs are compared in constant time; a name that nobody has is answered with
// a salt of its own that is the same each time (Fake), and fails where a wrong password fails. A mechanism with -PLUS
// is complete only when the client's channel binding is that of this connection, and a client that says that the
// server offers none, where it does, is refused: somebody took the offer away on its way (RFC 5802 §6).
//
// Left out on purpose: tls-unique without the extended master secret, without which two connections can be made to
// have the same (TLS 1.3 has none at all), mandatory extensions (none is defined; "m=" is refused), and who may act for whom: the caller gets the
// authorization identity.
package scram
