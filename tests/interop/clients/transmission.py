"""transmission-daemon (Debian). It reads a torrent file from the watch directory."""

import json
import os
import shutil
import subprocess

from harness.process import output_of, wait_for

NAME = "transmission"
RPC = 9091
# Its resolver treats `[address]` of a UDP tracker as a name.
BY_NAME = {("udp", 6)}
BORN_COMPLETE = False
SAYS_COMPLETED = SAYS_STOPPED = True


def unsupported(scheme, family, seed):
    if (scheme, family, seed) == ("udp", 6, False):
        return "3.00 reads the 18-byte peers of a UDP reply over IPv6 as 6-byte ones"
    return None


def launch(peer):
    watch = os.path.join(peer.state, "watch")
    os.makedirs(watch)
    if not peer.magnet:
        shutil.copy(peer.source, watch)
    settings = {
        "bind-address-ipv4": "0.0.0.0",
        "bind-address-ipv6": "::",
        "dht-enabled": False,
        "download-dir": peer.data,
        "lpd-enabled": False,
        "peer-port": peer.port,
        "pex-enabled": False,
        "port-forwarding-enabled": False,
        "preallocation": 0,
        "ratio-limit-enabled": False,
        "rpc-bind-address": "127.0.0.1",
        "rpc-port": RPC,
        "rpc-whitelist-enabled": False,
        "utp-enabled": False,
        "watch-dir": watch,
        "watch-dir-enabled": True,
    }
    with open(os.path.join(peer.state, "settings.json"), "w") as file:
        json.dump(settings, file)
    process = peer.run(
        ["transmission-daemon", "--foreground", "--log-debug", "--config-dir", peer.state],
        env={"CURL_CA_BUNDLE": peer.ca} if peer.ca else {"TR_CURL_SSL_NO_VERIFY": "1"},
    )
    if peer.magnet:
        wait_for("the RPC of Transmission", lambda: process.listens(RPC), 20, [process])
        _remote(peer, "--add", peer.source)
    return process


def leave(peer):
    # After a signal, 3.00 exits before curl has sent `stopped` to an HTTP tracker.
    _remote(peer, "--torrent", "all", "--stop")


def _remote(peer, *command):
    return output_of(peer.host, ["transmission-remote", str(RPC), *command], 20)


def said(peer):
    if not peer.process.listens(RPC):
        return ""
    return _remote(peer, "--torrent", "all", "--info-trackers")


def version(_tools):
    text = subprocess.run(["transmission-daemon", "--version"], capture_output=True, text=True)
    return (text.stdout + text.stderr).split()[1]
