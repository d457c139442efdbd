package main

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
	actionError    = 3
	// repeatAfter is the time after which a request is sent again: a path may have failed.
	repeatAfter = 500 * time.Millisecond
)

// bep15 announces over UDP (BEP 15) on one socket, with one connection id.
type bep15 struct {
	conn   *pathConn
	id     uint64
	opened int
}

func newBEP15(conn *pathConn) *bep15 { return &bep15{conn: conn} }

func (b *bep15) connections() int { return b.opened }

func (b *bep15) announce(ctx context.Context, peer peer) ([]byte, error) {
	if b.opened == 0 {
		request := binary.BigEndian.AppendUint64(nil, protocolID)
		reply, err := b.ask(ctx, binary.BigEndian.AppendUint32(request, actionConnect), 16)
		if err != nil {
			return nil, err
		}
		b.id, b.opened = binary.BigEndian.Uint64(reply[8:]), 1
	}
	request := binary.BigEndian.AppendUint64(nil, b.id)
	request = binary.BigEndian.AppendUint32(request, actionAnnounce)
	body := append(infoHash[:], peer.id()...)
	body = binary.BigEndian.AppendUint64(body, 0) // downloaded
	body = binary.BigEndian.AppendUint64(body, 1) // left
	body = binary.BigEndian.AppendUint64(body, 0) // uploaded
	body = binary.BigEndian.AppendUint32(body, 0) // event
	body = binary.BigEndian.AppendUint32(body, 0) // IP address
	body = binary.BigEndian.AppendUint32(body, uint32(peer.port))
	body = binary.BigEndian.AppendUint32(body, uint32(peer.numwant))
	body = binary.BigEndian.AppendUint16(body, peer.port)
	return b.ask(ctx, request, 20, body...)
}

// ask sends head, a transaction id and the body until the reply comes, which has at least this length.
func (b *bep15) ask(ctx context.Context, head []byte, least int, body ...byte) ([]byte, error) {
	transaction := rand.Uint32()
	request := append(binary.BigEndian.AppendUint32(head, transaction), body...)
	action := binary.BigEndian.Uint32(head[8:])
	buffer := make([]byte, 1<<16)
	for ctx.Err() == nil {
		if _, err := b.conn.WriteTo(request, nil); err != nil {
			return nil, err
		}
		if err := b.conn.SetReadDeadline(time.Now().Add(repeatAfter)); err != nil {
			return nil, err
		}
		for {
			length, _, err := b.conn.ReadFrom(buffer)
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
