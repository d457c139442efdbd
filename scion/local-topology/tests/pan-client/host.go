package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"

	"github.com/scionproto/scion/go/lib/addr"
	"github.com/scionproto/scion/go/lib/sock/reliable"
)

// longest is the length of the longest packet, in bytes.
const longest = 1 << 16

// host is the network stack of this host. pan v0.5.0 opens sockets with a dispatcher, a program of the host
// that receives all packets on UDP port 30041. Later releases need none: each socket has its own UDP port.
// This one offers the first interface and does the second, so that pan runs as on today's hosts.
type host struct {
	directory string
	listener  *reliable.Listener
}

// newHost listens for pan in this process.
func newHost() (*host, error) {
	directory, err := os.MkdirTemp("", "pan-client-")
	if err != nil {
		return nil, err
	}
	it := &host{directory: directory}
	it.listener, err = reliable.Listen(it.socket())
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(directory))
	}
	go it.run()
	return it, nil
}

// socket is the path of the UNIX socket.
func (h *host) socket() string { return filepath.Join(h.directory, "dispatcher.sock") }

func (h *host) close() error {
	return errors.Join(h.listener.Close(), os.RemoveAll(h.directory))
}

func (h *host) run() {
	for {
		conn, err := h.listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err == nil {
			err = serve(conn.(*reliable.Conn))
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, "pan-client: dispatcher:", err)
		}
	}
}

// serve opens the UDP socket that the program asks for, and then hands packets to and fro.
func serve(program *reliable.Conn) error {
	buffer := make([]byte, longest)
	length, err := program.Read(buffer)
	if err != nil {
		return err
	}
	var asked reliable.Registration
	if err := asked.DecodeFromBytes(buffer[:length]); err != nil {
		return err
	}
	if asked.SVCAddress != addr.SvcNone {
		return fmt.Errorf("%v is no UDP address", asked.SVCAddress)
	}
	network, err := net.ListenUDP("udp", asked.PublicAddress)
	if err != nil {
		return err
	}
	confirmed := reliable.Confirmation{Port: network.LocalAddr().(*net.UDPAddr).AddrPort().Port()}
	if length, err = confirmed.SerializeTo(buffer); err != nil {
		return err
	}
	if _, err := program.WriteTo(buffer[:length], nil); err != nil {
		return err
	}
	go hand("to the network", network, program)
	go hand("to the program", program, network)
	return nil
}

// hand copies packets with their addresses until one side is closed.
func hand(where string, to, from net.PacketConn) {
	defer to.Close()
	buffer := make([]byte, longest)
	for {
		length, address, err := from.ReadFrom(buffer)
		if errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) {
			return
		}
		if err == nil {
			_, err = to.WriteTo(buffer[:length], address)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, "pan-client:", where, err)
			return
		}
	}
}
