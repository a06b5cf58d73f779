package dirstore

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"shoal/daemons/internal/ldapwire"
)

// built waits for the end of a build of indexes.
func (s *Store) built() {
	if b := s.builder.Load(); b != nil {
		<-b.done
	}
}

func (s *Store) fillTitles(t testing.TB, n int) {
	t.Helper()
	var writes []*Write
	for i := range n {
		w := &Write{Op: &Add{DN: fmt.Appendf(nil, "uid=t%d,associatedDomain=a.test,ou=domains,o=shoal", i),
			Attributes: attrs("objectClass", "inetOrgPerson", "cn", "c", "sn", fmt.Sprintf("number %d", i), "title", fmt.Sprintf("title %d", i%7))}}
		s.Submit(w)
		writes = append(writes, w)
	}
	for _, w := range writes {
		if err := w.Wait(); err != nil {
			t.Fatal(err)
		}
	}
}

func replaceTitle(i int, title string) *Modify {
	return &Modify{DN: fmt.Appendf(nil, "uid=t%d,associatedDomain=a.test,ou=domains,o=shoal", i), Changes: []ldapwire.Change{{Op: ldapwire.ChangeReplace,
		Attribute: ldapwire.Attribute{Type: []byte("title"), Values: [][]byte{[]byte(title)}}}}}
}

// same compares what indexes find with what looking at every entry finds, for filters that want the index of title.
func (s *Store) same(t *testing.T) {
	t.Helper()
	for _, filter := range []string{"(title=title 3)", "(title=*itle 5*)", "(title=*)", "(title>=title 4)", "(title=*hanged*)"} {
		got, want := s.find(t, "o=shoal", ldapwire.WholeSubtree, filter), s.slowFind(t, "o=shoal", ldapwire.WholeSubtree, filter)
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Errorf("%s: the indexes %v find %d, every entry gives %d", filter, s.Indexes(), len(got), len(want))
		}
	}
}

// An index is built while entries are added, changed and removed and while searches go on; it is not used before it is
// complete, and used then.
func TestIndexBuiltWhileServing(t *testing.T) {
	gate, steps := make(chan struct{}, 1000), make(chan struct{}, 1000)
	s := open(t, func(o *Options) {
		o.fault = func(at string) error {
			if at == "index" {
				steps <- struct{}{}
				<-gate
			}
			return nil
		}
	})
	s.mustFill(t)
	s.fillTitles(t, 2000)
	for _, next := range []struct {
		list []string
		done string // in the list of usable indexes at the end
	}{{[]string{"title"}, "title"}, {[]string{"title:sub", "shoalQuotaStorage"}, "title:sub"}, {[]string{"title"}, "title"}, {nil, ""}, {[]string{"title:sub"}, "title:sub"}} {
		if err := s.SetIndexes(next.list); err != nil {
			t.Fatal(err)
		}
		<-steps // the builder is before its first step
		if len(next.list) > 0 && next.done == "title:sub" && slices.Contains(s.Indexes(), "title:sub") {
			t.Errorf("%v: usable before it is built", next.list)
		}
		if len(next.list) == 2 && (len(s.Building().Indexes) != 2 || s.Building().Total < 2000) {
			t.Errorf("%v: progress %+v", next.list, s.Building())
		}
		s.same(t)
		stop := make(chan struct{})
		var load sync.WaitGroup
		load.Go(func() {
			rnd := rand.New(rand.NewPCG(5, 6))
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				var err error
				switch i := rnd.IntN(2000); n % 3 {
				case 0:
					err = s.Do("", replaceTitle(i, fmt.Sprintf("changed %d", n)))
				case 1:
					err = s.Do("", &Delete{DN: fmt.Appendf(nil, "uid=t%d,associatedDomain=a.test,ou=domains,o=shoal", i)})
				default:
					err = s.Do("", &Add{DN: fmt.Appendf(nil, "uid=t%d,associatedDomain=a.test,ou=domains,o=shoal", i),
						Attributes: attrs("objectClass", "inetOrgPerson", "cn", "c", "sn", "s", "title", "title 5")})
				}
				if c := code(err); err != nil && c != ldapwire.NoSuchObject && c != ldapwire.EntryAlreadyExists {
					t.Errorf("write beside a build: %v", err)
					return
				}
				s.same(t)
			}
		})
		gate <- struct{}{} // one step, then some more beside the load
		for range 2 {
			select {
			case <-steps:
				gate <- struct{}{}
			case <-s.builder.Load().done:
			}
		}
		close(stop)
		load.Wait()
		if b := s.builder.Load(); true {
			for done := false; !done; {
				select {
				case <-steps:
					gate <- struct{}{}
				case <-b.done:
					done = true
				}
			}
		}
		if has := slices.ContainsFunc(s.Indexes(), func(n string) bool { return strings.HasPrefix(n, "title") }); has != (next.done != "") {
			t.Errorf("after the build of %v: %v", next.list, s.Indexes())
		}
		if next.done != "" && !slices.Contains(s.Indexes(), next.done) {
			t.Errorf("after the build of %v: %v", next.list, s.Indexes())
		}
		if len(s.Building().Indexes) > 0 {
			t.Errorf("still building: %+v", s.Building())
		}
		s.same(t)
		verify(t, s)
	}
	var examined Search
	r, err := s.Read()
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Start(&examined, s.suffix, ldapwire.WholeSubtree, s.compile(t, "(title=*itle 5*)")); err != nil || examined.all {
		t.Errorf("the index that was built is not used: %v", err)
	}
	r.Close()
	if err := s.SetIndexes([]string{"oddity"}); err == nil {
		t.Error("an index of an unknown attribute")
	}
}

