package storagecheck

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"shoal/daemons/internal/clock"
)

// How hosts work together.
//
// The leader makes the folder of the run:
//
//	bus/       messages: a message is a name, made as a symlink, <host>.<word>[.<number>]; its target is its text
//	fresh/     names that are looked up before they are there
//	list/      names that are found by listing
//	race/      names that all hosts try to make
//	<host>/    what a host does by itself
//
// A message is found by listing bus/, which works also on mounts whose single lookups are stale. Its text is read once, when its
// name has been found. Longer texts are files beside, in <host>/.
//
//	leader: open          hosts may join
//	joiner: hello         text: its boot id
//	leader: start         text: the hosts that take part, the leader first
//	all:    ready.<i> made.<i> seen.<i>     freshness, round i; text of seen: ok, or what was wrong
//	all:    racing, halfway, raced          exclusivity; text of raced: for each name who made it, a digit or letter
//	joiner: report                          text: the length of <host>/report
//	leader: end

type crew struct {
	hosts []string // the leader first
	boots map[string]string
}

func (c *crew) others(me string) []string {
	return slices.DeleteFunc(slices.Clone(c.hosts), func(h string) bool { return h == me })
}

const (
	busPause  = 3 * time.Millisecond
	peerLimit = 90 * time.Second // how long one step of another host may take
)

var errLate = errors.New("no answer")

func (c *check) post(word, text string) error {
	path := c.dir + "/bus/" + c.Host + "." + word
	if err := c.FS.Symlink(text, path); err != nil && !errors.Is(err, syscall.EEXIST) {
		return fmt.Errorf("symlink %s: %w", path, err)
	}
	return nil
}

// await waits for messages of hosts and returns their texts in the same order.
func (c *check) await(ctx context.Context, limit time.Duration, word string, hosts ...string) ([]string, error) {
	until := c.Clock.Boot() + limit
	for {
		names, err := c.FS.ReadDir(c.dir+"/bus", nil)
		if err != nil {
			return nil, fmt.Errorf("list %s/bus: %w", c.dir, err)
		}
		var missing []string
		for _, h := range hosts {
			if !slices.Contains(names, h+"."+word) {
				missing = append(missing, h)
			}
		}
		if len(missing) == 0 {
			break
		}
		if c.Clock.Boot() > until {
			return nil, fmt.Errorf("%s from %s after %v: %w", word, strings.Join(missing, ", "), limit, errLate)
		}
		if err := clock.Sleep(ctx, c.Clock, busPause); err != nil {
			return nil, err
		}
	}
	texts := make([]string, len(hosts))
	for i, h := range hosts {
		var err error
		if texts[i], err = c.text(c.dir + "/bus/" + h + "." + word); err != nil {
			return nil, err
		}
	}
	return texts, nil
}

func (c *check) text(path string) (string, error) {
	var buf [4096]byte
	n, err := c.FS.Readlink(path, buf[:])
	if err != nil {
		return "", fmt.Errorf("readlink %s: %w", path, err)
	}
	return string(buf[:n]), nil
}

// lead makes the folder, and waits for the others if there are to be any.
func (c *check) lead(ctx context.Context) (*crew, error) {
	dir := c.Path + "/" + folderPrefix + fmt.Sprintf("%s-%x", c.Host, c.Clock.Now().UnixNano())
	if err := c.FS.Mkdir(dir); err != nil {
		return nil, fmt.Errorf("mkdir %s: %w", dir, err)
	}
	c.dir = dir
	for _, d := range []string{"bus", "fresh", "list", "race"} {
		if err := c.FS.Mkdir(dir + "/" + d); err != nil {
			return nil, fmt.Errorf("mkdir %s/%s: %w", dir, d, err)
		}
	}
	if err := c.sweep(); err != nil {
		return nil, err
	}
	w := &crew{hosts: []string{c.Host}, boots: map[string]string{c.Host: c.Boot}}
	if c.Hosts <= 1 {
		return w, nil
	}
	if err := c.post("open", c.Boot); err != nil {
		return nil, err
	}
	c.Progress(fmt.Sprintf("waiting for %d more: run the same with --join there", c.Hosts-1))
	until := c.Clock.Boot() + c.Wait
	for len(w.hosts) < c.Hosts {
		names, err := c.FS.ReadDir(dir+"/bus", nil)
		if err != nil {
			return nil, fmt.Errorf("list %s/bus: %w", dir, err)
		}
		slices.Sort(names)
		for _, n := range names {
			h, ok := strings.CutSuffix(n, ".hello")
			if !ok || !validHost(h) || w.boots[h] != "" || len(w.hosts) == c.Hosts {
				continue
			}
			boot, err := c.text(dir + "/bus/" + n)
			if err != nil {
				return nil, err
			}
			w.hosts, w.boots[h] = append(w.hosts, h), boot
			c.Progress(h + " has joined")
		}
		if c.Clock.Boot() > until {
			return nil, fmt.Errorf("%w: %d of %d came within %v", ErrNoPeers, len(w.hosts)-1, c.Hosts-1, c.Wait)
		}
		if err := clock.Sleep(ctx, c.Clock, busPause); err != nil {
			return nil, err
		}
	}
	return w, c.post("start", strings.Join(w.hosts, " "))
}

