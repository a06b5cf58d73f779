// Package sievesession serves ManageSieve (RFC 5804): the way for a user's program to put Sieve scripts onto the
// account's volume, where the delivery finds them on any server.
//
//	command   = atom *( SP argument ) CRLF             argument = string / number / script-name (a string)
//	string    = quoted / literal                       literal  = "{" number "+}" CRLF *OCTET
//	quoted    = DQUOTE *( safe / "\" ( DQUOTE / "\" ) ) DQUOTE, at most 1,024 octets
//	response  = ( "OK" / "NO" / "BYE" ) [ SP "(" code ")" ] [ SP string ] CRLF
//
//	not authenticated   CAPABILITY NOOP STARTTLS AUTHENTICATE LOGOUT
//	authenticated       CAPABILITY NOOP HAVESPACE PUTSCRIPT LISTSCRIPTS SETACTIVE GETSCRIPT DELETESCRIPT RENAMESCRIPT
//	                    CHECKSCRIPT UNAUTHENTICATE LOGOUT
//
// What a session promises:
//
//   - OK to PUTSCRIPT comes after the script was checked and is stable. A script with mistakes is refused with all of them,
//     each with its line and column (RFC 5804 §2.6).
//   - A session holds nothing: what it lists is what all servers see now.
//   - A password is taken under TLS only, unless Limits.AllowPlain is set.
//   - Everything that a client sends is bounded; a literal that is too large is read and thrown away before the refusal.
//
// Left out on purpose: other languages than English; referrals: every box has every account.
package sievesession
