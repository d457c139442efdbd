"""Announces through nginx, HAProxy and Varnish enter the address of the client, and nothing answers for the tracker."""

import os
import socket
import struct
import threading
from functools import partial

from cases import Case
from cases.downloads import download
from cases.http3 import announce
from clients import aria2, libtorrent, qbittorrent, rtorrent, webtorrent
from harness.process import Failed, Skipped
from harness.proxies import CLAIM, WAYS, Stage
from harness.torrent import bdecode

SEEDER, LEECHER = 7101, 7102
# Real clients through a proxy: (leecher, proxy, way).
CLIENTS = [
    (qbittorrent, "nginx", "X-Forwarded-For"),
    (rtorrent, "nginx", "X-Forwarded-For, client over HTTP/2"),
    (aria2, "haproxy", "PROXY v2"),
    (libtorrent, "haproxy", "PROXY v2, TLS and HTTP/2 of the tracker"),
    (webtorrent, "varnish", "X-Forwarded-For"),
]


def cases():
    stages = _Stages()
    for version in ("1.1", "2", "3"):
        for family in (4, 6):
            yield Case(f"niquests IPv{family}: HTTP/{version} without a proxy", partial(_direct, stages, version, family))
    for proxy, ways in WAYS.items():
        for way in ways:
            for family in (4, 6):
                yield Case(f"{proxy} IPv{family}: {way}", partial(_through, stages, proxy, way, family))
    yield Case("nginx: no header, so announces are refused", partial(_refused, stages))
    for client, proxy, way in CLIENTS:
        name = f"{proxy} IPv4: libtorrent to {client.NAME} ({way})"
        yield Case(name, partial(_client, stages, name, client, proxy, way))
    yield Case("proxies: connections to the tracker are kept", partial(_kept, stages))


class _Stages:
    """The stage of a run, built by the first case that needs it."""

    def __init__(self):
        self._lock, self._stage, self._failed = threading.Lock(), None, None

    def of(self, bench, proxy=None):
        for name in ("niquests", proxy):
            if name in bench.tools.missing:
                raise Skipped(f"{name} is not installed", allowed=False)
        with self._lock:
            if self._failed:
                raise Failed(self._failed)
            if not self._stage:
                try:
                    self._stage = Stage(bench, bench.room("proxies"))
                except Failed as failed:
                    self._failed = f"the proxies do not start: {failed}"
                    raise
        return self._stage


def _direct(stages, version, family, bench):
    stage = stages.of(bench)
    scheme = "h3" if version == "3" else "https"
    # An h3 URL is an https URL for everyone else.
    url = stage.tracker.url(scheme, family).replace("h3://", "https://")
    _exchange(stage, url, version, family, {})


def _through(stages, proxy, way, family, bench):
    stage = stages.of(bench, proxy)
    _exchange(stage, stage.url(proxy, way, family), WAYS[proxy][way][3], family, CLAIM)


def _exchange(stage, url, version, family, headers):
    """A leecher announces, then a seeder, then the leecher with the same bytes again."""
    info_hash = os.urandom(20)
    wanting = announce(info_hash, "-WB0001-web-leecher-", LEECHER, 99, event="started", compact=1)
    having = announce(info_hash, "-WB0001-web-seeder--", SEEDER, 0, event="started", compact=1)

    def told(who, path):
        reply = who.ask(url.removesuffix("/announce") + path, version, headers)
        if reply["status"] != 200:
            raise Failed(f"status {reply['status']}: {bytes.fromhex(reply['body'])[:200]!r}")
        if reply["headers"].get("cache-control") != "no-store":
            raise Failed(f"no `Cache-Control: no-store`: {reply['headers']}")
        return bdecode(bytes.fromhex(reply["body"]))

    def expect(what, reply, host, port, counts):
        key, kind, other = (b"peers", socket.AF_INET, b"peers6") if family == 4 else (b"peers6", socket.AF_INET6, b"peers")
        ip = host and (host.ip4 if family == 4 else host.ip6)
        expected = socket.inet_pton(kind, ip) + struct.pack(">H", port) if ip else b""
        if reply.get(key, b"") != expected or reply.get(other, b""):
            raise Failed(f"{what}: expected {key} {expected!r} and nothing else: {reply}")
        if (found := (reply.get(b"complete"), reply.get(b"incomplete"))) != counts:
            raise Failed(f"{what}: (complete, incomplete) is {found}, not {counts}")

    expect("the leecher alone", told(stage.leecher, wanting), None, 0, (0, 1))
    expect("the seeder", told(stage.seeder, having), stage.leecher.host, LEECHER, (1, 1))
    expect("the leecher again", told(stage.leecher, wanting), stage.seeder.host, SEEDER, (1, 1))


def _refused(stages, bench):
    stage = stages.of(bench, "nginx")
    info_hash = os.urandom(20)
    path = announce(info_hash, "-WB0001-web-refused-", SEEDER, 0, event="started", compact=1)
    url = f"http://{stage.hosts['nginx'].address(4)}/nothing{path}"
    body = bdecode(bytes.fromhex(stage.seeder.ask(url, "1.1", CLAIM)["body"]))
    if b"failure reason" not in body:
        raise Failed(f"no failure reason: {body}")
    if (counts := stage.tracker.swarm(info_hash)) != (0, 0, 0):
        raise Failed(f"it was entered: {counts}")


class _Front:
    """The tracker as its clients see it: its URL is that of a proxy."""

    def __init__(self, stage, proxy, way):
        self.ca, self.swarm = stage.ca, stage.tracker.swarm
        self._url = partial(stage.url, proxy, way)

    def url(self, _scheme, family, by_name=False):
        return self._url(family)


def _client(stages, name, client, proxy, way, bench):
    stage = stages.of(bench, proxy)
    scheme = WAYS[proxy][way][0]
    download(bench, name, _Front(stage, proxy, way), (libtorrent, scheme), [(client, scheme)], 4)


def _kept(stages, bench):
    stage = stages.of(bench, "haproxy")
    for proxy in ("nginx", "haproxy", "varnish"):
        url, version = stage.url(proxy, "X-Forwarded-For", 4), "1.1"
        path = announce(os.urandom(20), "-WB0001-web-leecher-", LEECHER, 99, compact=1)
        # A first request, after which a connection to the tracker is open.
        stage.leecher.ask(url.removesuffix("/announce") + path, version, {})
        before = stage.connections(proxy)
        for _ in range(20):
            stage.leecher.ask(url.removesuffix("/announce") + path, version, {})
        # Other cases announce at the same time, on connections of their own.
        more = stage.connections(proxy) - before
        if before == 0 or more >= 20:
            raise Failed(f"{proxy}: {before} connections, and {more} more for 20 requests")