// join finds the run of another host and takes part.
func (c *check) join(ctx context.Context) (*crew, error) {
	until := c.Clock.Boot() + c.Wait
	for {
		names, err := c.FS.ReadDir(c.Path, nil)
		if err != nil {
			return nil, fmt.Errorf("list %s: %w", c.Path, err)
		}
		for _, n := range names {
			if !strings.HasPrefix(n, folderPrefix) {
				continue
			}
			bus, err := c.FS.ReadDir(c.Path+"/"+n+"/bus", nil)
			if err != nil { // about to come or to go
				continue
			}
			open := slices.ContainsFunc(bus, func(m string) bool { return strings.HasSuffix(m, ".open") })
			if started := slices.ContainsFunc(bus, func(m string) bool { return strings.HasSuffix(m, ".start") }); !open || started {
				continue
			}
			c.dir = c.Path + "/" + n
			return c.enter(ctx, bus)
		}
		if c.Clock.Boot() > until {
			return nil, fmt.Errorf("%w: no check that is open to join in %s after %v; start one with --hosts on another host", ErrNoPeers, c.Path, c.Wait)
		}
		if err := clock.Sleep(ctx, c.Clock, 10*busPause); err != nil {
			return nil, err
		}
	}
}

func (c *check) enter(ctx context.Context, bus []string) (*crew, error) {
	i := slices.IndexFunc(bus, func(m string) bool { return strings.HasSuffix(m, ".open") })
	leader := strings.TrimSuffix(bus[i], ".open")
	if slices.Contains(bus, c.Host+".hello") || leader == c.Host {
		return nil, fmt.Errorf("a host named %s takes part already: give this one another name", c.Host)
	}
	if err := c.post("hello", c.Boot); err != nil {
		return nil, err
	}
	c.Progress("joined the check of " + leader)
	texts, err := c.await(ctx, c.Wait, "start", leader)
	if err != nil {
		return nil, err
	}
	w := &crew{hosts: strings.Fields(texts[0]), boots: map[string]string{}}
	if !slices.Contains(w.hosts, c.Host) {
		return nil, fmt.Errorf("%w: the check of %s has begun without %s", ErrNoPeers, leader, c.Host)
	}
	return w, nil
}

// sweep removes folders of checks that were killed.
func (c *check) sweep() error {
	now, err := c.FS.Lstat(c.dir)
	if err != nil {
		return fmt.Errorf("lstat %s: %w", c.dir, err)
	}
	names, err := c.FS.ReadDir(c.Path, nil)
	if err != nil {
		return fmt.Errorf("list %s: %w", c.Path, err)
	}
	for _, n := range names {
		path := c.Path + "/" + n
		if !strings.HasPrefix(n, folderPrefix) || path == c.dir {
			continue
		}
		newest := time.Time{}
		for _, p := range []string{path, path + "/bus", path + "/fresh"} {
			if i, err := c.FS.Lstat(p); err == nil && i.ModTime.After(newest) {
				newest = i.ModTime
			}
		}
		if now.ModTime.Sub(newest) < leftAfter {
			continue
		}
		if err := c.removeAll(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("remove what a killed check left, %s: %w", path, err)
		}
		c.pass("leftovers", "removed "+n+", which a killed check left behind")
	}
	return nil
}

