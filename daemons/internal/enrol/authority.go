package enrol

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"mime"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"shoal/daemons/internal/dirclient"
	"shoal/daemons/internal/pki"
)

// Directory is what the authority needs of the directory: *dirclient.Admin has it.
type Directory interface {
	Enrolments(ctx context.Context, name string, each func(dirclient.Enrolment) error) error
	SpendEnrolToken(ctx context.Context, name, token, password string) error
	SetServerPassword(ctx context.Context, name, password string) error
	Close() error
}

// Options of an Authority; all are required, but for Answered and Metrics.
type Options struct {
	CA       func() (*pki.CA, error)                      // read anew for each certificate
	Connect  func(ctx context.Context) (Directory, error) // as an identity of shoalRole enrol
	Suffix   string                                       // of the directory
	URIs     []string                                     // directory servers that enrolled servers are told
	Validity time.Duration                                // of certificates
	Answered string                                       // file of those who were answered; "": kept in memory
	Now      func() time.Time
	Log      *slog.Logger
	Metrics  prometheus.Registerer
}

// Authority answers the requests of servers. Its handler wants TLS with pki's ServerTLSOptional.
type Authority struct {
	opt   Options
	done  *prometheus.CounterVec
	slots chan struct{}
	past  answered
}

// atOnce bounds the requests that are worked on; more wait.
const atOnce = 8

// NewAuthority makes an Authority.
func NewAuthority(o Options) *Authority {
	a := &Authority{opt: o, past: answered{path: o.Answered, now: o.Now}, slots: make(chan struct{}, atOnce), done: prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "shoal_agent_enrolments_total", Help: "Requests of servers for a certificate, by kind (enrol, renew) and result (ok, refused, failed).",
	}, []string{"kind", "result"})}
	if o.Metrics != nil {
		o.Metrics.MustRegister(a.done)
	}
	return a
}

// refusal is an error whose text the server may see, with its HTTP status.
type refusal struct {
	status int
	error
}

func refuse(status int, format string, args ...any) error {
	return refusal{status, fmt.Errorf(format, args...)}
}

func (r refusal) Unwrap() error { return r.error }

// Handler serves the exchange.
func (a *Authority) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/ca", func(w http.ResponseWriter, _ *http.Request) {
		ca, err := a.opt.CA()
		if err != nil {
			a.opt.Log.Error("the CA cannot be read", "error", err)
			http.Error(w, "the CA cannot be read", http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "application/x-pem-file")
		_, _ = w.Write(ca.CertPEM()) // the client is gone: nobody to tell
	})
	mux.HandleFunc("POST /v1/enrol", a.serve("enrol", a.enrol))
	mux.HandleFunc("POST /v1/renew", a.serve("renew", a.renew))
	return mux
}

func (a *Authority) serve(kind string, f func(*http.Request, *request) (*answer, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var in request
		var out *answer
		err := decode(w, r, &in)
		if err == nil {
			select {
			case a.slots <- struct{}{}:
				out, err = f(r, &in)
				<-a.slots
			case <-r.Context().Done():
				return
			}
		}
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Cache-Control", "no-store")
		log := a.opt.Log.With("event", kind, "peer", in.Name, "role", in.Role, "remote", r.RemoteAddr)
		var no refusal
		switch {
		case err == nil:
			a.done.WithLabelValues(kind, "ok").Inc()
			log.Info("certificate issued")
			_ = json.NewEncoder(w).Encode(out) // the client is gone: nobody to tell
			return
		case errors.As(err, &no):
			a.done.WithLabelValues(kind, "refused").Inc()
			log.Warn("refused", "reason", no.Error())
			w.WriteHeader(no.status)
		default:
			a.done.WithLabelValues(kind, "failed").Inc()
			log.Error("failed", "error", err)
			w.WriteHeader(http.StatusServiceUnavailable)
			err = errors.New("the authority cannot do it now: its log says why")
		}
		_ = json.NewEncoder(w).Encode(map[string]string{"error": err.Error()})
	}
}

func decode(w http.ResponseWriter, r *http.Request, into *request) error {
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/json" {
		return refuse(http.StatusUnsupportedMediaType, "the request must be application/json")
	}
	d := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return refuse(http.StatusBadRequest, "the request cannot be read: %w", err)
	}
	return nil
}

