package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
)

// name is the host in URLs: the tracker's certificate contains it.
const name = "localhost"

// quicConfig keeps a connection while links fail, and its packets as short as QUIC allows: snet does not
// say whether a longer one fits the path.
var quicConfig = &quic.Config{
	HandshakeIdleTimeout:    patience,
	MaxIdleTimeout:          2 * patience,
	InitialPacketSize:       1200,
	DisablePathMTUDiscovery: true,
}

// overHTTP announces with a client of net/http, over HTTP/3 or over a stream per direction.
type overHTTP struct {
	scheme string
	client http.Client
	conn   *pathConn
	quic   *quic.Transport
	tls    *tls.Config

	mutex  sync.Mutex
	opened int
}

func (o *overHTTP) connections() int {
	o.mutex.Lock()
	defer o.mutex.Unlock()
	return o.opened
}

func (o *overHTTP) announce(ctx context.Context, peer peer) ([]byte, error) {
	query := url.Values{
		"info_hash": {string(infoHash[:])},
		"peer_id":   {peer.id()},
		"port":      {strconv.Itoa(int(peer.port))},
		"left":      {"1"},
		"numwant":   {strconv.Itoa(int(peer.numwant))},
		"scion":     {"1"},
		"compact":   {"1"},
	}
	address := fmt.Sprintf("%s://%s:%d/announce?%s", o.scheme, name, o.conn.remote.host.Port(), query.Encode())
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, err
	}
	response, err := o.client.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, 1<<16))
	if err != nil {
		return nil, err
	}
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s", response.Status, body)
	}
	return body, nil
}

// dial opens a QUIC connection over the one socket.
func (o *overHTTP) dial(ctx context.Context) (*quic.Conn, error) {
	o.mutex.Lock()
	o.opened++
	o.mutex.Unlock()
	return o.quic.Dial(ctx, o.conn.name, o.tls, quicConfig)
}

// newHTTP3 announces over HTTP/3 with quic-go's client, and verifies the certificate.
func newHTTP3(conn *pathConn, authority string) (*overHTTP, error) {
	pem, err := os.ReadFile(authority)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("no certificate in %s", authority)
	}
	it := &overHTTP{scheme: "https", conn: conn, quic: &quic.Transport{Conn: conn}}
	it.tls = &tls.Config{RootCAs: roots, ServerName: name, NextProtos: []string{http3.NextProtoH3}}
	it.client.Transport = &http3.Transport{
		TLSClientConfig: it.tls,
		Dial: func(ctx context.Context, _ string, _ *tls.Config, _ *quic.Config) (*quic.Conn, error) {
			return it.dial(ctx)
		},
	}
	return it, nil
}

// newStreams announces as shttp of scion-apps does: HTTP/1.1 on one stream per direction (ALPN qs), without
// verifying the certificate.
func newStreams(conn *pathConn) *overHTTP {
	it := &overHTTP{scheme: "http", conn: conn, quic: &quic.Transport{Conn: conn}}
	it.tls = &tls.Config{InsecureSkipVerify: true, ServerName: name, NextProtos: []string{"qs"}}
	it.client.Transport = &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			connection, err := it.dial(ctx)
			if err != nil {
				return nil, err
			}
			return newStreamPair(ctx, connection)
		},
	}
	return it
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
	ctx, cancel := context.WithTimeout(p.connection.Context(), patience)
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
