package kit

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"time"

	"shoal/daemons/internal/pki"
)

// Status is the answer to GET /v1/status of the control API.
type Status struct {
	Daemon      string         `json:"daemon"`
	Server      string         `json:"server"`
	Host        string         `json:"host"` // of the machine
	Version     string         `json:"version"`
	Commit      string         `json:"commit"`
	Boot        string         `json:"boot"`
	PID         int            `json:"pid"`
	Started     time.Time      `json:"started"`
	Ready       bool           `json:"ready"`
	Reason      string         `json:"reason,omitempty"` // why it is not ready
	Draining    bool           `json:"draining"`
	Certificate *time.Time     `json:"certificate_expires,omitempty"`
	Service     map[string]any `json:"service,omitempty"` // of the role
}

// operatorKey is where a request's context holds the operator's name.
type operatorKey struct{}

// Operator is the name in the certificate of whoever sent a request to the control API.
func Operator(ctx context.Context) string {
	name, _ := ctx.Value(operatorKey{}).(string)
	return name
}

// bodyKey is where a request's context holds its body as it comes.
type bodyKey struct{}

// Body is the body of a request to the control API without the bound that every r.Body has, for what may be larger: the
// caller bounds it.
func Body(r *http.Request) io.Reader {
	if body, ok := r.Context().Value(bodyKey{}).(io.Reader); ok {
		return body
	}
	return r.Body
}

// WriteJSON answers a request of the control API.
func WriteJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	_ = enc.Encode(v) // the client is gone: nobody to tell
}

// WriteError answers a request of the control API that failed: {"error": "..."}.
func WriteError(w http.ResponseWriter, status int, err error) {
	WriteJSON(w, status, map[string]string{"error": err.Error()})
}

// serveControl starts the control API: HTTPS for operators, who are known by their certificate. Beside the
// role's own commands:
//
//	GET  /v1/status   a Status
//	POST /v1/drain    begin to drain, as SIGTERM does; 202 and {"draining": true, "timeout": "30s"}
func (p *process) serveControl() error {
	c := p.current().Common()
	if c.Control == nil {
		return nil
	}
	mux := p.env.Control
	mux.HandleFunc("GET /v1/status", func(w http.ResponseWriter, r *http.Request) {
		WriteJSON(w, http.StatusOK, p.status(r.Context()))
	})
	mux.HandleFunc("POST /v1/drain", func(w http.ResponseWriter, _ *http.Request) {
		select {
		case p.drainAsked <- struct{}{}:
		default: // asked already
		}
		d := drainBlock(p.current().Common())
		WriteJSON(w, http.StatusAccepted, map[string]any{"draining": true, "timeout": (d.Delay + d.Timeout).String()})
	})
	config := p.env.Creds.ServerTLS(pki.RoleOperator)
	config.NextProtos = []string{"h2", "http/1.1"}
	return p.serveHTTP("control", c.Control.Address, newHTTPServer(p.operatorsOnly(mux), p.log),
		func(l net.Listener) net.Listener { return tls.NewListener(l, config) })
}

// operatorsOnly puts the operator's name into the request and logs every command that changes something.
// The role was checked in the handshake; here it is checked again, so that a mistake in one place is not
// enough.
func (p *process) operatorsOnly(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.TLS == nil {
			http.Error(w, "TLS only", http.StatusForbidden)
			return
		}
		role, name, err := pki.PeerIdentity(*r.TLS)
		if err != nil || role != pki.RoleOperator {
			http.Error(w, "operators only", http.StatusForbidden)
			return
		}
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			p.log.Info("operator's command", "event", "command", "operator", name, "method", r.Method, "path", r.URL.Path, "remote", r.RemoteAddr)
		}
		ctx := context.WithValue(context.WithValue(r.Context(), operatorKey{}, name), bodyKey{}, io.Reader(r.Body))
		r.Body = http.MaxBytesReader(w, r.Body, httpMaxBody)
		next.ServeHTTP(w, r.WithContext(ctx))
	})
}

// status is the state of the daemon for operators.
func (p *process) status(ctx context.Context) Status {
	s := Status{
		Daemon: p.spec.Name, Server: p.env.Server, Host: hostname(), Version: Version, Commit: revision(),
		Boot: p.env.Boot, PID: os.Getpid(), Started: p.started, Draining: p.draining.Load(),
	}
	if err := p.ready(ctx); err != nil {
		s.Reason = err.Error()
	} else {
		s.Ready = true
	}
	if p.env.Creds != nil {
		at := p.env.Creds.NotAfter()
		s.Certificate = &at
	}
	if service := p.running(); service != nil {
		s.Service = service.Status(ctx)
	}
	return s
}
