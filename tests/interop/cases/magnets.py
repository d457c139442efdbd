"""A client that has only a magnet link finds the seeder through the tracker, and gets metadata and content."""

from functools import partial

from cases import Case
from cases.downloads import download
from clients import aria2, deluge, libtorrent, qbittorrent, rqbit, rtorrent, transmission, webtorrent

CLIENTS = [aria2, rqbit, webtorrent, rtorrent, libtorrent, qbittorrent, deluge, transmission]


def cases():
    for client in CLIENTS:
        for scheme in ("http", "udp"):
            name = f"magnet {scheme}: libtorrent to {client.NAME}"
            yield Case(name, partial(_magnet, name, client, scheme))


def _magnet(name, client, scheme, bench):
    download(bench, name, bench.tracker, (libtorrent, "udp"), [(client, scheme)], 4, magnet=True)
