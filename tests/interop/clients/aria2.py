"""aria2c (Debian)."""

import signal
import subprocess

NAME = "aria2"
BY_NAME = set()
BORN_COMPLETE = False
SAYS_COMPLETED = SAYS_STOPPED = True


def unsupported(scheme, family, _seed):
    if (scheme, family) == ("udp", 6):
        return "it sends UDP announces from its IPv4 DHT socket alone"
    return None


def launch(peer):
    # UDP trackers need the socket of the DHT. A private torrent never uses the DHT.
    dht = [
        "--enable-dht=true", f"--dht-listen-port={peer.port + 1}",
        f"--dht-file-path={peer.state}/dht.dat", f"--dht-file-path6={peer.state}/dht6.dat",
    ]
    return peer.run([
        "aria2c", "--no-conf=true", *dht, f"--dir={peer.data}", f"--listen-port={peer.port}",
        "--bt-enable-lpd=false", "--enable-peer-exchange=false", "--follow-torrent=false",
        "--file-allocation=none", "--allow-overwrite=true",
        *([f"--ca-certificate={peer.ca}"] if peer.ca else ["--check-certificate=false"]),
        "--enable-color=false", "--console-log-level=info", "--summary-interval=0",
        "--bt-tracker-timeout=10", "--bt-tracker-connect-timeout=10",
        # Seeds until it is told to stop. With --seed-time=0 it would never announce `completed`.
        "--seed-ratio=0.0", f"--check-integrity={str(peer.seed).lower()}",
        # A magnet link: only this session knows its metadata.
        "--bt-save-metadata=false", peer.source,
    ])


def leave(peer):
    peer.process.signal(signal.SIGINT)


def version(_tools):
    return subprocess.check_output(["aria2c", "--version"], text=True).split()[2]
