package access

import "strings"

// Rights is a set of rights.
type Rights uint16

// Rights.
const (
	Auth Rights = 1 << iota
	Compare
	Search
	Read
	Add
	Delete
	Manage
	Password   // change the own password, by giving the old one
	Replicate  // everything, secrets too, in a synchronization
	Migrate    // of a server: take an account over from an old server
	Administer // of an administrator of the domain: within the bounds of administer.go

	Write = Add | Delete

	seeing = Compare | Search | Read | Replicate
)

// rightWords are the words of rules, with what each one stands for, and what it brings.
var rightWords = []struct {
	word        string
	right, with Rights
}{
	{"none", 0, 0},
	{"auth", Auth, Auth},
	{"compare", Compare, Compare | Auth},
	{"search", Search, Search | Compare | Auth},
	{"read", Read, Read | Search | Compare | Auth},
	{"add", Add, Add | Read | Search | Compare | Auth},
	{"delete", Delete, Delete | Read | Search | Compare | Auth},
	{"write", Write, Write | Read | Search | Compare | Auth},
	{"manage", Manage | Write, Manage | Write | Read | Search | Compare | Auth},
	{"password", Password, Password},
	{"replicate", Replicate, Replicate},
}

// serviceWords are in the service's own rules only.
var serviceWords = []struct {
	word  string
	right Rights
}{{"migrate", Migrate}, {"administer", Administer}}

// ParseRight finds a right by its word; what has several parts needs all of them.
func ParseRight(word string) (Rights, bool) {
	for _, w := range rightWords {
		if w.word == strings.ToLower(word) && w.right != 0 {
			return w.right, true
		}
	}
	return 0, false
}

// Words are the words of what may be asked for.
func Words() (out []string) {
	for _, w := range rightWords[1:] {
		out = append(out, w.word)
	}
	return out
}

// String lists the rights by their words.
func (r Rights) String() string {
	var out []string
	for _, w := range rightWords {
		if w.right != 0 && w.right&(w.right-1) == 0 && r&w.right != 0 {
			out = append(out, w.word)
		}
	}
	if r&Manage != 0 {
		out = append(out, "manage")
	}
	for _, w := range serviceWords {
		if r&w.right != 0 {
			out = append(out, w.word)
		}
	}
	if len(out) == 0 {
		return "none"
	}
	return strings.Join(out, ",")
}
