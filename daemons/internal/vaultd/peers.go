package vaultd

import (
	"bytes"
	"slices"
	"strings"

	"shoal/daemons/internal/dirclient"
	"shoal/daemons/internal/dirstore"
)

// peer is another vault as the directory lists it.
type peer struct {
	name  string
	uris  []string // where it answers LDAP
	voter bool
}

// peers lists the other vaults.
func (v *vault) peers() []peer {
	return slices.DeleteFunc(v.vaults(), func(p peer) bool { return p.name == v.name })
}

// vaults lists all of them, this one too, by their server entries.
func (v *vault) vaults() []peer {
	r, err := v.store.Read()
	if err != nil {
		return nil // the database is gone: whoever asks finds out by itself
	}
	defer r.Close()
	top, ok := lookUp(r, v.store, serversDN(v.store.Suffix()))
	if !ok {
		return nil
	}
	var all []peer
	for w := r.Walk(top.ID); ; {
		f, ok, err := r.NextOf(w)
		if !ok || err != nil {
			break
		}
		if p, ok := peerOf(r, &f); ok {
			all = append(all, p)
		}
	}
	slices.SortFunc(all, func(a, b peer) int { return strings.Compare(a.name, b.name) })
	return all
}

func peerOf(r *dirstore.Reader, f *dirstore.Found) (p peer, ok bool) {
	r.Values(f, "shoalRole", func(v []byte) bool {
		ok = ok || bytes.EqualFold(v, []byte("vault"))
		return true
	})
	if !ok {
		return p, false
	}
	p.name = strings.ToLower(r.Value(f, "cn"))
	p.voter = strings.EqualFold(r.Value(f, "shoalDirectoryVoter"), "TRUE")
	var tls, start []string
	r.Values(f, "shoalAddress", func(v []byte) bool {
		if part := strings.Fields(string(v)); len(part) == 2 {
			switch strings.ToLower(part[0]) {
			case dirclient.ServiceLDAPS:
				tls = append(tls, "ldaps://"+part[1])
			case dirclient.ServiceLDAP:
				start = append(start, "ldap://"+part[1])
			}
		}
		return true
	})
	p.uris = append(start, tls...)
	return p, p.name != ""
}

// urisOf are where a vault by this name answers.
func (v *vault) urisOf(name string) []string {
	for _, p := range v.peers() {
		if p.name == name {
			return p.uris
		}
	}
	return nil
}

// knownVoters are those that a master of this name counts, as far as this vault knows.
func (v *vault) knownVoters(master string) []string {
	names := []string{}
	for _, p := range v.vaults() {
		if p.voter && p.name != master {
			names = append(names, p.name)
		}
	}
	return names
}
