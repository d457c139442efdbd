// Package quic is the part of quic-go v0.23.0 that pan and shttp of scion-apps v0.5.0 use, on today's quic-go.
// v0.23.0 itself refuses to compile with Go 1.18 and later. The names and their meaning are those of v0.23.0.
package quic

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"time"

	"github.com/quic-go/quic-go"
)

type (
	ApplicationErrorCode = quic.ApplicationErrorCode
	StreamErrorCode      = quic.StreamErrorCode
	// Config is that of today's quic-go.
	Config = quic.Config
)

// ReceiveStream is a stream of the other side.
type ReceiveStream interface {
	io.Reader
	CancelRead(StreamErrorCode)
	SetReadDeadline(time.Time) error
}

// SendStream is an own stream.
type SendStream interface {
	io.WriteCloser
	SetWriteDeadline(time.Time) error
}

// Session is a QUIC connection.
type Session interface {
	AcceptUniStream(context.Context) (ReceiveStream, error)
	OpenUniStream() (SendStream, error)
	LocalAddr() net.Addr
	RemoteAddr() net.Addr
	CloseWithError(ApplicationErrorCode, string) error
}

// EarlySession is a QUIC connection whose handshake may not be complete.
type EarlySession interface{ Session }

// Listener accepts QUIC connections.
type Listener interface {
	Close() error
	Addr() net.Addr
	Accept(context.Context) (Session, error)
}

// DialContext opens a QUIC connection and completes its handshake. If the settings of TLS have no server name,
// it is the host, without its port.
func DialContext(ctx context.Context, socket net.PacketConn, to net.Addr, host string, settings *tls.Config,
	config *Config) (Session, error) {

	connection, err := quic.Dial(ctx, socket, to, named(settings, host), config)
	if err != nil {
		return nil, err
	}
	return session{connection}, nil
}

// DialEarlyContext is like DialContext, but returns before the handshake is complete if data can be sent.
func DialEarlyContext(ctx context.Context, socket net.PacketConn, to net.Addr, host string,
	settings *tls.Config, config *Config) (EarlySession, error) {

	connection, err := quic.DialEarly(ctx, socket, to, named(settings, host), config)
	if err != nil {
		return nil, err
	}
	return session{connection}, nil
}

// Listen accepts QUIC connections on a socket.
func Listen(socket net.PacketConn, settings *tls.Config, config *Config) (Listener, error) {
	it, err := quic.Listen(socket, settings, config)
	if err != nil {
		return nil, err
	}
	return listener{it}, nil
}

func named(settings *tls.Config, host string) *tls.Config {
	settings = settings.Clone()
	if settings.ServerName == "" {
		settings.ServerName = host
		if name, _, err := net.SplitHostPort(host); err == nil {
			settings.ServerName = name
		}
	}
	return settings
}

type session struct{ *quic.Conn }

func (s session) AcceptUniStream(ctx context.Context) (ReceiveStream, error) {
	return s.Conn.AcceptUniStream(ctx)
}

func (s session) OpenUniStream() (SendStream, error) { return s.Conn.OpenUniStream() }

type listener struct{ *quic.Listener }

func (l listener) Accept(ctx context.Context) (Session, error) {
	connection, err := l.Listener.Accept(ctx)
	if err != nil {
		return nil, err
	}
	return session{connection}, nil
}
