"""transmission-daemon (Debian). It reads its torrent from the watch directory."""

import json
import os
import shutil
import subprocess

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
    if peer.magnet:
        with open(os.path.join(watch, "link.magnet"), "w") as file:
            file.write(peer.source)
    else:
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
    return peer.run(
        ["transmission-daemon", "--foreground", "--log-debug", "--config-dir", peer.state],
        env={"CURL_CA_BUNDLE": peer.ca} if peer.ca else {"TR_CURL_SSL_NO_VERIFY": "1"},
    )


def leave(peer):
    # After a signal, 3.00 exits before curl has sent `stopped` to an HTTP tracker.
    subprocess.run(
        peer.host.argv(["transmission-remote", str(RPC), "--torrent", "all", "--stop"]),
        stdout=subprocess.DEVNULL, check=True, timeout=10,
    )


def version(_tools):
    text = subprocess.run(["transmission-daemon", "--version"], capture_output=True, text=True)
    return (text.stdout + text.stderr).split()[1]
