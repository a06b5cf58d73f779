// Package conf reads the configuration file of a daemon: HCL, decoded into a struct of the role.
//
// The struct is the description of the file. Its tags say everything about a setting, in one place:
//
//	hcl:"name"            required attribute; hcl:"name,optional" an optional one; hcl:"name,block" a
//	                      block; hcl:"name,label" the label of a block (as for package gohcl)
//	default:"30s"         value of an optional attribute that is absent, written as in the file
//	                      (lists: elements separated by spaces)
//	min:"1" max:"1000"    bounds of a number, a size or a duration, both included
//	oneof:"text json"     the only values of a string
//	example:"..."         what the error for a missing attribute proposes to write
//	conf:"kind,live"      kind of the string or of each string of a list, see below; live: a reload
//	                      may change it, all other settings need a restart (see Diff)
//
// Kinds: path (a file name; relative names are taken from the folder of the configuration file),
// secret (a path; the file is read and checked at load, see ReadSecret), listen (host:port to bind,
// the host an address or empty), dial (host:port to connect to), network (an IP address or a CIDR
// block), ldapuri (ldap://host[:port] or ldaps://), name (a server name), dn (a distinguished name,
// only its rough shape), account (user or user:group of the operating system).
//
// Types: string, bool, the integers, float64, Size ("25 MB"), time.Duration ("30s"), []string,
// map[string]string, and whatever implements encoding.TextUnmarshaler. Types are strict: a number in
// quotes is an error, not a number. Blocks are struct, *struct (nil when absent), []struct or
// []*struct. A struct block that is absent gets its defaults, and is an error when one of its
// attributes is required.
//
// A block or the whole configuration may have a method Validate() error, called when all of its
// attributes are good; errors made by Invalid are shown at the attribute that they name.
//
// Invariants: an error names file, line and what to write instead; nothing is executed and no
// variable or function of HCL is available; secrets are never in the file, only paths to them; the
// defaults stand in the tags and nowhere else.
//
// Left out on purpose: includes, templates, environment variables, JSON syntax. Domains, accounts and
// policies are no business of this file: they live in the directory.
package conf

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sort"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
)

// maxFile bounds a configuration file, in bytes; maxProblems the list of them in one error.
const (
	maxFile     = 1 << 20
	maxProblems = 20
)

// Validator is a block, or a whole configuration, with rules that tags cannot say.
type Validator interface {
	// Validate reports what is wrong, best as one or more (errors.Join) errors of Invalid.
	Validate() error
}

// Problem is one thing wrong in a configuration file.
type Problem struct {
	File    string // as it was given to Load
	Line    int    // counted from 1; 0 when the problem has no place in the file
	Column  int    // counted from 1, in characters
	Message string // what is wrong and what to write instead
	Source  string // the line of the file, without its end
}

// String is "file:line:column: message", followed by the line of the file.
func (p Problem) String() string {
	var b strings.Builder
	b.WriteString(p.File)
	if p.Line > 0 {
		fmt.Fprintf(&b, ":%d:%d", p.Line, p.Column)
	}
	b.WriteString(": ")
	b.WriteString(p.Message)
	if p.Source != "" {
		fmt.Fprintf(&b, "\n%6d | %s", p.Line, p.Source)
	}
	return b.String()
}

// Error is everything wrong in a configuration file, in the order of the file.
type Error struct {
	Problems []Problem
}

// Error has one paragraph per problem.
func (e *Error) Error() string {
	lines := make([]string, 0, len(e.Problems))
	for i, p := range e.Problems {
		if i == maxProblems {
			lines = append(lines, fmt.Sprintf("and %d more problems", len(e.Problems)-maxProblems))
			break
		}
		lines = append(lines, p.String())
	}
	return strings.Join(lines, "\n")
}

// Load reads the configuration file at path into the struct that into points to, which should be
// new: settings absent from the file are set to their defaults. The error is an *Error when the
// content is wrong, and a wrapped file system error when the file cannot be read.
func Load(path string, into any) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("configuration: %w", err)
	}
	defer f.Close()
	if st, err := f.Stat(); err == nil && st.IsDir() {
		return fmt.Errorf("configuration: %s is a folder: name the file itself", path)
	}
	src, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return fmt.Errorf("configuration: %w", err)
	}
	if len(src) > maxFile {
		return fmt.Errorf("configuration: %s is larger than %d bytes: is it the right file?", path, maxFile)
	}
	return Decode(src, path, into)
}

// Decode is Load for a text that is already in memory; file is the name for messages, and its folder
// is where relative paths start.
func Decode(src []byte, file string, into any) error {
	base, err := filepath.Abs(filepath.Dir(file))
	if err != nil {
		return fmt.Errorf("configuration: %s: %w", file, err)
	}
	parsed, diags := hclsyntax.ParseConfig(src, file, hcl.InitialPos)
	d := &decoder{base: base, ranges: map[string]hcl.Range{}}
	d.diags = append(d.diags, diags...)
	if !diags.HasErrors() {
		d.root(parsed.Body, into)
	}
	if !d.diags.HasErrors() {
		return nil
	}
	return report(file, src, d.diags)
}

// report turns diagnostics into an *Error, sorted by place.
func report(file string, src []byte, diags hcl.Diagnostics) error {
	lines := strings.Split(string(src), "\n")
	e := &Error{}
	for _, g := range diags {
		if g.Severity != hcl.DiagError {
			continue
		}
		p := Problem{File: file, Message: sentence(g)}
		if g.Subject != nil {
			p.Line, p.Column = g.Subject.Start.Line, g.Subject.Start.Column
			if p.Line >= 1 && p.Line <= len(lines) {
				p.Source = strings.TrimRight(lines[p.Line-1], "\r")
			}
		}
		e.Problems = append(e.Problems, p)
	}
	sort.SliceStable(e.Problems, func(i, j int) bool {
		a, b := e.Problems[i], e.Problems[j]
		if a.Line != b.Line {
			return a.Line < b.Line
		}
		return a.Column < b.Column
	})
	return e
}

// sentence joins the two halves of a diagnostic: ours have only a detail.
func sentence(g *hcl.Diagnostic) string {
	detail := strings.Join(strings.Fields(g.Detail), " ")
	switch {
	case g.Summary == "":
		return detail
	case detail == "":
		return g.Summary
	}
	return strings.ToLower(g.Summary[:1]) + g.Summary[1:] + ": " + detail
}
