package sieve

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// buildExistsAll makes a test that holds when something is there for each string of its last argument.
func buildExistsAll(c *compiler, b *bound, there func(r *run, v string) (bool, error)) cond {
	names := c.texts(&b.args[len(b.args)-1])
	return func(r *run) (bool, error) {
		list, err := r.expandAll(names)
		if err != nil {
			return false, err
		}
		for _, v := range list {
			if yes, err := there(r, v); !yes || err != nil {
				return false, err
			}
		}
		return true, nil
	}
}

func buildMailboxExists(c *compiler, b *bound) cond {
	return buildExistsAll(c, b, func(r *run, v string) (bool, error) { return r.env.Host.MailboxExists(r.ctx, v) })
}

func buildMailboxIDExists(c *compiler, b *bound) cond {
	return buildExistsAll(c, b, func(r *run, v string) (bool, error) { return r.env.Host.MailboxIDExists(r.ctx, v) })
}

func buildValidNotifyMethod(c *compiler, b *bound) cond {
	return buildExistsAll(c, b, func(_ *run, v string) (bool, error) {
		_, err := parseMailto(v)
		return err == nil, nil
	})
}

// buildNotifyMethodCapability: mail cannot tell whether somebody is online (RFC 5436 §2.3).
func buildNotifyMethodCapability(c *compiler, b *bound) cond {
	method, name, m := c.text(b.args[0].strs[0]), c.text(b.args[1].strs[0]), c.matcher(b, &b.args[2])
	return func(r *run) (bool, error) {
		uri, err := r.expand(method)
		if err != nil {
			return false, err
		}
		what, err := r.expand(name)
		if err != nil {
			return false, err
		}
		if _, err := parseMailto(uri); err != nil || !strings.EqualFold(what, "online") {
			return false, nil
		}
		return r.any(m, []string{"maybe"})
	}
}

func buildSpecialUseExists(c *compiler, b *bound) cond {
	var mailbox *text
	if len(b.args) == 2 {
		mailbox = c.text(b.args[0].strs[0])
	}
	uses := c.texts(&b.args[len(b.args)-1])
	return func(r *run) (bool, error) {
		name, err := r.expand(mailbox)
		if err != nil {
			return false, err
		}
		list, err := r.expandAll(uses)
		if err != nil {
			return false, err
		}
		return r.env.Host.SpecialUse(r.ctx, name, list)
	}
}

func buildEnvironment(c *compiler, b *bound) cond {
	name, m := c.text(b.args[0].strs[0]), c.matcher(b, &b.args[1])
	return func(r *run) (bool, error) {
		key, err := r.expand(name)
		if err != nil {
			return false, err
		}
		v, ok := r.item(strings.ToLower(key))
		if !ok {
			return false, nil
		}
		return r.any(m, []string{v})
	}
}

// item is an item of the environment (RFC 5183 §4.1).
func (r *run) item(name string) (string, bool) {
	switch name {
	case "location":
		return "MDA", true
	case "phase":
		return "during", true
	case "name":
		return "Shoal", true
	}
	v, ok := r.env.Environment[name]
	return v, ok
}

// buildSpamtest: RFC 5235 §2.1, "0" not tested, "1" no spam to "10" spam; with :percent "0" to "100".
func buildSpamtest(c *compiler, b *bound) cond {
	m, percent := c.matcher(b, &b.args[0]), b.tag("percent")
	return func(r *run) (bool, error) {
		v := 0
		switch score := min(r.env.Spam, 100); {
		case score < 0 && m.kind == matchCount: // no value at all
			return r.any(m, nil)
		case score < 0:
		case percent:
			v = score
		default:
			v = 1 + score*9/100
		}
		return r.any(m, []string{strconv.Itoa(v)})
	}
}

func buildVirustest(c *compiler, b *bound) cond {
	m := c.matcher(b, &b.args[0])
	return func(r *run) (bool, error) {
		v := min(max(r.env.Virus, 0), 5)
		if v == 0 && m.kind == matchCount {
			return r.any(m, nil)
		}
		return r.any(m, []string{strconv.Itoa(v)})
	}
}

var duplicateTags = tagSet{
	"handle":   {takes: argString},
	"header":   {group: "key", takes: argString},
	"uniqueid": {group: "key", takes: argString},
	"seconds":  {takes: argNumber},
	"last":     {},
}

// defaultDuplicate is how long a message is remembered when the script does not say.
const defaultDuplicate = 7 * 24 * time.Hour

// buildDuplicate: RFC 7352. What was seen is remembered by a hash of the handle and the unique id.
func buildDuplicate(c *compiler, b *bound) cond {
	handle, header, unique := c.tagText(b, "handle"), c.tagText(b, "header"), c.tagText(b, "uniqueid")
	lifetime := defaultDuplicate
	if a := b.tags["seconds"]; a != nil {
		lifetime = seconds(a.num)
	}
	last := b.tag("last")
	return func(r *run) (bool, error) {
		h, err := r.expand(handle)
		if err != nil {
			return false, err
		}
		id, kind := "", "u"
		if unique != nil {
			id, err = r.expand(unique)
		} else {
			kind = "h"
			name := "Message-ID"
			if header != nil {
				if name, err = r.expand(header); err != nil {
					return false, err
				}
			}
			id, err = r.one(name)
		}
		if err != nil || id == "" { // nothing to recognise it by
			return false, err
		}
		key := hash("duplicate", h, kind, id)
		alive := min(lifetime, r.lim.MaxDuplicate)
		for _, m := range r.out.Marks {
			if m.Key == key {
				return true, nil // the same test twice in one run (RFC 7352 §3)
			}
		}
		seen, err := r.env.Host.Claim(r.ctx, key)
		if err != nil {
			return false, fmt.Errorf("look up what was seen: %w", err)
		}
		if !seen || last {
			r.out.Marks = append(r.out.Marks, Mark{key, alive})
		}
		return seen, r.spend(10)
	}
}

// hash is a key for a list of strings.
func hash(parts ...string) string {
	h := sha256.New()
	for _, p := range parts {
		fmt.Fprintf(h, "%d:%s", len(p), p)
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// seconds bounds a number of seconds to what a duration holds.
func seconds(n uint64) time.Duration {
	return time.Duration(min(n, 1<<31)) * time.Second
}
