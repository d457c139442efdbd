"""A client downloads a file from another one through the tracker, and both leave."""

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
# Leechers in one swarm in parallel, each with its own transport. The seeder announces over UDP.
MIXED = {
    4: [(libtorrent, "https"), (aria2, "udp"), (transmission, "udp"), (webtorrent, "http")],
    6: [(libtorrent, "udp"), (aria2, "https"), (transmission, "http"), (webtorrent, "https")],
}


def cases():
    for seeder, leecher, schemes, families in ROWS:
        for scheme in schemes:
            for family in families:
                name = f"{scheme} IPv{family}: {seeder.NAME} to {leecher.NAME}"
                yield Case(name, partial(_download, name, seeder, leecher, scheme, family))
    for family, leechers in MIXED.items():
        name = f"all IPv{family}: one swarm of " + ", ".join(f"{c.NAME} ({scheme})" for c, scheme in leechers)
        yield Case(name, partial(_mixed, name, family, leechers))


def _download(name, seeding, leeching, scheme, family, bench):
    download(bench, name, bench.tracker, (seeding, scheme), [(leeching, scheme)], family)


def _mixed(name, family, leechers, bench):
    download(bench, name, bench.tracker, (libtorrent, "udp"), leechers, family)


def download(bench, name, tracker, seeding, leeching, family):
    """Runs one swarm from its first announce to its last. `seeding`, `leeching`: (client, scheme)."""
    for client, scheme, seed in [(*seeding, True), *[(*leecher, False) for leecher in leeching]]:
        if client.NAME in bench.tools.missing:
            raise Skipped(f"{client.NAME} is not installed", allowed=False)
        if reason := client.unsupported(scheme, family, seed):
            raise Skipped(f"{client.NAME}: {reason}", allowed=True)
    room = bench.room(name)
    torrent = Torrent(room)
    peers = []

    def launch(client, scheme, seed):
        url = tracker.url(scheme, family, by_name=(scheme, family) in client.BY_NAME)
        directory = f"{room}/{len(peers)}-{client.NAME}"
        peers.append(Peer(bench.tools, client, directory, torrent, url, seed, tracker.ca))
        return peers[-1]

    def swarm(what, *counts):
        return _swarm(tracker, torrent, what, counts, [peer.process for peer in peers])

    try:
        seeder = launch(*seeding, seed=True)
        _, _, before = swarm("the seeder is in the swarm", 1, 0, {0, 1} if seeding[0].BORN_COMPLETE else 0)
        count = before + len(leeching)
        leechers = [launch(*leecher, seed=False) for leecher in leeching]
        for leecher in leechers:
            wait_for(
                f"{leecher.client.NAME} has the payload", leecher.complete, 60,
                [seeder.process, leecher.process],
            )
        swarm("every leecher announced `completed`", 1 + len(leechers), 0, count)
        for leecher in leechers:
            leecher.leave()
        swarm("every leecher announced `stopped`", 1, 0, count)
        seeder.leave()
        swarm("the seeder announced `stopped`", 0, 0, count)
    except Failed as failed:
        tails = [f"--- end of {peer.log}\n{peer.process.output()[-1500:]}" for peer in peers]
        raise Failed("\n".join([str(failed), *tails])) from None
    finally:
        for peer in peers:
            peer.remove()


def _swarm(tracker, torrent, what, counts, running):
    """Waits for (complete, incomplete, downloaded), each a number or a set of numbers. Returns them."""
    seen = None

    def reached():
        nonlocal seen
        seen = tracker.swarm(torrent.info_hash)
        return all(is_ in to_be if isinstance(to_be, set) else is_ == to_be for is_, to_be in zip(seen, counts))

    try:
        wait_for(what, reached, 30, running)
    except Failed as failed:
        raise Failed(f"{failed}; (complete, incomplete, downloaded) is {seen}, not {counts}") from None
    return seen
