"""The clients. A client is one module here and one row in CLIENTS.

A module has
- `NAME`
- `launch(peer)`: starts the client in the foreground on `peer.host`, with its listening port
  `peer.port`, its data in `peer.data`, its own state in `peer.state`, the torrent
  `peer.torrent.path`; seeds when `peer.seed` (the payload is already there); returns a Process
- `take_leave(peer)`: tells it to announce `stopped`; it may end by itself or be ended later
- `UNSUPPORTED`: {(scheme, family): reason} of what the client itself cannot do; see README.md
- `version(tools)`: for the heading of a run
"""

from . import aria2, libtorrent, transmission, webtorrent

CLIENTS = [libtorrent, aria2, transmission, webtorrent]
