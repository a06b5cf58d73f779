package boxd

import (
	"errors"
	"net/http"
	"strings"

	"shoal/daemons/internal/authn"
	"shoal/daemons/internal/dirclient"
	"shoal/daemons/internal/kit"
	"shoal/daemons/internal/migrate"
)

// buildLogin makes what checks logins, with the old servers of domains that are being migrated behind the directory.
func (b *box) buildLogin(c *Config) (err error) {
	o, err := dirclient.OptionsOf(c.Directory, b.env.Creds)
	if err != nil {
		return err
	}
	from := migrate.Options{
		Client: b.dir, Store: b.store, Server: b.env.Server, Settings: c.Migration, Log: b.env.Log, Metrics: b.env.Metrics, Clock: b.env.Clock,
	}
	from.Reach(c.Directory, o.TLS, b.env.Clock)
	b.comes, err = migrate.New(from)
	if err != nil {
		return err
	}
	b.Undone(b.comes.Close)
	b.controlMigration()
	options := authn.Options{
		Directory: b.comes.Directory(), Suffix: b.dir.Suffix(), Settings: &c.Login, Metrics: b.env.Metrics, Clock: b.env.Clock,
		Server: b.env.Server, Peers: b.sender, Log: b.env.Log,
	}
	if b.public != nil {
		options.Certificate = b.public.Shown
	}
	if b.users != nil {
		options.Clients = b.users.Addresses
	}
	b.auth, err = authn.New(options)
	if err != nil {
		return err
	}
	b.told.Store(b.auth)
	if b.env.Control != nil {
		b.env.Control.HandleFunc("GET /v1/logins", b.auth.ServeLogins)
	}
	return nil
}

// reports hands what other servers say of logins on, once there is somebody who takes it.
type reports struct{ b *box }

func (r reports) Heard(user, address string, known bool) {
	if a := r.b.told.Load(); a != nil {
		a.Heard(user, address, known)
	}
}

// maxAsked bounds the accounts in one question.
const maxAsked = 200

// controlMigration adds to the control API:
//
//	GET /v1/migration?account=<volume>/<id>...    {"<volume>/<id>": progress of copying, ...}; "error" in it tells why one cannot be read
func (b *box) controlMigration() {
	if b.env.Control == nil {
		return
	}
	b.env.Control.HandleFunc("GET /v1/migration", func(w http.ResponseWriter, r *http.Request) {
		asked := r.URL.Query()["account"]
		if len(asked) == 0 || len(asked) > maxAsked {
			kit.WriteError(w, http.StatusBadRequest, errors.New("name 1 to 200 accounts"))
			return
		}
		out := map[string]migrate.Progress{}
		for _, name := range asked {
			volume, id, _ := strings.Cut(name, "/")
			p, err := b.comes.Progress(r.Context(), volume, id)
			if err != nil {
				p = migrate.Progress{Error: err.Error()}
			}
			out[name] = p
		}
		kit.WriteJSON(w, http.StatusOK, out)
	})
}
