"""Place-aware announces over three transports reach one swarm and are answered nearest first."""

import os
import socket
from collections import Counter

from cases import Case, http3
from harness.net import Host
from harness.process import Failed, output_of
from harness.torrent import bdecode

HERE, NEAR, FAR = "1-ff00:0:110", "1-ff00:0:111", "2-ff00:0:210"
TRANSPORTS = ("h3", "http", "udp")
# Of 10 peers: 2 reserved for the ISD's other ASes, 2 for other ISDs, the rest from the own AS.
NUMWANT, EXPECTED = 10, {HERE: 6, NEAR: 2, FAR: 2}


def cases():
    yield Case("places: one swarm over HTTP/3, HTTP and UDP, the own AS first", _places)


def _places(bench):
    info_hash = os.urandom(20)
    hosts = {ia: Host(f"place{number}") for number, ia in enumerate((HERE, NEAR, FAR))}
    try:
        for ia, host in hosts.items():
            for number in range(9):
                _announce(bench, TRANSPORTS[number % 3], host, ia, info_hash, 8000 + number)
        places = {host.ip4: ia for ia, host in hosts.items()}
        for transport in TRANSPORTS:
            peers = _announce(bench, transport, hosts[HERE], HERE, info_hash, 8100)
            drawn = Counter(places[ip] for ip, _ in peers)
            if drawn != EXPECTED or len(set(peers)) != len(peers):
                raise Failed(f"{transport}: drawn {dict(drawn)}, not {EXPECTED}: {peers}")
            if (hosts[HERE].ip4, 8100) in peers:
                raise Failed(f"{transport}: the requester is among its own peers")
    finally:
        for host in hosts.values():
            host.remove()


def _announce(bench, transport, host, ia, info_hash, port):
    """The (ip, port) of each peer in the reply."""
    peer = f"-PL0001-{port:012}"
    if transport == "h3":
        path = http3.announce(info_hash, peer, port, 99, numwant=NUMWANT, ia=ia)
        [reply] = http3.client(bench, host, 4, "get", path)
        return _told(http3.body(reply))
    argv = ["python3", bench.tools.peer_script("announce.py"), bench.tracker.url(transport, 4), info_hash.hex()]
    fields = [f"port={port}", f"peer={peer}", "left=99", f"numwant={NUMWANT}", f"ia={ia}"]
    reply = bytes.fromhex(output_of(host, [*argv, *fields], 20))
    if transport == "http":
        return _told(bdecode(reply))
    if reply[:4] != b"\0\0\0\1":
        raise Failed(f"udp: {reply!r}")
    return _compact(reply[20:])


def _told(reply):
    peers = reply.get(b"peers")
    if peers is None:
        raise Failed(f"no peers: {reply}")
    if isinstance(peers, bytes):
        return _compact(peers)
    return [(peer[b"ip"].decode(), peer[b"port"]) for peer in peers]


def _compact(peers):
    return [
        (socket.inet_ntoa(peers[at:at + 4]), int.from_bytes(peers[at + 4:at + 6], "big"))
        for at in range(0, len(peers), 6)
    ]