// A build that the end of the process interrupts is made anew, and one that cannot write is tried again.
func TestIndexBuildInterrupted(t *testing.T) {
	dir := t.TempDir()
	s := open(t, func(o *Options) { o.Path = dir })
	s.mustFill(t)
	s.fillTitles(t, 3000)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	for _, n := range []int{1, 2, 3} {
		reached, at := make(chan struct{}), 0
		s = open(t, func(o *Options) {
			o.Path, o.Indexes = dir, []string{"title:sub"}
			o.fault = func(step string) error {
				if at++; step == "index" && at >= n {
					if at == n {
						close(reached)
					}
					return errors.New("the disk is full")
				}
				return nil
			}
		})
		<-reached
		if slices.Contains(s.Indexes(), "title:sub") {
			t.Errorf("usable after %d steps", n-1)
		}
		s.same(t)
		if err := s.Do("", replaceTitle(n, "changed")); err != nil {
			t.Error(err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	s = open(t, func(o *Options) { o.Path, o.Indexes = dir, []string{"title:sub"} })
	s.built()
	if !slices.Contains(s.Indexes(), "title:sub") {
		t.Errorf("not built: %v", s.Indexes())
	}
	s.same(t)
}

// A content that replaces the old one during a build has all indexes.
func TestIndexBuildAndLoad(t *testing.T) {
	at := make(chan struct{})
	hold := make(chan struct{})
	s := open(t, func(o *Options) {
		o.fault = func(step string) error {
			if step == "index" {
				select {
				case at <- struct{}{}:
				default:
				}
				<-hold
			}
			return nil
		}
	})
	s.fill(t, 50)
	if err := s.SetIndexes([]string{"title:sub", "employeeNumber"}); err != nil {
		t.Fatal(err)
	}
	<-at
	if err := s.loadAll(benchEntries(400)); err != nil {
		t.Fatal(err)
	}
	if !slices.Contains(s.Indexes(), "title:sub") {
		t.Errorf("after a load: %v", s.Indexes())
	}
	close(hold)
	s.built()
	s.same(t)
}