// together runs what needs several hosts, and gathers what they found.
func (c *check) together(ctx context.Context, w *crew) error {
	if len(w.hosts) == 1 {
		if c.mount != nil && (c.mount.kind == "nfs4" || c.mount.kind == "nfs") {
			c.warn("hosts", "one host took part", "whether other hosts see at once what this one writes is not shown", "run it with --hosts 2 here, and with --join on another host")
		}
		return nil
	}
	leader := w.hosts[0]
	c.Progress("what the hosts see of each other")
	err := c.checkFresh(ctx, w)
	if err == nil {
		c.Progress("who of the hosts comes first")
		err = c.checkRace(ctx, w)
	}
	if c.Host != leader {
		if err != nil {
			return err
		}
		return c.hand(ctx, leader)
	}
	if errors.Is(err, errLate) {
		c.fail("hosts", err.Error(), "either the host was stopped, or what it wrote does not come through", "look at what it says; then run the check again")
		return nil
	}
	if err != nil {
		return err
	}
	if err := c.gather(ctx, w); err != nil {
		return err
	}
	machines := map[string]bool{}
	for _, h := range w.hosts {
		machines[w.boots[h]] = true
	}
	if len(machines) < len(w.hosts) {
		c.warn("hosts", fmt.Sprintf("%d hosts took part, on %d machines", len(w.hosts), len(machines)), "those on one machine share its cache: that shows nothing about others", "run it on different machines")
	} else {
		c.pass("hosts", fmt.Sprintf("%d machines took part", len(machines)))
	}
	return nil
}

// checkFresh: in each round another host writes. All have looked for the name before, and found nothing; when the writer says
// that it is there, all must find it at their first look, and find another one by listing.
func (c *check) checkFresh(ctx context.Context, w *crew) error {
	bad := map[string]string{}
	for i := range freshRounds {
		writer := w.hosts[i%len(w.hosts)]
		name, listed := fmt.Sprintf("%s/fresh/%d", c.dir, i), fmt.Sprintf("%d", i)
		if _, err := c.FS.Lstat(name); !errors.Is(err, syscall.ENOENT) {
			return fmt.Errorf("lstat %s: %w", name, cmpErr(err))
		}
		if _, err := c.FS.ReadDir(c.dir+"/list", nil); err != nil {
			return fmt.Errorf("list %s/list: %w", c.dir, err)
		}
		word := func(s string) string { return fmt.Sprintf("%s.%d", s, i) }
		if err := c.post(word("ready"), "-"); err != nil {
			return err
		}
		if c.Host == writer {
			if _, err := c.await(ctx, peerLimit, word("ready"), w.hosts...); err != nil {
				return err
			}
			for _, p := range []string{name, c.dir + "/list/" + listed} {
				if err := c.FS.Symlink(writer, p); err != nil {
					return fmt.Errorf("symlink %s: %w", p, err)
				}
			}
			if err := c.post(word("made"), "-"); err != nil {
				return err
			}
		} else if _, err := c.await(ctx, peerLimit, word("made"), writer); err != nil {
			return err
		}
		saw := "ok"
		if text, err := c.text(name); errors.Is(err, syscall.ENOENT) {
			saw = "lookup"
		} else if err != nil {
			return err
		} else if text != writer {
			saw = "content"
		}
		names, err := c.FS.ReadDir(c.dir+"/list", nil)
		if err != nil {
			return fmt.Errorf("list %s/list: %w", c.dir, err)
		}
		if saw == "ok" && !slices.Contains(names, listed) {
			saw = "listing"
		}
		if err := c.post(word("seen"), saw); err != nil {
			return err
		}
		texts, err := c.await(ctx, peerLimit, word("seen"), w.hosts...)
		if err != nil {
			return err
		}
		for k, text := range texts {
			if text != "ok" {
				bad[w.hosts[k]] = strings.TrimSpace(bad[w.hosts[k]] + " " + text)
			}
		}
	}
	if c.Host != w.hosts[0] {
		return nil
	}
	if len(bad) == 0 {
		c.pass("freshness", fmt.Sprintf("what one host had written all others found at their first look, %d times", freshRounds))
		return nil
	}
	for _, h := range w.hosts {
		if saw := strings.Fields(bad[h]); len(saw) > 0 {
			slices.Sort(saw)
			c.fail("freshness", fmt.Sprintf("%s did not see what others had written, %d of %d times (%s)", h, len(saw), freshRounds, strings.Join(slices.Compact(saw), ", ")),
				"a server that does not see the last record of a mailbox takes its place: mail that was acknowledged is lost", "mount it on "+h+" with "+Right)
		}
	}
	return nil
}

const digits = "0123456789abcdefghijklmnopqrstuvwxyz"

