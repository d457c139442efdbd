package announce

import (
	"context"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"sync/atomic"
)

// longest is the length of the longest body that is read, in bytes.
const longest = 1 << 16

// HTTP sends requests with a client of net/http.
type HTTP struct {
	// Base is the URL of the tracker without a path.
	Base string
	// Client sends the requests. Its transport counts the connections that it opens.
	Client http.Client
	// Opened is the number of connections that were opened so far.
	Opened atomic.Int32
}

// Connections implements [Client].
func (h *HTTP) Connections() int { return int(h.Opened.Load()) }

// Announce implements [Client].
func (h *HTTP) Announce(ctx context.Context, peer Peer) ([]byte, error) {
	return h.get(ctx, "announce", url.Values{
		"info_hash": {string(infoHash[:])},
		"peer_id":   {peer.id()},
		"port":      {strconv.Itoa(int(peer.Port))},
		"left":      {"1"},
		"numwant":   {strconv.Itoa(int(peer.NumWant))},
		"scion":     {"1"},
		"compact":   {"1"},
	})
}

// Scrape implements [Client].
func (h *HTTP) Scrape(ctx context.Context) ([]byte, error) {
	return h.get(ctx, "scrape", url.Values{"info_hash": {string(infoHash[:])}})
}

func (h *HTTP) get(ctx context.Context, path string, query url.Values) ([]byte, error) {
	address := fmt.Sprintf("%s/%s?%s", h.Base, path, query.Encode())
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, err
	}
	response, err := h.Client.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, longest))
	if err != nil {
		return nil, err
	}
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s", response.Status, body)
	}
	return body, nil
}

// Authority reads the certificates in a PEM file.
func Authority(file string) (*x509.CertPool, error) {
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("no certificate in %s", file)
	}
	return roots, nil
}
