package vaultd

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/uuid"

	"shoal/daemons/internal/dirstore"
	"shoal/daemons/internal/ldapwire"
	"shoal/daemons/internal/ldif"
	"shoal/daemons/internal/replica"
)

// saveLost writes what this vault has and a provider has not, before the provider's content takes its place: the
// entries as they are here, passwords too, and the entryUUIDs of what was removed here. The operator decides what to do
// with it. The file lies beside the database.
func (v *vault) saveLost(g reign, p *replica.Provider) (file string, n int, err error) {
	newest := ""
	for _, c := range beyond(v.store.ContextCSN(), p.Context) {
		newest = max(newest, c)
	}
	file = filepath.Join(v.config.Database.Path, fmt.Sprintf("lost-epoch%d-%s.ldif", g.Epoch, strings.NewReplacer("#", "-", ".", "-").Replace(newest)))
	f, err := os.OpenFile(file+".new", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return "", 0, err
	}
	defer f.Close() // again, after an error
	w := bufio.NewWriterSize(f, 64<<10)
	_, err = w.Write(ldif.AppendComment([]byte("version: 1\n\n"), fmt.Sprintf("Changes that %s had and its master %s (epoch %d) has not.\nEntries are as they were here; compare them with what is there, and apply what should hold:\n  shoalctl directory apply --dry-run FILE\n", v.name, p.Master, p.Epoch)))
	if err == nil {
		n, err = v.writeLost(w, p.Context)
	}
	if err == nil {
		err = w.Flush()
	}
	if err == nil {
		err = f.Sync()
	}
	if err != nil {
		return "", 0, err
	}
	if err := f.Close(); err != nil {
		return "", 0, err
	}
	return file, n, os.Rename(file+".new", file)
}

func (v *vault) writeLost(w *bufio.Writer, theirs []string) (n int, err error) {
	lost := func(csn string) bool { return csn > csnOf(theirs, dirstore.CSNServer(csn)) }
	// What was removed is known by the log only.
	r, err := v.store.Read()
	if err != nil {
		return 0, err
	}
	err = r.LogAfter(0, func(c dirstore.LoggedChange) bool {
		if c.Kind == dirstore.Deleted && lost(c.CSN) {
			n++
			_, _ = w.Write(ldif.AppendComment(nil, fmt.Sprintf("removed here: (entryUUID=%s), change %s", uuid.UUID(c.UUID), c.CSN))) // Flush tells
		}
		return true
	})
	r.Close()
	if err != nil {
		return n, err
	}
	least := ""
	for _, c := range beyond(v.store.ContextCSN(), theirs) {
		if at := csnOf(theirs, dirstore.CSNServer(c)); least == "" || at < least {
			least = at
		}
	}
	_, _ = w.WriteString("\n")
	m, err := v.writeNewer(w, least, lost)
	return n + m, err
}

// writeNewer writes the entries whose entryCSN is lost.
func (v *vault) writeNewer(w *bufio.Writer, least string, lost func(string) bool) (n int, err error) {
	node := ldapwire.Node{Op: ldapwire.GreaterOrEqual, End: 1, Attr: []byte("entryCSN"), Value: []byte(least)}
	if least == "" {
		node = ldapwire.Node{Op: ldapwire.Present, End: 1, Attr: []byte("entryCSN")}
	}
	filter := v.store.Compile(&ldapwire.Filter{Nodes: []ldapwire.Node{node}}, nil)
	suffix, err := v.store.CheckDN([]byte(v.store.Suffix()))
	if err != nil {
		return 0, err
	}
	var search *dirstore.Search
	for more := true; more; {
		r, err := v.store.Read()
		if err != nil {
			return n, err
		}
		if search == nil {
			search = &dirstore.Search{}
			if err := r.Start(search, suffix, ldapwire.WholeSubtree, filter); err != nil {
				r.Close()
				return n, err
			}
		}
		for range 256 {
			var f dirstore.Found
			var ok bool
			if f, ok, more, err = r.Next(search, 1000); err != nil || !ok {
				break
			}
			if !lost(r.Value(&f, "entryCSN")) {
				continue
			}
			e, err := r.Entry(&f)
			if err != nil {
				r.Close()
				return n, err
			}
			rec := ldif.Record{DN: e.DN}
			for _, a := range e.Attributes {
				rec.Attributes = append(rec.Attributes, ldif.Attribute{Name: a.Desc.String(), Values: a.Values})
			}
			n++
			if err := rec.Write(w); err != nil {
				r.Close()
				return n, err
			}
		}
		r.Close()
		if err != nil {
			return n, err
		}
	}
	return n, nil
}
