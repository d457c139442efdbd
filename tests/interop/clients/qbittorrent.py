"""qbittorrent-nox (Debian). It gets its torrent on the command line of its first start."""

import os
import signal
import subprocess

NAME = "qbittorrent"
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
            "",
        ]))
    return peer.run(
        ["qbittorrent-nox", f"--profile={peer.state}", f"--save-path={peer.data}", peer.source],
        env={"SSL_CERT_FILE": peer.ca} if peer.ca else {},
    )


def leave(peer):
    peer.process.signal(signal.SIGTERM)


def version(_tools):
    environment = {"PATH": os.environ["PATH"], "HOME": "/nonexistent"}
    return subprocess.check_output(["qbittorrent-nox", "--version"], text=True, env=environment).split()[1].lstrip("v")
