// Command pan-client announces to a tracker over SCION with scion-apps: BEP 15 on a socket of pan, HTTP/1.1
// on QUIC streams with shttp, and HTTP/3 with quic-go on a socket of pan. The tests of the local topology run
// it (tests/it/pan.rs).
//
// Each line on standard input is one request (package announce). All requests use one connection.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"strings"

	"github.com/netsec-ethz/scion-apps/pkg/pan"
	"github.com/scion-tracker/scion-tracker/scion/local-topology/tests/go-announce"
	"inet.af/netaddr"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "pan-client:", err)
		os.Exit(1)
	}
}

// network is how sockets are opened.
type network struct {
	local    netaddr.IPPort
	remote   pan.UDPAddr
	policy   pan.Policy
	selector *selector
}

func (n network) dial(ctx context.Context) (pan.Conn, error) {
	return pan.DialUDP(ctx, n.local, n.remote, n.policy, n.selector)
}

func run() error {
	// pan prints to standard output when a path fails.
	out := os.Stdout
	os.Stdout = os.Stderr

	network := network{selector: newSelector()}
	protocol := flag.String("protocol", "", "qs, h3 or udp")
	daemon := flag.String("daemon", "", "`address` of the SCION daemon")
	local := flag.String("local", "", "IP `address` of this host")
	authority := flag.String("ca", "", "PEM `file` of the authority that signed the certificate (h3)")
	name := flag.String("name", "", "`name` of the tracker in /etc/hosts (qs)")
	acl := flag.String("acl", "", "`rules` for paths, as of pan.NewACL, separated by commas")
	flag.Var(&network.remote, "to", "SCION `address` and port of the tracker")
	flag.Parse()
	address, err := netaddr.ParseIP(*local)
	if err != nil {
		return err
	}
	network.local = netaddr.IPPortFrom(address, 0)
	if *acl != "" {
		network.policy, err = pan.NewACL(strings.Split(*acl, ","))
		if err != nil {
			return err
		}
	}

	host, err := newHost()
	if err != nil {
		return err
	}
	defer host.close()
	// pan reads both when it opens its first socket.
	os.Setenv("SCION_DISPATCHER_SOCKET", host.socket())
	os.Setenv("SCION_DAEMON_ADDRESS", *daemon)
	client, err := dial(*protocol, network, *name, *authority)
	if err != nil {
		return err
	}
	return announce.Run(client, out, network.selector.changes)
}

func dial(protocol string, network network, name, authority string) (announce.Client, error) {
	switch protocol {
	case "qs":
		return newStreams(network, name), nil
	case "h3":
		return newHTTP3(network, authority)
	case "udp":
		conn, err := network.dial(context.Background())
		if err != nil {
			return nil, err
		}
		return announce.NewBEP15(conn), nil
	default:
		return nil, fmt.Errorf("unknown protocol %q: expected qs, h3 or udp", protocol)
	}
}
