package vaultd

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"shoal/daemons/internal/kit"
	"shoal/daemons/internal/replica"
)

// The commands of a promotion, of the control API. shoalctl directory promote gives them in this order:
//
//	POST /v1/directory/vote     {"epoch": 4, "master": "vault2", "old_master_is_off": false}
//	    to the candidate, the old master if it answers, and the voters. From its answer on a vault follows nobody of an
//	    epoch below, and grants the old master no lease; it tells for how long its last grant may hold yet
//	    ("wait_seconds"), and a voter counts when that has passed. A master that votes has ceased to be one.
//	POST /v1/directory/promote  {"epoch": 4, "old_master": "vault1"}
//	    to the candidate, which takes updates from its answer on.
//
// An epoch has one candidate: a vault votes once in it. A promotion that ended half way is repeated, with an epoch of its
// own.

// VoteRequest and the other types are the bodies of requests and answers.
type VoteRequest struct {
	Epoch          uint64 `json:"epoch"`
	Master         string `json:"master"`
	OldMasterIsOff bool   `json:"old_master_is_off"`
}

// VoteAnswer is the answer to a vote.
type VoteAnswer struct {
	Server     string   `json:"server"`
	WasMaster  bool     `json:"was_master"`
	Wait       float64  `json:"wait_seconds"`
	ContextCSN []string `json:"context_csn"`
	Voters     []string `json:"known_voters"` // but for the new master
}

// PromoteRequest makes the candidate of an epoch the master.
type PromoteRequest struct {
	Epoch     uint64 `json:"epoch"`
	OldMaster string `json:"old_master"`
}

func (v *vault) promotions() {
	mux := v.env.Control
	mux.HandleFunc("POST /v1/directory/vote", func(w http.ResponseWriter, r *http.Request) {
		var q VoteRequest
		if !readBody(w, r, &q) {
			return
		}
		answer, err := v.vote(q)
		answerTo(w, answer, err)
	})
	mux.HandleFunc("POST /v1/directory/promote", func(w http.ResponseWriter, r *http.Request) {
		var q PromoteRequest
		if !readBody(w, r, &q) {
			return
		}
		err := v.promote(q)
		answerTo(w, map[string]any{"server": v.name, "epoch": q.Epoch, "context_csn": v.store.ContextCSN()}, err)
	})
}

func readBody(w http.ResponseWriter, r *http.Request, into any) bool {
	if err := json.NewDecoder(r.Body).Decode(into); err != nil {
		kit.WriteError(w, http.StatusBadRequest, fmt.Errorf("the request is not readable: %w", err))
		return false
	}
	return true
}

// errConflict is an answer that does not fit what this vault is.
type errConflict struct{ error }

// errOvertaken says that another promotion came first: this one must end, whatever else it has.
type errOvertaken struct{ error }

func answerTo(w http.ResponseWriter, answer any, err error) {
	switch {
	case err == nil:
		kit.WriteJSON(w, http.StatusOK, answer)
	case errors.As(err, new(errOvertaken)):
		kit.WriteError(w, http.StatusPreconditionFailed, err)
	case errors.As(err, new(errConflict)):
		kit.WriteError(w, http.StatusConflict, err)
	default:
		kit.WriteError(w, http.StatusInternalServerError, err)
	}
}

func conflict(format string, args ...any) error { return errConflict{fmt.Errorf(format, args...)} }

// vote gives this vault's vote.
func (v *vault) vote(q VoteRequest) (*VoteAnswer, error) {
	q.Master = strings.ToLower(q.Master)
	v.changing.Lock()
	defer v.changing.Unlock()
	g := v.state()
	answer := &VoteAnswer{Server: v.name}
	switch {
	case q.Epoch == 0 || q.Master == "":
		return nil, conflict("a vote is for an epoch above 0 and a master")
	case q.Epoch < g.Epoch || q.Epoch == g.Epoch && q.Master != g.Master:
		return nil, errOvertaken{fmt.Errorf("%s knows of %s already", v.name, g)}
	case v.replica == nil && q.Master != v.name:
		return nil, conflict("%s has no block shadow in its configuration: it could not follow %s", v.name, q.Master)
	case g.Mode != replica.ModeMaster && v.readyToAnswer() != nil:
		// What it voted for earlier may be gone with its database.
		return nil, conflict("%s has no vote: %v", v.name, v.readyToAnswer())
	}
	if a, _ := v.lacks(); a != nil && q.Master == v.name {
		return nil, conflict("%s cannot be the master: it has a part of the directory only (%s)", v.name, a)
	}
	if q.Epoch > g.Epoch {
		n := reign{Epoch: q.Epoch, Master: q.Master, Mode: replica.ModeShadow}
		if q.Master == v.name {
			n.Mode = replica.ModeCandidate
		}
		answer.WasMaster = g.Mode == replica.ModeMaster
		v.halt()
		err := v.setReign(n)
		if err == nil && answer.WasMaster {
			err = v.follows() // after every update that was let through
		}
		v.act()
		if err != nil {
			return nil, err
		}
		v.env.Log.Warn("this vault has voted for a master", "event", "directory-vote", "epoch", n.Epoch, "master", n.Master, "was", g.String(), "mode", g.Mode)
	}
	answer.ContextCSN, answer.Voters = v.store.ContextCSN(), v.knownVoters(q.Master)
	v.mu.Lock()
	left := v.promised - v.env.Clock.Boot()
	v.mu.Unlock()
	if left > 0 && !q.OldMasterIsOff && !answer.WasMaster {
		answer.Wait = left.Seconds()
	}
	return answer, nil
}

// promote makes this vault the master.
func (v *vault) promote(q PromoteRequest) error {
	v.changing.Lock()
	defer v.changing.Unlock()
	g := v.state()
	switch {
	case g.Epoch != q.Epoch || g.Master != v.name:
		return conflict("%s did not vote for itself in epoch %d: it knows of %s", v.name, q.Epoch, g)
	case g.Mode == replica.ModeMaster:
		return nil // a repeated command
	}
	v.halt()
	defer v.act()
	was := g
	g.Mode = replica.ModeMaster
	v.leases.reset()
	// It has the votes: what is to be done below is done by the next start if this process ends in between. A database that
	// is no shadow's any more, and of a candidate, could not be promoted again.
	err := g.save(v.config.Database.Path)
	if err == nil {
		err = v.enthrone(g, strings.ToLower(q.OldMaster))
	}
	if err == nil {
		err = v.setReign(g)
	}
	if err != nil {
		return errors.Join(err, v.setReign(was), v.follows()) // the command is repeated
	}
	v.env.Log.Warn("this vault is the master from now on", "event", "directory-promoted", "epoch", g.Epoch, "at", v.env.Clock.Now().UTC().Format(time.RFC3339))
	return nil
}

// enthrone makes the database that of the master, while nobody else may write.
func (v *vault) enthrone(g reign, old string) error {
	v.store.Fence(false)
	if err := v.rule(g); err != nil {
		return err
	}
	if old == "" || old == v.name || len(v.urisOf(old)) == 0 {
		return nil
	}
	if err := v.enfranchise(old); err != nil { // it will be a shadow
		return err
	}
	v.countVoters()
	return nil
}
