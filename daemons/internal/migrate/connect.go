package migrate

import (
	"context"
	"crypto/tls"

	"shoal/daemons/internal/clock"
	"shoal/daemons/internal/conf"
	"shoal/daemons/internal/dirclient"
)

// Reach makes Options.Connect and Options.Bind from a server's directory block. peer is the TLS by which it speaks to the directory.
func (o *Options) Reach(d conf.Directory, peer *tls.Config, clk clock.Clock) {
	connect := func(ctx context.Context, uris []string, dn, password string) (*dirclient.Admin, error) {
		return dirclient.Connect(ctx, dirclient.AdminOptions{URIs: uris, TLS: peer, Suffix: d.Suffix, DN: dn, Password: password,
			Timeout: d.RequestTimeout, Clock: clk})
	}
	o.Connect = func(ctx context.Context) (*dirclient.Admin, error) {
		secret, err := conf.ReadSecret(d.PasswordFile)
		if err != nil {
			return nil, err
		}
		return connect(ctx, d.URIs, d.BindDN, string(secret))
	}
	o.Bind = func(ctx context.Context, uri, dn, password string) error {
		a, err := connect(ctx, []string{uri}, dn, password)
		if err != nil {
			return err
		}
		return a.Close()
	}
}