// checkRace: all hosts make the same names at the same time. Each must have one maker, and all must find the same.
func (c *check) checkRace(ctx context.Context, w *crew) error {
	if len(w.hosts) > len(digits) {
		return fmt.Errorf("%d hosts: at most %d", len(w.hosts), len(digits))
	}
	if err := c.post("racing", "-"); err != nil {
		return err
	}
	if _, err := c.await(ctx, peerLimit, "racing", w.hosts...); err != nil {
		return err
	}
	at := slices.Index(w.hosts, c.Host)
	me := digits[at]
	result, won := bytes.Repeat([]byte("?"), raceNames), bytes.Repeat([]byte("-"), raceNames)
	try := func(i int) error {
		path := fmt.Sprintf("%s/race/%d", c.dir, i)
		switch err := c.FS.Symlink(string(me), path); {
		case err == nil:
			won[i] = '+'
		case !errors.Is(err, syscall.EEXIST):
			return fmt.Errorf("symlink %s: %w", path, err)
		}
		text, err := c.text(path)
		if err != nil && !errors.Is(err, syscall.ENOENT) {
			return err
		}
		if len(text) == 1 {
			result[i] = text[0]
		}
		return nil
	}
	// First all come to the same names at the same time, as near as that can be had. Then each makes names of its own, and when all
	// have, those of the others: it must be refused.
	for i := range raceNames / 2 {
		if err := try(i); err != nil {
			return err
		}
	}
	for _, mine := range []bool{true, false} {
		for i := raceNames / 2; i < raceNames; i++ {
			if (i%len(w.hosts) == at) == mine {
				if err := try(i); err != nil {
					return err
				}
			}
		}
		if err := c.post("halfway", "-"); err != nil {
			return err
		}
		if _, err := c.await(ctx, peerLimit, "halfway", w.hosts...); err != nil {
			return err
		}
	}
	if err := c.post("raced", string(won)+string(result)); err != nil {
		return err
	}
	texts, err := c.await(ctx, peerLimit, "raced", w.hosts...)
	if err != nil || c.Host != w.hosts[0] {
		return err
	}
	double, none, differ := 0, 0, 0
	wins := make([]int, len(w.hosts))
	for i := range raceNames {
		makers := 0
		for k, t := range texts {
			if len(t) != 2*raceNames {
				return fmt.Errorf("%s says %d bytes about the race, not %d", w.hosts[k], len(t), 2*raceNames)
			}
			if t[i] == '+' {
				makers++
				wins[k]++
			}
		}
		switch same := texts[0][raceNames+i]; {
		case makers > 1:
			double++
		case makers == 0:
			none++
		case slices.ContainsFunc(texts, func(t string) bool { return t[raceNames+i] != same }):
			differ++
		}
	}
	if double+none+differ > 0 {
		c.fail("exclusivity", fmt.Sprintf("of %d names that all hosts made at once %d had several makers, %d none, %d looked different", raceNames, double, none, differ),
			"two servers would take the same place in a mailbox: one of two mails is lost", "use NFS 4.2 and a server that makes symlinks in one step")
		return nil
	}
	c.pass("exclusivity", fmt.Sprintf("of %d names that all hosts made at once each had one maker (%s made %s)", raceNames, strings.Join(w.hosts, ", "), strings.Trim(fmt.Sprint(wins), "[]")))
	return nil
}

// maxReport bounds what a host says.
const maxReport = 256 << 10

// hand gives the leader what this host found.
func (c *check) hand(ctx context.Context, leader string) error {
	b, err := json.Marshal(c.report)
	if err != nil {
		return err
	}
	if err := c.writeFile(c.own+"/report", b); err != nil {
		return err
	}
	if err := c.post("report", fmt.Sprint(len(b))); err != nil {
		return err
	}
	_, err = c.await(ctx, peerLimit, "end", leader)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ESTALE) {
		return nil // it was the last, and has cleaned up
	}
	return err
}

func (c *check) gather(ctx context.Context, w *crew) error {
	for _, h := range w.others(c.Host) {
		if _, err := c.await(ctx, peerLimit, "report", h); err != nil {
			return err
		}
		b, err := c.readFile(c.dir+"/"+h+"/report", maxReport)
		if err != nil {
			return err
		}
		var r Report
		if err := json.Unmarshal(b, &r); err != nil {
			return fmt.Errorf("report of %s: %w", h, err)
		}
		for i := range r.Findings {
			r.Findings[i].Host = h
		}
		c.report.Hosts = append(c.report.Hosts, h)
		c.report.Findings = append(c.report.Findings, r.Findings...)
		c.report.Latencies = append(c.report.Latencies, r.Latencies...)
	}
	return c.post("end", "-")
}
