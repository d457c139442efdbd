"""A client that has only a magnet link finds the seeder through the tracker, and gets metadata and content."""

from functools import partial

from cases import Case
from cases.downloads import download
from clients import aria2, deluge, libtorrent, qbittorrent, rqbit, rtorrent, transmission, webtorrent

CLIENTS = [aria2, rqbit, webtorrent, rtorrent, libtorrent, qbittorrent, deluge, transmission]
# Without the metadata it says left=0 over UDP, so that it counts as a seed from the start. Its `completed` is then
# no download, because a download is counted only of a peer that was known as incomplete.
BORN_SEED = {(webtorrent, "udp")}


def cases():
    for client in CLIENTS:
        for scheme in ("http", "udp"):
            name = f"magnet {scheme}: libtorrent to {client.NAME}"
            yield Case(name, partial(_magnet, name, client, scheme))


def _magnet(name, client, scheme, bench):
    download(
        bench, name, bench.tracker, (libtorrent, "udp"), [(client, scheme)], 4,
        magnet=True, uncounted=int((client, scheme) in BORN_SEED),
    )
