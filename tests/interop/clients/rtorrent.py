"""rTorrent (Debian), as a daemon without a terminal."""

import os
import re
import signal
import subprocess

NAME = "rtorrent"
BY_NAME = set()
BORN_COMPLETE = False
SAYS_COMPLETED = SAYS_STOPPED = True


def unsupported(scheme, family, seed):
    if (scheme, family, seed) == ("udp", 6, False):
        return "0.9.8 reads the 18-byte peers of a UDP reply over IPv6 as 6-byte ones"
    return None


def launch(peer):
    session = os.path.join(peer.state, "session")
    os.makedirs(session)
    trust = [f"network.http.cacert.set = {peer.ca}"] if peer.ca else [
        "network.http.ssl_verify_peer.set = 0", "network.http.ssl_verify_host.set = 0",
    ]
    settings = os.path.join(peer.state, "rtorrent.rc")
    with open(settings, "w") as file:
        file.write("\n".join([
            "system.daemon.set = true",
            f"directory.default.set = {peer.data}",
            f"session.path.set = {session}",
            f"network.port_range.set = {peer.port}-{peer.port}",
            "network.port_random.set = no",
            "dht.mode.set = disable",
            "protocol.pex.set = no",
            "trackers.use_udp.set = yes",
            # The check stops the torrent for a moment, and `completed` is then never sent.
            "pieces.hash.on_completion.set = no",
            *trust,
            f'log.open_file = "log", {peer.log}',
            'log.add_output = "tracker_debug", "log"',
            'log.add_output = "info", "log"',
            f'schedule2 = add, 0, 0, "load.start_verbose={peer.source}"',
            "",
        ]))
    return peer.run(["rtorrent", "-n", "-o", f"import={settings}"], env={"TERM": "dumb"})


def leave(peer):
    peer.process.signal(signal.SIGINT)


def version(_tools):
    text = subprocess.run(["rtorrent", "-h"], capture_output=True, text=True).stdout
    return re.search(r"version (\S+?)\.?\s", text)[1]
