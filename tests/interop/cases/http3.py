"""Announces over HTTP/3 with aioquic, and protocol violations that the tracker must handle."""

import json
import os
import socket
import struct
import urllib.parse
from functools import partial

from cases import Case
from harness.net import Host
from harness.process import Failed, Skipped, output_of
from harness.torrent import bdecode

# RFC 9114 section 8.1 and RFC 9204 section 6: codes with which a connection or stream ends if the
# peer is at fault.
H3_ERRORS = range(0x100, 0x203)


def cases():
    for family in (4, 6):
        yield Case(f"h3 IPv{family}: an aioquic leecher is told of an aioquic seeder", partial(_announces, family))
        yield Case(f"h3 IPv{family}: breaches are refused and the next request is served", partial(_breaches, family))


def client(bench, host, family, mode, *paths):
    """Runs peers/h3_client.py and returns the objects that it prints."""
    if "aioquic" in bench.tools.missing:
        raise Skipped("aioquic is not installed", allowed=False)
    tracker = bench.tracker.host.ip4 if family == 4 else bench.tracker.host.ip6
    argv = [bench.tools.python, bench.tools.peer_script("h3_client.py"), tracker, bench.tracker.ports["h3"], mode]
    return [json.loads(line) for line in output_of(host, [*argv, *paths], 120).splitlines()]


def announce(info_hash, peer, port, left, **others):
    """The path and query of an announce."""
    query = {"info_hash": info_hash, "peer_id": peer, "port": port, "uploaded": 0, "downloaded": 0, "left": left}
    query.update(others)
    return "/announce?" + urllib.parse.urlencode(query, quote_via=urllib.parse.quote, safe=":")


def body(reply):
    """The decoded body of a valid reply."""
    if reply.get("status") != 200:
        raise Failed(f"expected status 200, got {reply}")
    return bdecode(bytes.fromhex(reply["body"]))


def _announces(family, bench):
    info_hash = os.urandom(20)
    seeder, leecher = Host("h3-seeder"), Host("h3-leecher")
    try:
        [first] = client(bench, seeder, family, "get", announce(info_hash, "-AQ0001-h3-seeder---", 7001, 0, event="started"))
        if (counts := (body(first)[b"complete"], body(first)[b"incomplete"])) != (1, 0):
            raise Failed(f"the seeder is told {counts}")
        wanting = announce(info_hash, "-AQ0001-h3-leecher--", 7002, 99, event="started", compact=1)
        # Ten requests at once on one connection. The replies may be equal, but there must be ten.
        for reply in client(bench, leecher, family, "get", *[wanting] * 10):
            told = body(reply)
            key, kind, ip = (b"peers", socket.AF_INET, seeder.ip4) if family == 4 else (b"peers6", socket.AF_INET6, seeder.ip6)
            expected = socket.inet_pton(kind, ip) + struct.pack(">H", 7001)
            if told.get(key) != expected:
                raise Failed(f"{key} is not the seeder alone: {told}")
            if (counts := (told[b"complete"], told[b"incomplete"])) != (1, 1):
                raise Failed(f"the leecher is told {counts}")
    finally:
        seeder.remove()
        leecher.remove()


def _breaches(family, bench):
    path = announce(os.urandom(20), "-AQ0001-h3-breaches-", 7003, 99)
    host = Host("h3-breaches")
    try:
        outcomes = client(bench, host, family, "breach", path)
    finally:
        host.remove()
    if wrong := [text for outcome in outcomes for text in _complaints(outcome)]:
        raise Failed("\n".join(wrong))


def _complaints(outcome):
    name, reply = outcome["name"], outcome.get("reply", {})
    codes = [reply[key] for key in ("reset", "stop_sending", "closed") if key in reply]
    clean = all(code in H3_ERRORS for code in codes)
    refused = 400 <= reply.get("status", 0) < 500 or (codes and "status" not in reply)
    right = {"refused": refused, "served": reply.get("status") == 200, "any": True}
    if not clean or not right[outcome["expected"]]:
        yield f"{name}: expected {outcome['expected']}: {reply}"
    for where in ("same connection", "new connection"):
        if where in outcome and outcome[where].get("status") != 200:
            yield f"{name}: then on the {where}: {outcome[where]}"
