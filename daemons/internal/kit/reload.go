package kit

import (
	"context"
	"fmt"
	"strings"

	"shoal/daemons/internal/clock"
	"shoal/daemons/internal/conf"
	"shoal/daemons/internal/pki"
)

// reload reads the configuration again and takes it up, whole or not at all.
func (p *process) reload(ctx context.Context) {
	p.sd.reloading()
	defer func() {
		if !p.draining.Load() { // a notice after STOPPING would take that back
			p.sd.ready("Serving")
		}
	}()
	ctx, cancel := context.WithTimeout(ctx, reloadTimeout)
	defer cancel()
	changed, err := p.takeUp(ctx)
	if err != nil {
		p.stats.reloads.WithLabelValues("refused").Inc()
		p.log.Error("reload refused: the old configuration stays", "config", p.path, "error", err)
		return
	}
	p.stats.reloads.WithLabelValues("applied").Inc()
	p.stats.loaded.Set(float64(p.world.clock.Now().Unix()))
	p.log.Info("configuration reloaded", "config", p.path, "changed", changed)
}

// takeUp checks everything that can be checked before the role is asked; what follows it cannot fail.
func (p *process) takeUp(ctx context.Context) (changed []string, err error) {
	next, err := load(ctx, p.spec, p.path)
	if err != nil {
		return nil, err
	}
	var restart []string
	for _, c := range conf.Diff(p.current(), next) {
		changed = append(changed, c.String())
		if !c.Live {
			restart = append(restart, c.String())
		}
	}
	if len(restart) > 0 {
		return nil, fmt.Errorf("these settings take effect by a restart only: %s", strings.Join(restart, "; "))
	}
	if err := checkFiles(ctx, next, p.world.clock); err != nil {
		return nil, err
	}
	if p.env.Creds != nil {
		if err := p.env.Creds.Reload(); err != nil {
			return nil, err
		}
		p.warnExpiry("certificate of this server", p.env.Creds.NotAfter())
	}
	if err := within(ctx, func() error { return p.service.Reload(ctx, next) }); err != nil {
		return nil, err
	}
	setLevel(p.level, logBlock(next.Common()).Level)
	p.mu.Lock()
	p.config = next
	p.mu.Unlock()
	return changed, nil
}

// identityFiles names the files of an identity block.
func identityFiles(id *conf.Identity) pki.Files {
	return pki.Files{Cert: id.CertFile, Key: id.KeyFile, CA: id.CAFile}
}

// checkFiles checks the certificates that a configuration names, and what the role wants checked.
func checkFiles(ctx context.Context, c Config, clk clock.Clock) error {
	if id := c.Common().Identity; id != nil {
		if _, err := pki.Load(identityFiles(id), pki.WithClock(clk.Now)); err != nil {
			return err
		}
	}
	for _, p := range conf.Find[conf.PublicTLS](c) {
		if _, err := pki.OpenPublic(p.CertFile, p.KeyFile, pki.WithClock(clk.Now)); err != nil {
			return err
		}
		if p.ClientCAFile != "" {
			if _, err := pki.OpenClientCA(p.ClientCAFile, pki.WithClock(clk.Now)); err != nil {
				return err
			}
		}
	}
	if ch, ok := c.(Checker); ok {
		return ch.Check(ctx)
	}
	return nil
}
