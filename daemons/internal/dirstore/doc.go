// Package dirstore keeps the entries of one directory suffix in a bbolt database: named by
// distinguished names, checked against a schema, indexed, written in groups, read without decoding.
//
// # Format
//
// The file is <folder>/directory.db; beside it, while it is in use, lies directory.redo (redo.go). Integers are big-endian. Buckets:
//
//	meta    "format"     "shoal-directory 1.0", or "shoal-directory 2.0" while it has a redo log: another major version is refused
//	        "log"        id of the redo log, while there is one
//	        "suffix"     DN of the top entry in its normal form (dirschema)
//	        "contextcsn" CSNs of the newest change, joined by ';'
//	        "entries"    number of entries (8)
//	        "logfloor"   CSN below which changes are not in the log any more; "~" while a replica is
//	                     refreshed: the log is not in the order of the CSNs then
//	        "cookie"     of a replica: how far it has come, as its provider calls it; absent before
//	                     its first refresh was completed
//	        "indexes"    the indexes that are complete, one a line: attribute, or attribute:sub
//	        "droppedindexes" what is being removed, in the same form; attribute:sub stands for its kind 's'
//	                     only; see build.go
//	attr    id (2)    -> attribute description ("cn;lang-de"): what the ids in records mean
//	entry   id (8)    -> record, see record.go
//	tree    parent id (8), normal form of the RDN -> id (8)
//	        the suffix entry has parent 0 and the whole suffix as its RDN; other parents are > 0
//	index   attr id (2), kind (1), key, 0, id/256 (7) -> ids of that 256: up to 31 ascending octets,
//	        or a bitmap of 32 octets, least significant bit first
//	        kind 'e': key is the normal form of a value, from 129 octets on its first 112 and 16 of
//	        its SHA-256; 'p': key is empty, the entry has the attribute; 's': key is three octets
//	        that follow each other in 0x02, normal form, 0x03
//	log     sequence (8) -> the change, see changelog.go
//
// # Invariants
//
// An id is never used again. A write is acknowledged, and seen by readers, after its transaction is on the disk: in the redo log. Several
// waiting writes share a transaction; each is checked before it changes anything, so the failure of
// one leaves nothing behind. entryCSN and contextCSN of a master ascend strictly in the order of the
// commits; a replica has those of its provider.
// Secret attributes (userPassword) are never matched by a filter and are left out of results unless
// the caller asks for a replica's view.
//
// Left out on purpose: who may do what (the session's), knowledge of
// the protocol beyond the encoded form of attributes.
package dirstore
