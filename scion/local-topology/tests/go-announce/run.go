// Package announce holds what the clients in Go of the local topology have in common: they read requests on
// standard input, send them over UDP (BEP 15) or HTTP, and write the answers to standard output. The clients
// bring the SCION sockets and QUIC.
package announce

import (
	"bufio"
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"time"
)

// Patience limits one request. Links may fail during it.
const Patience = 40 * time.Second

// Client sends requests over one protocol.
type Client interface {
	// Announce returns the body of the reply: bencode, or a packet of BEP 15.
	Announce(ctx context.Context, peer Peer) ([]byte, error)
	// Scrape returns the body of the reply for the one torrent.
	Scrape(ctx context.Context) ([]byte, error)
	// Connections is the number of connections that were opened so far.
	Connections() int
}

// Peer is the peer that announces, and the number of peers that it wants.
type Peer struct {
	Port, NumWant uint16
}

// id is the peer id: the port makes it unique.
func (p Peer) id() string {
	return fmt.Sprintf("-GO0001-%012d", p.Port)
}

// infoHash is the torrent of all requests.
var infoHash = [20]byte(bytes.Repeat([]byte{0x60}, 20))

// result is one line of output. Error is empty if the request was answered.
type result struct {
	Body        string `json:"body"`
	Error       string `json:"error"`
	Connections int    `json:"connections"`
	// Paths is the number of path changes after which a packet took another way.
	Paths int `json:"paths"`
}

// Run answers each line of standard input with one JSON object on out. A line is the port of a peer and the
// number of wanted peers, or "scrape". pathChanges says how often the path has changed.
func Run(client Client, out io.Writer, pathChanges func() int) error {
	encoder := json.NewEncoder(out)
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		body, err := ask(client, lines.Text())
		answer := result{Body: hex.EncodeToString(body), Connections: client.Connections(), Paths: pathChanges()}
		if err != nil {
			answer.Error = err.Error()
		}
		if err := encoder.Encode(answer); err != nil {
			return err
		}
	}
	return lines.Err()
}

func ask(client Client, line string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	defer cancel()
	if line == "scrape" {
		return client.Scrape(ctx)
	}
	var peer Peer
	if _, err := fmt.Sscan(line, &peer.Port, &peer.NumWant); err != nil {
		return nil, fmt.Errorf("expected PORT NUMWANT or scrape, got %q: %w", line, err)
	}
	return client.Announce(ctx, peer)
}
