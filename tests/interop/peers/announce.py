"""Announces over HTTP and UDP with parameters that no client can be told to send.

announce.py URL INFO_HASH [PARAMETER=VALUE]... (hash in hex). Prints the raw reply in hex: the body over HTTP,
the datagram over UDP. Known parameters: port, peer, left, numwant. Others are passed on; over UDP they go into
the URLData of BEP 41.
"""

import random
import socket
import struct
import sys
import urllib.parse
import urllib.request

PATIENCE = 5


def http(url, info_hash, fields, others):
    query = {
        "info_hash": info_hash, "peer_id": fields["peer"], "port": fields["port"],
        "uploaded": 0, "downloaded": 0, "left": fields["left"], "numwant": fields["numwant"],
        **others,
    }
    encoded = urllib.parse.urlencode(query, quote_via=urllib.parse.quote, safe=":")
    with urllib.request.urlopen(f"{url}?{encoded}", timeout=PATIENCE) as reply:
        return reply.read()


def udp(url, info_hash, fields, others):
    where = urllib.parse.urlsplit(url)
    family = socket.AF_INET6 if ":" in where.hostname else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as tracker:
        tracker.settimeout(PATIENCE)
        tracker.connect((where.hostname, where.port))

        def ask(head, action, rest=b""):
            transaction = random.getrandbits(32)
            tracker.send(head + struct.pack(">II", action, transaction) + rest)
            reply = tracker.recv(65536)
            if struct.unpack_from(">I", reply, 4)[0] != transaction:
                raise ValueError(f"transaction id: {reply.hex()}")
            return reply

        connection = ask(struct.pack(">Q", 0x41727101980), 0)[8:16]
        data = where.path + ("?" + "&".join(f"{k}={v}" for k, v in others.items()) if others else "")
        options = b""
        for start in range(0, len(data), 255):
            part = data[start:start + 255].encode()
            options += bytes([2, len(part)]) + part
        return ask(connection, 1, struct.pack(
            ">20s20sQQQIIIiH", info_hash, fields["peer"].encode(), 0, int(fields["left"]), 0,
            2, 0, 0, int(fields["numwant"]), int(fields["port"]),
        ) + options)


def main():
    url, info_hash, *parameters = sys.argv[1:]
    given = dict(parameter.split("=", 1) for parameter in parameters)
    fields = {name: given.pop(name) for name in ("port", "peer", "left", "numwant")}
    speak = udp if url.startswith("udp:") else http
    print(speak(url, bytes.fromhex(info_hash), fields, given).hex())


main()
