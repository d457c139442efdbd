"""WebTorrent (npm) under Node, driven by peers/webtorrent_peer.mjs."""

import json
import os
import signal

NAME = "webtorrent"
BY_NAME = set()
# Its seeder announces `completed` and `started` at once. If `completed` arrives first, it counts as
# a download.
BORN_COMPLETE = True
SAYS_COMPLETED = SAYS_STOPPED = True


def unsupported(scheme, family, _seed):
    if (scheme, family) == ("udp", 6):
        return "it announces over UDP from an IPv4 socket alone"
    return None


def launch(peer):
    return peer.run(
        [
            peer.tools.node, peer.tools.peer_script("webtorrent_peer.mjs"),
            peer.tools.node_modules, peer.source, peer.data, peer.port,
        ],
        env={"NODE_EXTRA_CA_CERTS": peer.ca} if peer.ca else {"NODE_TLS_REJECT_UNAUTHORIZED": "0"},
    )


def leave(peer):
    peer.process.signal(signal.SIGTERM)


def version(tools):
    with open(os.path.join(tools.node_modules, "webtorrent", "package.json")) as file:
        return json.load(file)["version"]
