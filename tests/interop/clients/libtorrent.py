"""libtorrent (PyPI), driven by peers/libtorrent_peer.py."""

import signal
import subprocess

NAME = "libtorrent"
BY_NAME = set()


def unsupported(_scheme, _family, _seed):
    return None


def launch(peer):
    return peer.run([
        peer.tools.python, peer.tools.peer_script("libtorrent_peer.py"),
        peer.torrent_file, peer.data, peer.port,
    ])


def take_leave(peer):
    peer.process.signal(signal.SIGTERM)


def version(tools):
    code = "import libtorrent; print(libtorrent.__version__)"
    return subprocess.check_output([tools.python, "-c", code], text=True).strip()
