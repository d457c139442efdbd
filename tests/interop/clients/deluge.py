"""Deluge (Debian): deluged, driven by peers/deluge_rpc.py."""

import json
import os
import subprocess

from harness.process import output_of, wait_for

NAME = "deluge"
RPC = 58846
BY_NAME = set()
BORN_COMPLETE = False
SAYS_COMPLETED = SAYS_STOPPED = True


def unsupported(_scheme, family, _seed):
    if family == 6:
        return "2.0.3 did not download over IPv6; why is not known"
    return None


def launch(peer):
    settings = {
        "add_paused": False, "dht": False, "lsd": False, "natpmp": False, "upnp": False, "utpex": False,
        "download_location": peer.data, "listen_ports": [peer.port, peer.port], "random_port": False,
        "new_release_check": False, "pre_allocate_storage": False,
    }
    with open(os.path.join(peer.state, "core.conf"), "w") as file:
        file.write(json.dumps({"file": 1, "format": 1}) + json.dumps(settings))
    process = peer.run(
        # With Python 3.11, Deluge 2.0.3 fails where it logs. The level `error` keeps it from that.
        ["deluged", "-d", "-c", peer.state, "-L", "error"],
        env={"SSL_CERT_FILE": peer.ca} if peer.ca else {},
    )
    wait_for("deluged listens", lambda: process.listens(RPC), 20, [process])
    _tell(peer, "add", peer.source, peer.data)
    return process


def leave(peer):
    _tell(peer, "pause")


def _tell(peer, *command):
    output_of(peer.host, ["/usr/bin/python3", peer.tools.peer_script("deluge_rpc.py"), peer.state, RPC, *command], 30)


def version(_tools):
    text = subprocess.check_output(["deluged", "--version"], text=True)
    return text.split()[1]
