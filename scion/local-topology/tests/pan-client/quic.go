package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"

	"github.com/netsec-ethz/scion-apps/pkg/pan"
	"github.com/netsec-ethz/scion-apps/pkg/shttp"
	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
	"github.com/scion-tracker/scion-tracker/scion/local-topology/tests/go-announce"
)

// authorized is a host name in the tracker's certificate.
const authorized = "localhost"

// quicConfig keeps a connection while links fail, and its packets as short as QUIC allows: pan does not say
// whether a longer one fits the path.
var quicConfig = &quic.Config{
	HandshakeIdleTimeout:    announce.Patience,
	MaxIdleTimeout:          2 * announce.Patience,
	InitialPacketSize:       1200,
	DisablePathMTUDiscovery: true,
}

// newStreams announces with shttp: HTTP/1.1 on a pair of QUIC streams (ALPN qs). The certificate is not
// verified. The name leads to the tracker by /etc/hosts.
func newStreams(network network, name string) announce.Client {
	it := &announce.HTTP{Base: fmt.Sprintf("http://%s:%d", name, network.remote.Port)}
	transport, dialer := shttp.NewTransport(quicConfig, network.policy)
	dialer.Local = network.local
	transport.DialContext = func(ctx context.Context, kind, address string) (net.Conn, error) {
		it.Opened.Add(1)
		return dialer.DialContext(ctx, kind, address)
	}
	it.Client.Transport = transport
	return it
}

// newHTTP3 announces over HTTP/3 with quic-go's client on a socket of pan, and verifies the certificate.
func newHTTP3(network network, authority string) (announce.Client, error) {
	roots, err := announce.Authority(authority)
	if err != nil {
		return nil, err
	}
	it := &announce.HTTP{Base: fmt.Sprintf("https://%s:%d", authorized, network.remote.Port)}
	it.Client.Transport = &http3.Transport{
		TLSClientConfig: &tls.Config{RootCAs: roots},
		Dial: func(ctx context.Context, _ string, settings *tls.Config, _ *quic.Config) (*quic.Conn, error) {
			it.Opened.Add(1)
			conn, err := network.dial(ctx)
			if err != nil {
				return nil, err
			}
			return quic.Dial(ctx, packets{conn}, network.remote, settings, quicConfig)
		},
	}
	return it, nil
}

// packets is a connected socket of pan as quic-go takes it.
type packets struct{ pan.Conn }

func (p packets) ReadFrom(buffer []byte) (int, net.Addr, error) {
	length, err := p.Read(buffer)
	return length, p.RemoteAddr(), err
}

func (p packets) WriteTo(datagram []byte, _ net.Addr) (int, error) { return p.Write(datagram) }
