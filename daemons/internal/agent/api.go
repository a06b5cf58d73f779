package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"regexp"

	"shoal/daemons/internal/kit"
)

// The API. Bodies and answers are JSON; an error is {"error": "..."}, with 400 for what can never be, 404 for what is not
// there, 409 for what is in the way, 503 for what may pass.
//
//	GET    /v1/agent                               versions and parts
//	GET    /v1/lb/pools                            all pools with their members and what HAProxy says of them
//	GET    /v1/lb/pools/{pool}
//	PUT    /v1/lb/pools/{pool}                     make or change a pool: its members stay as they are
//	DELETE /v1/lb/pools/{pool}                     409 while it has members
//	GET    /v1/lb/pools/{pool}/members/{member}
//	PUT    /v1/lb/pools/{pool}/members/{member}    make or change a member: address, state (ready, drain, maint) ...
//	DELETE /v1/lb/pools/{pool}/members/{member}    begin or go on to remove: 202 and {"sessions": n} while it drains, 204 when
//	                                               it is gone; ?force=true cuts its sessions
//	GET    /v1/nfs/volumes                         all volumes
//	GET    /v1/nfs/volumes/{volume}
//	PUT    /v1/nfs/volumes/{volume}                make a volume, or give it another policy
//	DELETE /v1/nfs/volumes/{volume}                409 while it holds data; ?data=keep stops serving it and leaves the data
//	GET    /v1/nfs/policies                        all policies with their rules in order
//	GET    /v1/nfs/policies/{policy}
//	PUT    /v1/nfs/policies/{policy}               make a policy, or change its description
//	DELETE /v1/nfs/policies/{policy}               409 while a volume has it
//	GET    /v1/nfs/policies/{policy}/rules/{index}
//	PUT    /v1/nfs/policies/{policy}/rules/{index}
//	DELETE /v1/nfs/policies/{policy}/rules/{index}

// problem is an error with the HTTP status that tells what kind it is.
type problem struct {
	status int
	error
}

func (p problem) Unwrap() error { return p.error }

func badRequest(format string, args ...any) error {
	return problem{http.StatusBadRequest, fmt.Errorf(format, args...)}
}

func notFound(format string, args ...any) error {
	return problem{http.StatusNotFound, fmt.Errorf(format, args...)}
}

func conflict(format string, args ...any) error {
	return problem{http.StatusConflict, fmt.Errorf(format, args...)}
}

// answered runs a command and writes its answer; nil answers 204.
func answered(f func(r *http.Request) (status int, v any, err error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		status, v, err := f(r)
		var p problem
		switch {
		case errors.As(err, &p):
			kit.WriteError(w, p.status, err)
		case err != nil:
			kit.WriteError(w, http.StatusServiceUnavailable, err)
		case v == nil:
			w.WriteHeader(http.StatusNoContent)
		default:
			kit.WriteJSON(w, status, v)
		}
	}
}

// body decodes a request, which the kit bounds. Unknown members are refused: they would be settings that have no effect.
func body(r *http.Request, into any) error {
	d := json.NewDecoder(r.Body)
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return badRequest("the request cannot be read: %w", err)
	}
	return nil
}

var namePattern = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,30}$`)

// checkName is for everything that the API names.
func checkName(what, name string) error {
	if !namePattern.MatchString(name) {
		return badRequest("%s %q: use 1 to 31 of a-z, 0-9 and '-', beginning with a letter or digit", what, name)
	}
	return nil
}
