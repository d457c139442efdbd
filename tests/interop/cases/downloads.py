"""A file goes from one client to another through the tracker, and both leave it again."""

from functools import partial

from cases import Case
from clients import aria2, libtorrent, transmission, webtorrent
from harness.peer import Peer
from harness.process import Failed, Skipped, wait_for
from harness.torrent import Torrent

BOTH = (4, 6)
# (seeder, leecher, schemes, families)
ROWS = [
    (libtorrent, libtorrent, ("http", "udp", "https"), BOTH),
    (libtorrent, aria2, ("http", "udp", "https"), BOTH),
    (libtorrent, transmission, ("http", "udp", "https"), BOTH),
    (libtorrent, webtorrent, ("http", "udp", "https"), BOTH),
    (aria2, transmission, ("http",), BOTH),
    (transmission, webtorrent, ("http",), BOTH),
    (webtorrent, aria2, ("http",), BOTH),
    (aria2, webtorrent, ("udp",), (4,)),
    (transmission, aria2, ("udp",), (4,)),
    (webtorrent, transmission, ("udp",), (4,)),
    (transmission, libtorrent, ("udp",), (6,)),
]


def cases():
    for seeder, leecher, schemes, families in ROWS:
        for scheme in schemes:
            for family in families:
                name = f"{scheme} IPv{family}: {seeder.NAME} to {leecher.NAME}"
                yield Case(name, partial(_download, name, seeder, leecher, scheme, family))


def _download(name, seeding, leeching, scheme, family, bench):
    for client, seed in ((seeding, True), (leeching, False)):
        if client.NAME in bench.tools.missing:
            raise Skipped(f"{client.NAME} is not installed", allowed=False)
        if reason := client.unsupported(scheme, family, seed):
            raise Skipped(f"{client.NAME}: {reason}", allowed=True)
    room = bench.room(name)
    torrent = Torrent(room)
    peers = []

    def launch(client, role, seed):
        url = bench.tracker.url(scheme, family, by_name=(scheme, family) in client.BY_NAME)
        return Peer(bench.tools, client, f"{room}/{role}", torrent, url, seed)

    try:
        seeder = launch(seeding, "seeder", seed=True)
        peers.append(seeder)
        _swarm(bench, torrent, "the seeder is in the swarm", (1, 0, 0), [seeder.process])
        leecher = launch(leeching, "leecher", seed=False)
        peers.append(leecher)
        running = [seeder.process, leecher.process]
        wait_for("the leecher has the payload", leecher.complete, 60, running)
        _swarm(bench, torrent, "the leecher announced `completed`", (2, 0, 1), running)
        leecher.take_leave()
        _swarm(bench, torrent, "the leecher announced `stopped`", (1, 0, 1), [seeder.process])
        seeder.take_leave()
        _swarm(bench, torrent, "the seeder announced `stopped`", (0, 0, 1), [])
    except Failed as failed:
        tails = [f"--- end of {peer.log}\n{peer.process.output()[-1500:]}" for peer in peers]
        raise Failed("\n".join([str(failed), *tails])) from None
    finally:
        for peer in peers:
            peer.remove()


def _swarm(bench, torrent, what, counts, running):
    seen = None

    def reached():
        nonlocal seen
        seen = bench.tracker.swarm(torrent.info_hash)
        return seen[:2] == counts[:2]

    try:
        wait_for(what, reached, 30, running)
    except Failed as failed:
        raise Failed(f"{failed}; (complete, incomplete, downloaded) is {seen}, not {counts}") from None
