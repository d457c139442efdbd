"""Private and listed trackers: members download, and everybody else is shown the reason.

The tracker is private and listed at once, so each case passes both checks, or fails at the one it names.
"""

import os
import secrets
import signal
import urllib.parse
from functools import partial

from cases import Case
from cases.downloads import download
from clients import aria2, deluge, libtorrent, qbittorrent, rtorrent, transmission, webtorrent
from harness.peer import Peer
from harness.process import Failed, Skipped, wait_for
from harness.torrent import Torrent, bdecode
from harness.tracker import Tracker

# Clients that send the path of a UDP tracker's URL (BEP 41).
UDP_WITH_PATH = (libtorrent, qbittorrent, deluge)
OVER_HTTP = (aria2, rtorrent, transmission, webtorrent)
MISSING = "this tracker is private: use the announce URL with your passkey"
UNKNOWN = "passkey unknown or expired: get a new announce URL where you got this one"
UNLISTED = "this tracker serves only listed torrents, and this one is not listed"
# Those that have a `said`, with the schemes over which they show a reason.
TOLD = [(libtorrent, ("http", "udp")), (qbittorrent, ("http",)), (transmission, ("http", "udp"))]
# What a client shows over UDP for every reason. libtorrent takes the text of an error from the start of the packet,
# which is a zero, so it has none. Transmission sends no path (BEP 41), so that it has no passkey.
OVER_UDP = {libtorrent: "tracker sent a failure message", transmission: MISSING}


def cases():
    yield Case("private and listed: members download, others are told why", _run)


class Members:
    """A private tracker as a member sees it: its URLs and its scrapes have a passkey."""

    def __init__(self, tracker, passkey):
        self.tracker, self.passkey, self.ca = tracker, passkey, tracker.ca

    def url(self, scheme, family, by_name=False):
        base = self.tracker.url(scheme, family, by_name).removesuffix("/announce")
        return f"{base}/{self.passkey}/announce"

    def swarm(self, info_hash):
        """(complete, incomplete, downloaded) of a scrape; None if the tracker refuses it."""
        query = f"info_hash={urllib.parse.quote(info_hash, safe='')}"
        status, body = self.tracker.get(f"/{self.passkey}/scrape?{query}")
        if status != 200:
            raise Failed(f"scrape: status {status}: {body[:200]!r}")
        reply = bdecode(body)
        if b"failure reason" in reply:
            return None
        counts = reply.get(b"files", {}).get(info_hash, {})
        return tuple(counts.get(key, 0) for key in (b"complete", b"incomplete", b"downloaded"))


class Listed(Torrent):
    """A torrent that is on the allow list in force before any client sees it."""

    def __init__(self, members, allow, *arguments, **named):
        super().__init__(*arguments, **named)
        with open(allow, "a") as file:
            file.write(f"{self.info_hash.hex()}\n")
        members.tracker.process.signal(signal.SIGHUP)
        wait_for("the tracker has read its allow list", lambda: members.swarm(self.info_hash), 20)


def _run(bench):
    clients = {client for client, _ in TOLD} | set(UDP_WITH_PATH) | set(OVER_HTTP)
    if missing := sorted(client.NAME for client in clients if client.NAME in bench.tools.missing):
        raise Skipped(f"not installed: {', '.join(missing)}", allowed=False)
    room = bench.room("access")
    passkey, allow, passkeys = secrets.token_hex(16), os.path.join(room, "allow"), os.path.join(room, "passkeys")
    with open(passkeys, "w") as file:
        file.write(f"{passkey} - a member\n")
    open(allow, "w").close()
    tracker = Tracker(bench.tracker.binary, room, config=f"""
        [listen]
        udp = ["[::]:6969"]
        http = ["[::]:6969"]
        https = ["[::]:6443"]
        http3 = ["[::]:6443"]
        [access]
        private = true
        passkeys = "{passkeys}"
        listed = true
        allow = "{allow}"
    """)
    try:
        members = Members(tracker, passkey)
        _members_download(bench, members, allow)
        _others_are_told(bench, room, members, allow)
        said = tracker.process.output()
        if passkey in said:
            raise Failed("the log of the tracker shows a passkey")
    finally:
        tracker.stop()
        tracker.host.remove()


def _members_download(bench, members, allow):
    """One swarm over HTTP and one over UDP. The seeder announces over the other transport."""
    make = partial(Listed, members, allow)
    udp = [(client, "udp") for client in UDP_WITH_PATH]
    http = [(client, "http") for client in (*UDP_WITH_PATH, *OVER_HTTP)]
    download(bench, "access-udp", members, (libtorrent, "http"), udp, 4, make=make)
    download(bench, "access-http", members, (libtorrent, "udp"), http, 4, make=make)


def _others_are_told(bench, room, members, allow):
    """Without a passkey, with a wrong one, and with a torrent that is not listed: each client shows which."""
    listed, unlisted = Listed(members, allow, room), Torrent(room)
    stranger = Members(members.tracker, secrets.token_hex(16))
    peers = []
    try:
        for client, schemes in TOLD:
            for scheme in schemes:
                rows = [
                    (members.tracker.url(scheme, 4), listed, MISSING),
                    (stranger.url(scheme, 4), listed, UNKNOWN),
                    (members.url(scheme, 4), unlisted, UNLISTED),
                ]
                for url, torrent, reason in rows:
                    directory = f"{room}/told-{len(peers)}-{client.NAME}"
                    peers.append((Peer(bench.tools, client, directory, torrent, url, seed=False), scheme, reason))
        for peer, scheme, reason in peers:
            shown = OVER_UDP[peer.client] if scheme == "udp" else reason
            what = f"{peer.client.NAME} over {scheme} shows {shown!r}"
            try:
                wait_for(what, lambda: shown in peer.client.said(peer), 60, [peer.process])
            except Failed as failed:
                raise Failed(f"{failed}; it shows {peer.client.said(peer)!r}") from None
        if (counts := members.swarm(listed.info_hash)) != (0, 0, 0):
            raise Failed(f"a client that was refused is in the swarm: {counts}")
    except Failed as failed:
        tails = [f"--- end of {peer.log}\n{peer.process.output()[-1500:]}" for peer, _, _ in peers]
        raise Failed("\n".join([str(failed), *tails])) from None
    finally:
        for peer, _, _ in peers:
            peer.remove()
