"""qbittorrent-nox (Debian). It gets its torrent on the command line of its first start."""

import json
import os
import signal
import subprocess

from harness.process import output_of

NAME = "qbittorrent"
WEB = 8080
BY_NAME = set()
BORN_COMPLETE = False
SAYS_COMPLETED = SAYS_STOPPED = True


def unsupported(_scheme, _family, _seed):
    return None


def launch(peer):
    settings = os.path.join(peer.state, "qBittorrent", "config")
    os.makedirs(settings)
    with open(os.path.join(settings, "qBittorrent.conf"), "w") as file:
        file.write("\n".join([
            "[BitTorrent]",
            f"Session\\DefaultSavePath={peer.data}",
            f"Session\\Port={peer.port}",
            "Session\\DHTEnabled=false",
            "Session\\LSDEnabled=false",
            "Session\\PeXEnabled=false",
            "Session\\QueueingSystemEnabled=false",
            f"Session\\ValidateHTTPSTrackerCertificate={'true' if peer.ca else 'false'}",
            "[LegalNotice]",
            "Accepted=true",
            "[Network]",
            "PortForwardingEnabled=false",
            "[Preferences]",
            "WebUI\\Address=127.0.0.1",
            f"WebUI\\Port={WEB}",
            "WebUI\\LocalHostAuth=false",
            "",
        ]))
    return peer.run(
        ["qbittorrent-nox", f"--profile={peer.state}", f"--save-path={peer.data}", peer.source],
        env={"SSL_CERT_FILE": peer.ca} if peer.ca else {},
    )


def leave(peer):
    peer.process.signal(signal.SIGTERM)


def said(peer):
    if not peer.process.listens(WEB):
        return ""
    url = f"http://127.0.0.1:{WEB}/api/v2/torrents/trackers?hash={peer.torrent.info_hash.hex()}"
    reader = "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1]).read().decode())"
    trackers = json.loads(output_of(peer.host, ["python3", "-c", reader, url], 20))
    return "\n".join(tracker["msg"] for tracker in trackers)


def version(_tools):
    environment = {"PATH": os.environ["PATH"], "HOME": "/nonexistent"}
    return subprocess.check_output(["qbittorrent-nox", "--version"], text=True, env=environment).split()[1].lstrip("v")
