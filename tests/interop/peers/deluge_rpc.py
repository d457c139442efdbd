"""Tells a deluged on this host what to do: deluge_rpc.py STATE PORT add SOURCE DIRECTORY | pause.

Needs the Python of the system, for rencode. Deluge's own console takes three seconds of CPU for each command.

A message of Deluge 2 is, over TLS: version (1 byte), length (4 bytes, big endian), and a body of this length,
compressed by zlib and encoded by rencode. A request is a list of (id, method, arguments, keyword arguments). A
reply is (1, id, value), an error (2, id, ...), an event (3, ...).
"""

import base64
import os
import socket
import ssl
import struct
import sys
import time
import zlib

import rencode

RESPONSE, EVENT = 1, 3


class Daemon:
    """A connection of the user `localclient`, whose password deluged writes into its state."""

    def __init__(self, state, port):
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        self._socket = context.wrap_socket(socket.create_connection(("127.0.0.1", port), timeout=20))
        with open(os.path.join(state, "auth"), encoding="utf-8") as file:
            [password] = [line.split(":")[1] for line in file if line.startswith("localclient:")]
        self.call("daemon.login", "localclient", password, client_version="2.0.3")

    def call(self, method, *arguments, **keywords):
        body = zlib.compress(rencode.dumps([(1, method, arguments, keywords)]))
        self._socket.sendall(struct.pack("!BI", 1, len(body)) + body)
        while True:
            _, length = struct.unpack("!BI", self._read(5))
            kind, *rest = rencode.loads(zlib.decompress(self._read(length)), decode_utf8=True)
            if kind == RESPONSE:
                return rest[1]
            if kind != EVENT:
                sys.exit(f"{method}: {rest}")

    def settle(self, torrent):
        """Waits until no announce is under way: libtorrent would not send `stopped` after it."""
        quiet, end = 0, time.monotonic() + 10
        # deluged learns of an announce up to half a second late.
        while quiet < 4 and time.monotonic() < end:
            status = self.call("core.get_torrent_status", torrent, ["tracker_status"], False)["tracker_status"]
            quiet = quiet + 1 if "Announce OK" in status else 0
            time.sleep(0.25)

    def _read(self, length):
        data = b""
        while len(data) < length:
            part = self._socket.recv(length - len(data))
            if not part:
                sys.exit("deluged closed the connection")
            data += part
        return data


def main():
    state, port, command, *arguments = sys.argv[1:]
    daemon = Daemon(state, int(port))
    if command == "pause":
        for torrent in daemon.call("core.get_session_state"):
            daemon.settle(torrent)
            daemon.call("core.pause_torrent", torrent)
        return
    source, directory = arguments
    options = {"download_location": directory}
    if source.startswith("magnet:"):
        daemon.call("core.add_torrent_magnet", source, options)
    else:
        with open(source, "rb") as file:
            dump = base64.b64encode(file.read()).decode()
        daemon.call("core.add_torrent_file", os.path.basename(source), dump, options)


main()
