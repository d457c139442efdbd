// Command go-client announces to a tracker over SCION with the libraries that Go programs use: snet and
// the daemon connector of scionproto, and quic-go. The tests of the local topology run it (tests/it/go.rs).
//
// Each line on standard input is one request (package announce). All requests use one connection.
package main

import (
	"context"
	"flag"
	"fmt"
	"net/netip"
	"os"

	"github.com/scion-tracker/scion-tracker/scion/local-topology/tests/go-announce"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "go-client:", err)
		os.Exit(1)
	}
}

func run() error {
	var settings struct {
		protocol, daemon, local, authority string
		remote                             remote
	}
	flag.StringVar(&settings.protocol, "protocol", "", "qs, h3 or udp")
	flag.StringVar(&settings.daemon, "daemon", "", "`address` of the SCION daemon")
	flag.StringVar(&settings.local, "local", "", "IP `address` of this host")
	flag.StringVar(&settings.authority, "ca", "", "PEM `file` of the authority that signed the certificate (h3)")
	flag.TextVar(&settings.remote.ia, "ia", settings.remote.ia, "ISD-AS of the tracker")
	flag.TextVar(&settings.remote.host, "host", netip.AddrPort{}, "host and port of the tracker")
	flag.BoolVar(&settings.remote.endhostPort, "endhost-port", false,
		"inside the AS send to UDP port 30041 of the tracker's host, as pan of scion-apps does")
	flag.Parse()

	ctx := context.Background()
	local, err := netip.ParseAddr(settings.local)
	if err != nil {
		return err
	}
	conn, err := listen(ctx, settings.daemon, local, settings.remote)
	if err != nil {
		return err
	}
	defer conn.Close()
	client, err := dial(settings.protocol, conn, settings.authority)
	if err != nil {
		return err
	}

	return announce.Run(client, os.Stdout, conn.changes)
}

func dial(protocol string, conn *pathConn, authority string) (announce.Client, error) {
	switch protocol {
	case "qs":
		return newStreams(conn), nil
	case "h3":
		return newHTTP3(conn, authority)
	case "udp":
		return announce.NewBEP15(conn), nil
	default:
		return nil, fmt.Errorf("unknown protocol %q: expected qs, h3 or udp", protocol)
	}
}
