package agent

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"time"

	"shoal/daemons/internal/conf"
	"shoal/daemons/internal/dirclient"
	"shoal/daemons/internal/enrol"
	"shoal/daemons/internal/kit"
	"shoal/daemons/internal/pki"
)

// authority serves enrolment on a listener of its own: the only one of the agent that serves whoever has no certificate.
type authority struct {
	l       net.Listener
	server  *http.Server
	ca      func() (*pki.CA, error)
	connect func(context.Context) (enrol.Directory, error)
}

func newAuthority(env *kit.Env, c *Config) (*authority, error) {
	e := c.Enrolment
	if role := env.Creds.Role(); role != pki.RoleEnrol {
		return nil, errors.New("enrolment needs an identity of role enrol, this one is of role " + role + ": shoalctl enrol authority makes one")
	}
	a := &authority{
		ca: func() (*pki.CA, error) {
			return pki.LoadCA(e.CACertFile, e.CAKeyFile, pki.WithClock(env.Clock.Now))
		},
		connect: func(ctx context.Context) (enrol.Directory, error) {
			password, err := conf.ReadSecret(e.Directory.PasswordFile)
			if err != nil {
				return nil, err
			}
			o, err := dirclient.OptionsOf(e.Directory, env.Creds)
			if err != nil {
				return nil, err
			}
			return dirclient.Connect(ctx, dirclient.AdminOptions{
				URIs: o.URIs, TLS: o.TLS, Suffix: o.Suffix, DN: o.BindDN, Password: string(password), Timeout: o.Timeout, Clock: env.Clock,
			})
		},
	}
	if _, err := a.ca(); err != nil {
		return nil, err
	}
	n, err := env.Listen(c.Listeners[0])
	if err != nil {
		return nil, err
	}
	config := env.Creds.ServerTLSOptional(pki.RoleSwitch, pki.RoleBox, pki.RoleVault, pki.RoleBalancer, pki.RoleWebmail,
		pki.RoleProvision, pki.RoleStorage, pki.RoleFilter, pki.RoleEnrol)
	config.NextProtos = []string{"h2", "http/1.1"}
	a.l = tls.NewListener(n, config)
	handler := enrol.NewAuthority(enrol.Options{
		CA: a.ca, Connect: a.connect, Suffix: e.Directory.Suffix, URIs: e.Advertise, Validity: e.Validity, Answered: e.AnsweredFile,
		Now: env.Clock.Now, Log: env.Log, Metrics: env.Metrics,
	}).Handler()
	a.server = &http.Server{
		Handler: handler, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 20 * time.Second, WriteTimeout: 40 * time.Second,
		IdleTimeout: 30 * time.Second, MaxHeaderBytes: 16 << 10, ErrorLog: slog.NewLogLogger(env.Log.Handler(), slog.LevelDebug),
	}
	return a, nil
}

func (a *authority) run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { _ = a.server.Close() })
	defer stop()
	if err := a.server.Serve(a.l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

func (a *authority) drain(ctx context.Context) error { return a.server.Shutdown(ctx) }

// ready: the CA is there, and the directory takes our password.
func (a *authority) ready(ctx context.Context) error {
	if _, err := a.ca(); err != nil {
		return err
	}
	d, err := a.connect(ctx)
	if err != nil {
		return err
	}
	return d.Close()
}