// enrol spends a token.
func (a *Authority) enrol(r *http.Request, in *request) (*answer, error) {
	if err := dirclient.CheckServerName(in.Name); err != nil {
		name := in.Name
		in.Name, in.Role = "", "" // not into the log
		return nil, refuse(http.StatusBadRequest, "%q is no name of a server", clip(name))
	}
	if err := CheckRole(in.Role); err != nil {
		in.Role = ""
		return nil, refuse(http.StatusBadRequest, "%w", err)
	}
	public, err := parseCSR(in.CSR)
	if err != nil {
		return nil, refuse(http.StatusBadRequest, "%w", err)
	}
	d, err := a.opt.Connect(r.Context())
	if err != nil {
		return nil, err
	}
	defer d.Close()
	entry, err := entryOf(r.Context(), d, in.Name)
	if err != nil {
		return nil, err
	}
	if entry == nil || entry.Role != in.Role { // whoever has no token is not told which
		return nil, refuse(http.StatusForbidden, "%w", ErrBadToken)
	}
	key, err := keyHash(public)
	if err != nil {
		return nil, refuse(http.StatusBadRequest, "%w", err)
	}
	stored, token, err := find(entry.Tokens, in.Token, in.Role, a.opt.Now())
	if err != nil {
		// It may be spent, and the answer lost.
		before, again, failed := a.past.again(in.Name, in.Token, in.Role, key)
		switch {
		case failed != nil:
			return nil, failed
		case !again:
			return nil, refuse(http.StatusForbidden, "%w", err)
		}
		stored, token = "", before
	}
	// Everything that can fail comes before the token is spent.
	out, err := a.issue(public, pki.Request{Role: in.Role, Name: in.Name, Hosts: token.Hosts})
	if err != nil {
		return nil, err
	}
	out.BindDN, out.Suffix, out.Directory = dirclient.ServerDN(a.opt.Suffix, in.Name), a.opt.Suffix, a.opt.URIs
	out.Password = rand.Text() + rand.Text() // 260 bits
	if stored == "" {
		return out, d.SetServerPassword(r.Context(), in.Name, out.Password)
	}
	err = a.past.spend(in.Name, token, key, func() error {
		return d.SpendEnrolToken(r.Context(), in.Name, stored, out.Password)
	})
	if errors.Is(err, dirclient.ErrNoSuchToken) || errors.Is(err, dirclient.ErrNoSuchEntry) {
		return nil, refuse(http.StatusForbidden, "%w", ErrBadToken)
	}
	return out, err
}

// renew is for who has a certificate.
func (a *Authority) renew(r *http.Request, in *request) (*answer, error) {
	in.Name, in.Role, in.Token = "", "", ""
	if r.TLS == nil || len(r.TLS.PeerCertificates) == 0 {
		return nil, refuse(http.StatusForbidden, "renewal needs the present certificate: a server without one enrols with a token")
	}
	role, name, err := pki.PeerIdentity(*r.TLS)
	if err != nil {
		return nil, refuse(http.StatusForbidden, "%w", err)
	}
	in.Name, in.Role = name, role
	if err := CheckRole(role); err != nil {
		return nil, refuse(http.StatusForbidden, "%w", err)
	}
	public, err := parseCSR(in.CSR)
	if err != nil {
		return nil, refuse(http.StatusBadRequest, "%w", err)
	}
	d, err := a.opt.Connect(r.Context())
	if err != nil {
		return nil, err
	}
	defer d.Close()
	entry, err := entryOf(r.Context(), d, name)
	if err != nil {
		return nil, err
	}
	if entry == nil || entry.Role != role {
		return nil, refuse(http.StatusForbidden, "the directory has no server %s of role %s any more", name, role)
	}
	present := r.TLS.PeerCertificates[0]
	hosts := append([]string(nil), present.DNSNames...)
	for _, ip := range present.IPAddresses {
		hosts = append(hosts, ip.String())
	}
	return a.issue(public, pki.Request{Role: role, Name: name, Hosts: hosts})
}

func entryOf(ctx context.Context, d Directory, name string) (*dirclient.Enrolment, error) {
	var found *dirclient.Enrolment
	err := d.Enrolments(ctx, name, func(e dirclient.Enrolment) error { found = &e; return nil })
	if errors.Is(err, dirclient.ErrNoSuchEntry) || errors.Is(err, dirclient.ErrInvalidName) {
		return nil, nil
	}
	return found, err
}

func (a *Authority) issue(public any, r pki.Request) (*answer, error) {
	ca, err := a.opt.CA()
	if err != nil {
		return nil, err
	}
	r.Validity = a.opt.Validity
	cert, err := ca.IssueFor(public, r)
	if err != nil {
		return nil, err
	}
	return &answer{Certificate: string(cert), CA: string(ca.CertPEM())}, nil
}

// parseCSR checks a request of PKCS #10 (RFC 2986) and gives its public key, the one thing that is taken from it.
func parseCSR(text string) (any, error) {
	block, rest := pem.Decode([]byte(text))
	if block == nil || block.Type != "CERTIFICATE REQUEST" || len(rest) > 0 {
		return nil, errors.New("csr is not one certificate request in PEM")
	}
	csr, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("csr: %w", err)
	}
	switch key := csr.PublicKey.(type) {
	case *ecdsa.PublicKey:
		if key.Curve.Params().BitSize < 256 {
			return nil, errors.New("csr: a key on a curve of fewer than 256 bits is too weak")
		}
	case ed25519.PublicKey:
	default:
		return nil, errors.New("csr: the key must be ECDSA or Ed25519")
	}
	if err := csr.CheckSignature(); err != nil {
		return nil, fmt.Errorf("csr: it is not signed by its own key: %w", err)
	}
	return csr.PublicKey, nil
}

func clip(s string) string {
	if len(s) > 32 {
		return s[:32] + "..."
	}
	return s
}
