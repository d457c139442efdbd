package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
	"github.com/scion-tracker/scion-tracker/scion/local-topology/tests/go-announce"
)

// name is the host in URLs: the tracker's certificate contains it.
const name = "localhost"

// quicConfig keeps a connection while links fail, and its packets as short as QUIC allows: snet does not
// say whether a longer one fits the path.
var quicConfig = &quic.Config{
	HandshakeIdleTimeout:    announce.Patience,
	MaxIdleTimeout:          2 * announce.Patience,
	InitialPacketSize:       1200,
	DisablePathMTUDiscovery: true,
}

// dialer opens QUIC connections over the one socket.
type dialer struct {
	conn *pathConn
	quic quic.Transport
	tls  *tls.Config
	http *announce.HTTP
}

func newDialer(scheme string, conn *pathConn, tls *tls.Config) *dialer {
	it := &announce.HTTP{Base: fmt.Sprintf("%s://%s:%d", scheme, name, conn.remote.host.Port())}
	return &dialer{conn: conn, quic: quic.Transport{Conn: conn}, tls: tls, http: it}
}

func (d *dialer) dial(ctx context.Context) (*quic.Conn, error) {
	d.http.Opened.Add(1)
	return d.quic.Dial(ctx, d.conn.name, d.tls, quicConfig)
}

// newHTTP3 announces over HTTP/3 with quic-go's client, and verifies the certificate.
func newHTTP3(conn *pathConn, authority string) (announce.Client, error) {
	roots, err := announce.Authority(authority)
	if err != nil {
		return nil, err
	}
	settings := &tls.Config{RootCAs: roots, ServerName: name, NextProtos: []string{http3.NextProtoH3}}
	dialer := newDialer("https", conn, settings)
	dialer.http.Client.Transport = &http3.Transport{
		TLSClientConfig: settings,
		Dial: func(ctx context.Context, _ string, _ *tls.Config, _ *quic.Config) (*quic.Conn, error) {
			return dialer.dial(ctx)
		},
	}
	return dialer.http, nil
}

// newStreams announces as shttp of scion-apps does: HTTP/1.1 on one stream per direction (ALPN qs), without
// verifying the certificate.
func newStreams(conn *pathConn) announce.Client {
	settings := &tls.Config{InsecureSkipVerify: true, ServerName: name, NextProtos: []string{"qs"}}
	dialer := newDialer("http", conn, settings)
	dialer.http.Client.Transport = &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			connection, err := dialer.dial(ctx)
			if err != nil {
				return nil, err
			}
			return newStreamPair(ctx, connection)
		},
	}
	return dialer.http
}

// streamPair is a QUIC connection in the role of a TCP connection: each side sends on the first stream that it
// opens. A side that has read the other's stream to its end opens another stream and ends it at once.
type streamPair struct {
	connection *quic.Conn
	out        *quic.SendStream
	// in is there once the other side has sent.
	in       chan *quic.ReceiveStream
	deadline time.Time
	ended    sync.Once
}

func newStreamPair(ctx context.Context, connection *quic.Conn) (*streamPair, error) {
	out, err := connection.OpenUniStreamSync(ctx)
	if err != nil {
		return nil, err
	}
	pair := &streamPair{connection: connection, out: out, in: make(chan *quic.ReceiveStream, 1)}
	go func() {
		// On an error the channel stays empty, and the connection ends.
		if in, err := connection.AcceptUniStream(connection.Context()); err == nil {
			pair.in <- in
		}
	}()
	return pair, nil
}

func (p *streamPair) Read(buffer []byte) (int, error) {
	select {
	case in := <-p.in:
		p.in <- in
		length, err := in.Read(buffer)
		if errors.Is(err, io.EOF) {
			p.ended.Do(p.acknowledge)
		}
		return length, err
	case <-p.connection.Context().Done():
		return 0, context.Cause(p.connection.Context())
	}
}

func (p *streamPair) acknowledge() {
	if stream, err := p.connection.OpenUniStream(); err == nil {
		stream.Close()
	}
}

func (p *streamPair) Write(bytes []byte) (int, error) { return p.out.Write(bytes) }

// Close ends the own stream and waits for the acknowledgement.
func (p *streamPair) Close() error {
	if err := p.out.Close(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(p.connection.Context(), announce.Patience)
	defer cancel()
	if stream, err := p.connection.AcceptUniStream(ctx); err == nil {
		_, _ = io.Copy(io.Discard, stream)
	}
	return p.connection.CloseWithError(0, "")
}

func (p *streamPair) LocalAddr() net.Addr  { return p.connection.LocalAddr() }
func (p *streamPair) RemoteAddr() net.Addr { return p.connection.RemoteAddr() }

// Requests have a context, so that net/http sets no deadlines.
func (p *streamPair) SetDeadline(time.Time) error      { return nil }
func (p *streamPair) SetReadDeadline(time.Time) error  { return nil }
func (p *streamPair) SetWriteDeadline(time.Time) error { return nil }
