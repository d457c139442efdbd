package announce

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"time"
)

const (
	protocolID     = 0x41727101980
	actionConnect  = 0
	actionAnnounce = 1
	actionScrape   = 2
	actionError    = 3
	// repeatAfter is the time after which a request is sent again: a path may have failed.
	repeatAfter = 500 * time.Millisecond
)

// Datagrams is a socket that is connected to the tracker.
type Datagrams interface {
	Read(datagram []byte) (int, error)
	Write(datagram []byte) (int, error)
	SetReadDeadline(when time.Time) error
}

// BEP15 sends requests over UDP (BEP 15) on one socket, with one connection id.
type BEP15 struct {
	conn   Datagrams
	id     uint64
	opened int
}

// NewBEP15 returns a client that has no connection id yet.
func NewBEP15(conn Datagrams) *BEP15 { return &BEP15{conn: conn} }

// Connections implements [Client].
func (b *BEP15) Connections() int { return b.opened }

// Announce implements [Client].
func (b *BEP15) Announce(ctx context.Context, peer Peer) ([]byte, error) {
	body := append(infoHash[:], peer.id()...)
	body = binary.BigEndian.AppendUint64(body, 0) // downloaded
	body = binary.BigEndian.AppendUint64(body, 1) // left
	body = binary.BigEndian.AppendUint64(body, 0) // uploaded
	body = binary.BigEndian.AppendUint32(body, 0) // event
	body = binary.BigEndian.AppendUint32(body, 0) // IP address
	body = binary.BigEndian.AppendUint32(body, uint32(peer.Port))
	body = binary.BigEndian.AppendUint32(body, uint32(peer.NumWant))
	body = binary.BigEndian.AppendUint16(body, peer.Port)
	return b.request(ctx, actionAnnounce, body, 20)
}

// Scrape implements [Client].
func (b *BEP15) Scrape(ctx context.Context) ([]byte, error) {
	return b.request(ctx, actionScrape, infoHash[:], 20)
}

// request asks with the connection id, and asks for one first if there is none.
func (b *BEP15) request(ctx context.Context, action uint32, body []byte, least int) ([]byte, error) {
	if b.opened == 0 {
		request := binary.BigEndian.AppendUint64(nil, protocolID)
		reply, err := b.ask(ctx, binary.BigEndian.AppendUint32(request, actionConnect), 16)
		if err != nil {
			return nil, err
		}
		b.id, b.opened = binary.BigEndian.Uint64(reply[8:]), 1
	}
	head := binary.BigEndian.AppendUint64(nil, b.id)
	return b.ask(ctx, binary.BigEndian.AppendUint32(head, action), least, body...)
}

// ask sends head, a transaction id and the body until the reply comes, which has at least this length.
func (b *BEP15) ask(ctx context.Context, head []byte, least int, body ...byte) ([]byte, error) {
	transaction := rand.Uint32()
	request := append(binary.BigEndian.AppendUint32(head, transaction), body...)
	action := binary.BigEndian.Uint32(head[8:])
	buffer := make([]byte, 1<<16)
	for ctx.Err() == nil {
		if _, err := b.conn.Write(request); err != nil {
			return nil, err
		}
		if err := b.conn.SetReadDeadline(time.Now().Add(repeatAfter)); err != nil {
			return nil, err
		}
		for {
			length, err := b.conn.Read(buffer)
			if errors.Is(err, os.ErrDeadlineExceeded) {
				break
			}
			if err != nil {
				return nil, err
			}
			reply := buffer[:length]
			if length < 8 || binary.BigEndian.Uint32(reply[4:]) != transaction {
				continue
			}
			switch got := binary.BigEndian.Uint32(reply); {
			case got == actionError:
				return nil, fmt.Errorf("the tracker refuses: %s", reply[8:])
			case got != action || length < least:
				return nil, fmt.Errorf("unexpected reply: %x", reply)
			}
			return reply, nil
		}
	}
	return nil, ctx.Err()
}
