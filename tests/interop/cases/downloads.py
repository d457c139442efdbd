"""A client downloads a file from another one through the tracker, and both leave."""

from functools import partial

from cases import Case
from clients import aria2, deluge, libtorrent, qbittorrent, rqbit, rtorrent, transmission, webtorrent
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
    (libtorrent, qbittorrent, ("http", "udp", "https"), BOTH),
    (libtorrent, rtorrent, ("http", "udp", "https"), BOTH),
    # Deluge verifies every certificate: cases/certificates.py has it over HTTPS.
    (libtorrent, deluge, ("http", "udp"), (4,)),
    (libtorrent, deluge, ("http",), (6,)),
    (libtorrent, rqbit, ("http", "udp"), BOTH),
    (libtorrent, rqbit, ("https",), (4,)),
    (qbittorrent, rtorrent, ("http",), (4,)),
    (rtorrent, deluge, ("udp",), (4,)),
    (deluge, rqbit, ("http",), (4,)),
    (rqbit, qbittorrent, ("udp",), (4,)),
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


def download(bench, name, tracker, seeding, leeching, family, magnet=False, uncounted=0, make=Torrent):
    """Runs one swarm from its first announce to its last. `seeding`, `leeching`: (client, scheme).

    With `magnet` the leechers get a magnet link, and the metadata from the seeder. `uncounted`: how many of
    them are not counted as downloads although they say `completed`. `make`: makes the torrent.
    """
    for client, scheme, seed in [(*seeding, True), *[(*leecher, False) for leecher in leeching]]:
        if client.NAME in bench.tools.missing:
            raise Skipped(f"{client.NAME} is not installed", allowed=False)
        if reason := client.unsupported(scheme, family, seed):
            raise Skipped(f"{client.NAME}: {reason}", allowed=True)
    room = bench.room(name)
    torrent = make(room, private=not magnet)
    peers = []

    def launch(client, scheme, seed):
        url = tracker.url(scheme, family, by_name=(scheme, family) in client.BY_NAME)
        directory = f"{room}/{len(peers)}-{client.NAME}"
        peers.append(Peer(bench.tools, client, directory, torrent, url, seed, tracker.ca, magnet and not seed))
        return peers[-1]

    def upto(least, most):
        return set(range(least, most + 1))

    def swarm(what, *counts):
        return _swarm(tracker, torrent, what, counts, [peer.process for peer in peers])

    try:
        seeder = launch(*seeding, seed=True)
        _, _, before = swarm("the seeder is in the swarm", 1, 0, {0, 1} if seeding[0].BORN_COMPLETE else 0)
        # Leechers that never say `completed` count as leechers until their next announce, and are no downloads.
        silent = sum(not client.SAYS_COMPLETED for client, _ in leeching)
        staying = sum(not client.SAYS_STOPPED for client, _ in leeching)
        count, every = before + len(leeching) - silent - uncounted, 1 + len(leeching)
        leechers = [launch(*leecher, seed=False) for leecher in leeching]
        for leecher in leechers:
            wait_for(
                f"{leecher.client.NAME} has the payload", leecher.complete, 60,
                [seeder.process, leecher.process],
            )
        swarm("every leecher announced `completed`", upto(every - silent, every), upto(0, silent), count)
        for leecher in leechers:
            leecher.leave()
        swarm("every leecher announced `stopped`", upto(1, 1 + staying), upto(0, staying), count)
        seeder.leave()
        staying_seed = staying + (not seeding[0].SAYS_STOPPED)
        swarm("the seeder announced `stopped`", upto(0, staying_seed), upto(0, staying), count)
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
