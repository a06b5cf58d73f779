package shoal

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"
)

var tokenEncoding = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// maxTokens is how many good tokens a server may have at once.
const maxTokens = 8

// NewToken makes a one-time token of enrolment for a server and puts its hash into the directory (docs/enrolment.md);
// tokens that have expired are taken away, and where there are too many the first to expire: an ephemeral resource makes one with each
// plan, and nobody spends those.
func (d *Directory) NewToken(ctx context.Context, server string, hosts []string, life time.Duration) (string, error) {
	e, err := d.Read(ctx, d.ServerDN(server))
	if err != nil {
		return "", err
	}
	role := e.First("shoalRole")
	if role == "" || role == "operator" {
		return "", fmt.Errorf("server %s has role %q, which does not enrol", server, role)
	}
	now := time.Now()
	var old, good []string
	expires := func(t string) time.Time {
		f := strings.Fields(t)
		if len(f) < 4 {
			return time.Time{}
		}
		at, err := time.Parse(time.RFC3339, f[2])
		if err != nil {
			return time.Time{}
		}
		return at
	}
	for _, t := range e["shoalEnrolToken"] {
		if now.After(expires(t)) {
			old = append(old, t)
		} else {
			good = append(good, t)
		}
	}
	if len(good) >= maxTokens {
		slices.SortFunc(good, func(a, b string) int { return expires(a).Compare(expires(b)) })
		old = append(old, good[:len(good)-maxTokens+1]...)
	}
	var b [32]byte
	_, _ = rand.Read(b[:]) // never fails: it ends the process instead (crypto/rand)
	clear := "shoal1-" + tokenEncoding.EncodeToString(b[:])
	sum := sha256.Sum256([]byte(clear))
	stored := "1 " + hex.EncodeToString(sum[:]) + " " + now.Add(life).UTC().Format(time.RFC3339) + " " + role
	if len(hosts) > 0 {
		stored += " " + strings.Join(hosts, ",")
	}
	return clear, d.Change(ctx, d.ServerDN(server), "shoalEnrolToken", stored, old)
}
