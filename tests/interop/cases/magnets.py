"""A client that has only a magnet link finds the seeder through the tracker, and gets metadata and content."""

import signal
import time
from functools import partial

from cases import Case
from cases.downloads import download
from clients import aria2, deluge, libtorrent, qbittorrent, rqbit, rtorrent, transmission, webtorrent
from harness.peer import Peer
from harness.process import Failed, Skipped, wait_for
from harness.torrent import Torrent
from harness.tracker import Tracker

# Seconds in which every client must not find what it finds through its tracker in one to five seconds.
WATCH = 8
CLIENTS = [aria2, rqbit, webtorrent, rtorrent, libtorrent, qbittorrent, deluge, transmission]
# Without the metadata it says left=0 over UDP, so that it counts as a seed from the start. Its `completed` is then
# no download, because a download is counted only of a peer that was known as incomplete.
BORN_SEED = {(webtorrent, "udp")}


def cases():
    for client in CLIENTS:
        for scheme in ("http", "udp"):
            name = f"magnet {scheme}: libtorrent to {client.NAME}"
            yield Case(name, partial(_magnet, name, client, scheme))
    yield Case("magnet: no client finds a seeder that is at another tracker", _apart)


def _magnet(name, client, scheme, bench):
    download(
        bench, name, bench.tracker, (libtorrent, "udp"), [(client, scheme)], 4,
        magnet=True, uncounted=int((client, scheme) in BORN_SEED),
    )


def _apart(bench):
    """Shows that the other cases pass only because of the tracker: no client knows another way to the seeder."""
    if missing := [client.NAME for client in CLIENTS if client.NAME in bench.tools.missing]:
        raise Skipped(f"not installed: {', '.join(missing)}", allowed=False)
    room = bench.room("magnet-apart")
    other, torrent, peers = Tracker(bench.tracker.binary, room), Torrent(room, private=False), []
    try:
        url = bench.tracker.url("udp", 4)
        peers.append(Peer(bench.tools, libtorrent, f"{room}/seeder", torrent, url, seed=True))
        wait_for("the seeder is in the swarm", lambda: bench.tracker.swarm(torrent.info_hash)[0] == 1, 30)
        leechers = []
        for client in CLIENTS:
            url = other.url("http", 4)
            leechers.append(Peer(bench.tools, client, f"{room}/{client.NAME}", torrent, url, seed=False, magnet=True))
            peers.append(leechers[-1])
        wait_for(
            "every client is in the swarm of the other tracker",
            lambda: sum(other.swarm(torrent.info_hash)[:2]) == len(CLIENTS), 60,
            [peer.process for peer in peers],
        )
        end = time.monotonic() + WATCH
        while time.monotonic() < end:
            if found := [peer.client.NAME for peer in leechers if peer.complete()]:
                raise Failed(f"they found the seeder: {', '.join(found)}")
            time.sleep(0.2)
    finally:
        for peer in peers:
            peer.process.signal(signal.SIGTERM)
        for peer in peers:
            peer.remove()
        other.stop()
        other.host.remove()
