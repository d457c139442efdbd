"""HTTPS with a certificate from `scion-tracker cert`, which every client verifies."""

from functools import partial

from cases import Case
from cases.downloads import download
from clients import CLIENTS, libtorrent
from harness.tracker import Tracker


def cases():
    for family in (4, 6):
        yield Case(f"https IPv{family}: every client of this family trusts the authority of `cert`", partial(_trust, family))


def _trust(family, bench):
    name = f"certified-{family}"
    room = bench.room(f"{name}-tracker")
    tracker = Tracker(bench.tracker.binary, room, certified=True)
    try:
        leechers = [(client, "https") for client in CLIENTS if not client.unsupported("https", family, False)]
        download(bench, name, tracker, (libtorrent, "https"), leechers, family)
    finally:
        tracker.stop()
        tracker.host.remove()
