package api

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// Config is where the interface listens: a part of the key admin of
// lockkeeper.yaml.
type Config struct {
	Listen string // host:port; beyond loopback it needs Cert and Key
	Cert   string // file
	Key    string // file
}

// Validate refuses to show the interface to others in the clear.
func (c *Config) Validate() error {
	host, _, err := net.SplitHostPort(c.Listen)
	switch {
	case err != nil:
		return fmt.Errorf("listen: %w", err)
	case (c.Cert == "") != (c.Key == ""):
		return errors.New("cert and key: both or none")
	case c.Cert == "" && !isLoopback(host):
		return fmt.Errorf("listen: %s is reachable by others: tokens would pass in the clear; set cert and key, or listen on 127.0.0.1", c.Listen)
	}
	return nil
}

func isLoopback(host string) bool {
	if host == "localhost" {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

// Server is the interface on its port.
type Server struct {
	cfg      Config
	listener net.Listener
	socket   net.Listener // the same without TLS
	http     http.Server
	cert     atomic.Pointer[tls.Certificate]
	conns    sync.WaitGroup
	handed   atomic.Bool // another process answers
}

// Listen opens the port. Logger takes what net/http complains about.
func Listen(ctx context.Context, cfg Config, h *Handler, logger *slog.Logger) (*Server, error) {
	s, err := newServer(cfg, h, logger)
	if err != nil {
		return nil, err
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", cfg.Listen)
	if err != nil {
		return nil, fmt.Errorf("admin: %w", err)
	}
	s.serveOn(l)
	return s, nil
}

// Inherit is Listen with a port that another process has opened.
func Inherit(l net.Listener, cfg Config, h *Handler, logger *slog.Logger) (*Server, error) {
	s, err := newServer(cfg, h, logger)
	if err != nil {
		return nil, err
	}
	s.serveOn(l)
	return s, nil
}

func newServer(cfg Config, h *Handler, logger *slog.Logger) (*Server, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("admin: %w", err)
	}
	s := &Server{cfg: cfg}
	s.http = http.Server{
		Handler: h, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 15 * time.Second,
		WriteTimeout: 2 * requestTime, IdleTimeout: 2 * time.Minute,
		MaxHeaderBytes: 32 << 10, ErrorLog: slog.NewLogLogger(logger.Handler(), slog.LevelDebug),
	}
	s.http.ConnState = s.count
	return s, s.Reload()
}

// count counts connections.
func (s *Server) count(_ net.Conn, state http.ConnState) {
	switch state {
	case http.StateNew:
		s.conns.Add(1)
	case http.StateClosed, http.StateHijacked:
		s.conns.Done()
	case http.StateActive, http.StateIdle:
	}
}

func (s *Server) serveOn(l net.Listener) {
	s.listener, s.socket = l, l
	if s.cfg.Cert != "" {
		s.listener = tls.NewListener(l, &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}, GetCertificate: s.certificate})
	}
}

// Reload reads the certificate again; the old one stays where that fails.
func (s *Server) Reload() error {
	if s.cfg.Cert == "" {
		return nil
	}
	cert, err := tls.LoadX509KeyPair(s.cfg.Cert, s.cfg.Key)
	if err != nil {
		return fmt.Errorf("admin: load the certificate: %w", err)
	}
	s.cert.Store(&cert)
	return nil
}

func (s *Server) certificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	return s.cert.Load(), nil
}

// Socket returns the listening socket.
func (s *Server) Socket() net.Listener { return s.socket }

// Addr returns where the interface listens.
func (s *Server) Addr() net.Addr { return s.listener.Addr() }

// Serve answers until Shutdown or HandOver, and always returns an error.
func (s *Server) Serve() error {
	err := s.http.Serve(s.listener)
	if s.handed.Load() || errors.Is(err, http.ErrServerClosed) {
		return http.ErrServerClosed
	}
	return fmt.Errorf("admin: %w", err)
}

// HandOver stops accepting: another process does so on the same socket. Who was
// accepted is answered, once.
func (s *Server) HandOver() {
	s.handed.Store(true)
	s.http.SetKeepAlivesEnabled(false)
	_ = s.socket.Close() // Serve finds out
}

// Shutdown lets requests finish until ctx ends, then closes them.
func (s *Server) Shutdown(ctx context.Context) error {
	if s.handed.Load() {
		s.answerAll(ctx)
	}
	if err := s.http.Shutdown(ctx); err != nil {
		return errors.Join(err, s.http.Close())
	}
	return nil
}

// answerAll waits for requests that were not read yet, too, which http.Server
// drops in its Shutdown.
func (s *Server) answerAll(ctx context.Context) {
	done := make(chan struct{})
	go func() { s.conns.Wait(); close(done) }()
	select {
	case <-done:
	case <-ctx.Done():
	}
}
