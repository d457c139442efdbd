package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/scionproto/scion/pkg/addr"
	"github.com/scionproto/scion/pkg/daemon"
	"github.com/scionproto/scion/pkg/segment/iface"
	"github.com/scionproto/scion/pkg/snet"
	"github.com/scionproto/scion/pkg/snet/path"
)

const (
	// endhostPort is the UDP port of a host to which pan sends inside an AS.
	endhostPort = 30041
	// spare is the remaining lifetime from which on a path is replaced.
	spare = time.Second
	// asking limits one question to the daemon.
	asking = 5 * time.Second
)

// remote is the tracker.
type remote struct {
	ia          addr.IA
	host        netip.AddrPort
	endhostPort bool
}

// pathConn is a SCION socket that is connected to one remote address and chooses the path of each packet:
// the first one from the daemon without an interface that a router reported as down.
type pathConn struct {
	*snet.Conn
	daemon daemon.Connector
	local  addr.IA
	remote remote
	// name is the address that quic-go sees. It is the same for all paths.
	name *snet.UDPAddr

	mutex   sync.Mutex
	paths   []snet.Path
	current snet.Path
	down    map[snet.PathInterface]time.Time
	changed int
}

// listen opens a socket on a free port of the range that the routers deliver to.
func listen(ctx context.Context, address string, local netip.Addr, remote remote) (*pathConn, error) {
	connector, err := daemon.Service{Address: address}.Connect(ctx)
	if err != nil {
		return nil, fmt.Errorf("cannot reach the daemon: %w", err)
	}
	ia, err := connector.LocalIA(ctx)
	if err != nil {
		return nil, fmt.Errorf("the daemon does not say its AS: %w", err)
	}
	conn := &pathConn{
		daemon: connector,
		local:  ia,
		remote: remote,
		name:   &snet.UDPAddr{IA: remote.ia, Host: net.UDPAddrFromAddrPort(remote.host)},
		down:   map[snet.PathInterface]time.Time{},
	}
	network := snet.SCIONNetwork{Topology: connector, SCMPHandler: conn}
	conn.Conn, err = network.Listen(ctx, "udp", &net.UDPAddr{IP: local.AsSlice()})
	if err != nil {
		return nil, fmt.Errorf("cannot listen: %w", err)
	}
	return conn, nil
}

// Handle implements snet.SCMPHandler: it leaves paths that do not work.
func (c *pathConn) Handle(packet *snet.Packet) error {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	switch message := packet.Payload.(type) {
	case snet.SCMPExternalInterfaceDown:
		c.down[snet.PathInterface{IA: message.IA, ID: iface.ID(message.Interface)}] = time.Now()
		c.choose()
	case snet.SCMPParameterProblem:
		// A path that has expired.
		c.current, c.paths = nil, nil
	}
	return nil
}

// ReadFrom returns the next datagram of the remote address. Packets that snet refuses are skipped, because
// quic-go takes any error as the end of the socket.
func (c *pathConn) ReadFrom(buffer []byte) (int, net.Addr, error) {
	for {
		length, from, err := c.Conn.ReadFrom(buffer)
		switch {
		case err == nil:
			if from, ok := from.(*snet.UDPAddr); ok && from.IA == c.remote.ia && from.Host.AddrPort() == c.remote.host {
				return length, c.name, nil
			}
			fmt.Fprintln(os.Stderr, "go-client: dropped a packet from", from)
		case errors.Is(err, net.ErrClosed):
			return 0, nil, net.ErrClosed
		case errors.Is(err, os.ErrDeadlineExceeded):
			return 0, nil, os.ErrDeadlineExceeded
		default:
			fmt.Fprintln(os.Stderr, "go-client: dropped a packet:", err)
		}
	}
}

// WriteTo sends a datagram to the remote address. A path that does not work, or no path, loses it.
func (c *pathConn) WriteTo(datagram []byte, _ net.Addr) (int, error) {
	to := *c.name
	if c.remote.ia == c.local {
		to.Path = path.Empty{}
		if c.remote.endhostPort {
			to.NextHop = &net.UDPAddr{IP: c.name.Host.IP, Port: endhostPort}
		}
	} else {
		way, err := c.route()
		if err != nil {
			fmt.Fprintln(os.Stderr, "go-client:", err)
			return len(datagram), nil
		}
		to.Path, to.NextHop = way.Dataplane(), way.UnderlayNextHop()
	}
	return c.Conn.WriteTo(datagram, &to)
}

// Read and Write make it the socket of BEP 15.
func (c *pathConn) Read(buffer []byte) (int, error) {
	length, _, err := c.ReadFrom(buffer)
	return length, err
}

func (c *pathConn) Write(datagram []byte) (int, error) { return c.WriteTo(datagram, nil) }

// changes is the number of times that another path was chosen.
func (c *pathConn) changes() int {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	return c.changed
}

// route returns the path for the next packet.
func (c *pathConn) route() (snet.Path, error) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	if c.current == nil || time.Until(c.current.Metadata().Expiry) < spare {
		ctx, cancel := context.WithTimeout(context.Background(), asking)
		defer cancel()
		paths, err := c.daemon.Paths(ctx, c.remote.ia, c.local, daemon.PathReqFlags{})
		if err != nil || len(paths) == 0 {
			return nil, fmt.Errorf("no path to %s: %w", c.remote.ia, err)
		}
		c.paths = paths
		c.choose()
	}
	return c.current, nil
}

// choose takes the path whose interfaces have been working for the longest time. The mutex is locked.
func (c *pathConn) choose() {
	if len(c.paths) == 0 {
		return
	}
	failed := func(way snet.Path) (last time.Time) {
		for _, it := range way.Metadata().Interfaces {
			if when := c.down[it]; when.After(last) {
				last = when
			}
		}
		return last
	}
	best := slices.MinFunc(c.paths, func(a, b snet.Path) int { return failed(a).Compare(failed(b)) })
	if c.current != nil && !slices.Equal(best.Metadata().Interfaces, c.current.Metadata().Interfaces) {
		c.changed++
	}
	c.current = best
}
