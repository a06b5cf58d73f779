package imapsession

import (
	"context"
	"errors"
	"net"
)

// Server serves IMAP to any number of connections.
type Server struct {
	opt Options
}

// New makes a server. It does nothing until Serve is called.
func New(opt Options) (*Server, error) {
	if opt.Store == nil || opt.Auth == nil || opt.Log == nil {
		return nil, errors.New("imapsession: Options.Store, Auth and Log are required")
	}
	return &Server{opt: opt}, nil
}

// Serve accepts connections from l until l is closed or Shutdown is called, and then returns nil. It
// may be called for several listeners at once. It closes l.
func (s *Server) Serve(l net.Listener) error { return s.serve(l, false) }

// ServeTLS is Serve for a listener whose connections begin with TLS (RFC 8314). Options.TLS must be
// set. l hands out the bare connections.
func (s *Server) ServeTLS(l net.Listener) error { return s.serve(l, true) }

func (s *Server) serve(l net.Listener, secure bool) error { return nil }

// Shutdown ends all sessions: those that wait for their client get BYE at once, the others when
// their command is done. It returns when all are gone, or closes the rest when ctx ends and returns
// its error.
func (s *Server) Shutdown(ctx context.Context) error { return nil }

// Close ends all sessions without waiting for their commands.
func (s *Server) Close() error { return nil }

// SetLimits changes the limits for what begins from now on: a reload of the configuration.
func (s *Server) SetLimits(l Limits) {}
