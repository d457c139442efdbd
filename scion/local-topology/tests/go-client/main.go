// Command go-client announces to a tracker over SCION with the libraries that Go programs use: snet and
// the daemon connector of scionproto, and quic-go. The tests of the local topology run it (tests/it/go.rs).
//
// Each line on standard input is one announce: the port of the peer and the number of wanted peers. All
// announces use one connection. Each answer is one JSON object on standard output.
package main

import (
	"bufio"
	"context"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"time"
)

// patience limits one announce. Links may fail during it.
const patience = 40 * time.Second

// announcer sends announces over one protocol.
type announcer interface {
	// announce returns the body of the reply: bencode, or a packet of BEP 15.
	announce(ctx context.Context, peer peer) ([]byte, error)
	// connections is the number of connections that were opened so far.
	connections() int
}

// peer is one line of input.
type peer struct {
	port, numwant uint16
}

// id is the peer id: the port makes it unique.
func (p peer) id() string {
	return fmt.Sprintf("-GO0001-%012d", p.port)
}

// infoHash is the torrent of all announces.
var infoHash [20]byte

// result is one line of output. Error is empty if the announce was answered.
type result struct {
	Body        string `json:"body"`
	Error       string `json:"error"`
	Connections int    `json:"connections"`
	// Paths is the number of path changes after which a packet took another way.
	Paths int `json:"paths"`
}

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
	for i := range infoHash {
		infoHash[i] = 0x60
	}

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

	out := json.NewEncoder(os.Stdout)
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		var peer peer
		if _, err := fmt.Sscan(lines.Text(), &peer.port, &peer.numwant); err != nil {
			return fmt.Errorf("expected PORT NUMWANT, got %q: %w", lines.Text(), err)
		}
		limited, cancel := context.WithTimeout(ctx, patience)
		body, err := client.announce(limited, peer)
		cancel()
		answer := result{Body: hex.EncodeToString(body), Connections: client.connections(), Paths: conn.changes()}
		if err != nil {
			answer.Error = err.Error()
		}
		if err := out.Encode(answer); err != nil {
			return err
		}
	}
	return lines.Err()
}

func dial(protocol string, conn *pathConn, authority string) (announcer, error) {
	switch protocol {
	case "qs":
		return newStreams(conn), nil
	case "h3":
		return newHTTP3(conn, authority)
	case "udp":
		return newBEP15(conn), nil
	default:
		return nil, fmt.Errorf("unknown protocol %q: expected qs, h3 or udp", protocol)
	}
}
