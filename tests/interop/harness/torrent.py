"""Bencode, and one-file torrents of random bytes."""

import hashlib
import os
import tempfile
import urllib.parse

PIECE = 64 * 1024
NAME = "payload.bin"


def bencode(value):
    if isinstance(value, int):
        return b"i%de" % value
    if isinstance(value, str):
        value = value.encode()
    if isinstance(value, bytes):
        return b"%d:%s" % (len(value), value)
    if isinstance(value, list):
        return b"l" + b"".join(map(bencode, value)) + b"e"
    pairs = sorted((k.encode() if isinstance(k, str) else k, v) for k, v in value.items())
    return b"d" + b"".join(bencode(k) + bencode(v) for k, v in pairs) + b"e"


def bdecode(data):
    """Decodes one complete value, strictly: sorted unique keys, and no data after it."""
    value, rest = _bdecode(data)
    if rest:
        raise ValueError(f"{len(rest)} bytes behind the value")
    return value


def _bdecode(data):
    head = data[:1]
    if head == b"i":
        digits, _, rest = data[1:].partition(b"e")
        if digits != b"%d" % int(digits):
            raise ValueError(f"integer {digits!r}")
        return int(digits), rest
    if head == b"l":
        items, data = [], data[1:]
        while data[:1] != b"e":
            item, data = _bdecode(data)
            items.append(item)
        return items, data[1:]
    if head == b"d":
        pairs, last, data = {}, None, data[1:]
        while data[:1] != b"e":
            key, data = _bdecode(data)
            if last is not None and key <= last:
                raise ValueError(f"key {key!r} after {last!r}")
            last = key
            pairs[key], data = _bdecode(data)
        return pairs, data[1:]
    length, colon, rest = data.partition(b":")
    if not colon or not length.isdigit() or len(rest) < int(length):
        raise ValueError(f"not bencode: {data[:40]!r}")
    return rest[: int(length)], rest[int(length):]


class Torrent:
    """A torrent of one file of random bytes.

    By default it is private (BEP 27), so that its peers come only from its tracker. A magnet link cannot say
    so: the swarm of a magnet case is public, and its seeder uses nothing but the tracker.
    """

    def __init__(self, directory, size=1024 * 1024 + 4321, private=True):
        self.payload = os.urandom(size)
        self.sha256 = hashlib.sha256(self.payload).digest()
        pieces = (self.payload[i:i + PIECE] for i in range(0, size, PIECE))
        info = {
            "length": size,
            "name": NAME,
            "piece length": PIECE,
            "pieces": b"".join(hashlib.sha1(piece).digest() for piece in pieces),
            **({"private": 1} if private else {}),
        }
        self.info_hash = hashlib.sha1(bencode(info)).digest()
        self._directory, self._info = directory, info

    def file(self, announce):
        """A torrent file with this announce URL; None for a peer that waits for connections."""
        tracker = {"announce": announce} if announce else {}
        handle, path = tempfile.mkstemp(".torrent", dir=self._directory)
        with open(handle, "wb") as file:
            file.write(bencode({**tracker, "info": self._info}))
        return path

    def magnet(self, announce):
        """A magnet link (BEP 9) with the info hash and this announce URL, and nothing else."""
        return f"magnet:?xt=urn:btih:{self.info_hash.hex()}&tr={urllib.parse.quote(announce, safe='')}"

    def place(self, directory):
        """Writes the whole payload for a seeder."""
        with open(os.path.join(directory, NAME), "wb") as file:
            file.write(self.payload)

    def complete_in(self, directory):
        """Whether exactly the payload is there."""
        try:
            with open(os.path.join(directory, NAME), "rb") as file:
                return hashlib.sha256(file.read()).digest() == self.sha256
        except FileNotFoundError:
            return False
