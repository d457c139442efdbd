"""libtorrent (PyPI), driven by peers/libtorrent_peer.py."""

import signal
import subprocess

NAME = "libtorrent"
BY_NAME = set()
BORN_COMPLETE = False
SAYS_COMPLETED = SAYS_STOPPED = True


def unsupported(_scheme, _family, _seed):
    return None


def launch(peer):
    script = peer.tools.peer_script("libtorrent_peer.py")
    verify = "verify" if peer.ca else "trust"
    return peer.run(
        [peer.tools.python, script, peer.source, peer.data, peer.port, verify],
        env={"SSL_CERT_FILE": peer.ca} if peer.ca else {},
    )


def leave(peer):
    peer.process.signal(signal.SIGTERM)


def said(peer):
    return peer.process.output()


def version(tools):
    code = "import libtorrent; print(libtorrent.__version__)"
    return subprocess.check_output([tools.python, "-c", code], text=True).strip()
