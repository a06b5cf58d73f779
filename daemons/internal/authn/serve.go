package authn

import (
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
	"time"
)

const (
	defaultEvents = 100
	maxEvents     = 10000
)

// ServeLogins is a part of the control API:
//
//	GET /v1/logins?account=&remote=&result=&since=&limit=   {"events": [...]}, the newest first; see Event
//
// account is compared with the account's address and with the user name as it was written, since is a time of RFC 3339.
func (a *Authenticator) ServeLogins(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	limit, err := strconv.Atoi(q.Get("limit"))
	if err != nil || limit < 1 {
		limit = defaultEvents
	}
	var since time.Time
	if s := q.Get("since"); s != "" {
		if since, err = time.Parse(time.RFC3339, s); err != nil {
			answerJSON(w, http.StatusBadRequest, map[string]string{"error": "since is no time of RFC 3339"})
			return
		}
	}
	account, remote, result := strings.ToLower(q.Get("account")), q.Get("remote"), q.Get("result")
	answerJSON(w, http.StatusOK, map[string][]Event{"events": a.Logins(min(limit, maxEvents), func(e *Event) bool {
		return (account == "" || e.Account == account || strings.EqualFold(e.User, account)) &&
			(remote == "" || e.Remote == remote) && (result == "" || e.Result == result) && !e.Time.Before(since)
	})})
}

func answerJSON(w http.ResponseWriter, code int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(v) // who has gone gets no answer
}
