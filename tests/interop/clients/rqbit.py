"""rqbit: librqbit through its Python bindings (PyPI: pyrqbit), driven by peers/rqbit_peer.py."""

import signal
import subprocess

NAME = "rqbit"
BY_NAME = set()
BORN_COMPLETE = False
# Its announces say `started` once, and no event from then on.
SAYS_COMPLETED = SAYS_STOPPED = False


def unsupported(scheme, _family, _seed):
    if scheme == "https":
        return "it did not download with a private authority or a self-signed certificate; SSL_CERT_FILE was not tried"
    return None


def launch(peer):
    script = peer.tools.peer_script("rqbit_peer.py")
    return peer.run(
        [peer.tools.rqbit_python, script, peer.source, peer.data, peer.port],
        env={"RUST_LOG": "librqbit=debug,tracker_comms=trace"},
    )


def leave(peer):
    peer.process.signal(signal.SIGTERM)


def version(tools):
    code = "import importlib.metadata as m; print(m.version('pyrqbit'))"
    return subprocess.check_output([tools.rqbit_python, "-c", code], text=True).strip()
