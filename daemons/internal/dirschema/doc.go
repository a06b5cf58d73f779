// Package dirschema knows what attributes and values of the directory mean: attribute types, object
// classes, syntaxes and matching rules (RFC 4512, 4517, 4518), and distinguished names (RFC 4514).
//
// Schema files are in the form that OpenLDAP loads: attributetype, objectclass and objectidentifier
// directives whose argument is a description of RFC 4512 §4.1, '#' comments, continuation lines that
// begin with white space. The files of the service are embedded (schema/); 0-system.schema holds what
// OpenLDAP has in its program, all others load there too.
//
// Every matching rule works by a normal form: Normalize maps a value to bytes such that two values
// match if and only if the bytes are equal, and for the ordering rules such that the bytes compare as
// the values do. Normal forms are what indexes hold on disk, so a change of one is a change of the
// store's format.
//
// Invariants: a *Schema is immutable once loaded and may be used from any goroutine. An object
// identifier and a name belong to one definition.
//
// Left out on purpose: DIT content rules, structure rules, name forms, collective attributes; bidi
// and unassigned-code-point checks of RFC 4518 §2.4 (a value is not refused for them).
package dirschema
