// Package floors holds the rules of the repository that a compiler does not know, as tests:
//
//	floors_test.go     packages import strictly downward, by the list in daemons/internal/FLOORS
//	settings_test.go   docs/configuration.md has every attribute of every configuration block, and no other
//	metrics_test.go    docs/metrics.md has every metric, and no other
//
// The ledger of RFCs has its own rule in tests/ledger. Each rule is a function over a tree of files, and is tried on a bad tree in testdata as well: a rule that
// cannot fail says nothing.
//
// The tables of settings and metrics are checked in all columns but the meaning of a setting, which is
// written by hand. After a change of the code, "go test ./tests/floors -update" rewrites the other columns
// and adds rows that are missing.
package floors
