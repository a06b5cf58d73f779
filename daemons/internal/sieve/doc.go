// Package sieve compiles and runs Sieve scripts (RFC 5228): the rules by which an account sorts its mail.
//
// It decides and touches nothing: Run returns an Outcome, the list of actions that the scripts asked for, and
// whoever delivers carries them out after the last script has ended. What a script may ask of the world while it
// runs (does this mailbox exist, was this seen before) goes through Host.
//
//	src --lex--> tokens --parse--> nodes --compile--> statements --Run--> Outcome
//
// # Grammar (RFC 5228 §8)
//
//	commands     = *command
//	command      = identifier arguments ( ";" / block )         block = "{" commands "}"
//	arguments    = *argument [ test / test-list ]
//	argument     = string-list / number / tag                   tag = ":" identifier
//	string-list  = "[" string *( "," string ) "]" / string
//	test         = identifier arguments                         test-list = "(" test *( "," test ) ")"
//	string       = quoted-string / multi-line                   multi-line = "text:" ... CRLF "." CRLF
//	number       = 1*DIGIT [ "K" / "M" / "G" ]
//
// Lines may end in a bare LF. Tags may come in any order before the positional arguments.
//
// # Promises
//
//   - Compile reports every mistake with its line and column, and accepts nothing that Run would not understand.
//     The extensions are those of Capabilities; one must be named by require (or ihave) before it is used.
//   - Run ends: scripts have no loops but foreverypart, which goes over the parts of the message, and everything that
//     costs (steps, bytes of variables, pattern matching, actions, nesting of includes) is counted against Limits.
//   - When a script fails while it runs, Run returns its error together with an Outcome that keeps the message in
//     the inbox and does nothing else: a broken script never loses mail.
//   - A Script is immutable: any number of Runs may use it at once.
//
// Left out on purpose: regex, which no two servers agree on; replace and enclose (RFC 5703), which would change
// what a sender has signed; redirection lists (extlists).
package sieve

import "fmt"

// Capabilities are the extensions that scripts may require, by their names in the Sieve registry: what ManageSieve
// announces.
var Capabilities = []string{
	"body", "comparator-i;ascii-numeric", "copy", "date", "duplicate", "editheader", "encoded-character",
	"enotify", "envelope", "environment", "ereject", "extracttext", "fcc", "fileinto", "foreverypart", "ihave",
	"imap4flags", "include", "index", "mailbox", "mailboxid", "mime", "reject", "relational", "special-use",
	"spamtest", "spamtestplus", "subaddress", "vacation", "vacation-seconds", "variables", "virustest",
}

// builtin are capabilities that need no require, though a script may name them.
var builtin = []string{"comparator-i;octet", "comparator-i;ascii-casemap"}

// implied are the capabilities that come with another one.
var implied = map[string][]string{"vacation-seconds": {"vacation"}, "spamtestplus": {"spamtest"}}

// NotifyMethods are the URI schemes that notify knows (RFC 5435 §3).
var NotifyMethods = []string{"mailto"}

// Error is one mistake in a script. Line and Column count from 1; Column counts characters.
type Error struct {
	Script       string // its name, where it is known
	Line, Column int
	Text         string
}

func (e *Error) Error() string {
	if e.Script != "" {
		return fmt.Sprintf("%s: line %d, column %d: %s", e.Script, e.Line, e.Column, e.Text)
	}
	return fmt.Sprintf("line %d, column %d: %s", e.Line, e.Column, e.Text)
}

// Errors are all mistakes that Compile found, in the order of the script.
type Errors []*Error

func (l Errors) Error() string {
	if len(l) == 1 {
		return l[0].Error()
	}
	return fmt.Sprintf("%v (and %d more)", l[0], len(l)-1)
}

// maxErrors is how many mistakes are reported of one script.
const maxErrors = 20
