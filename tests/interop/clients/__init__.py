"""The clients. A client is one module here and one row in CLIENTS.

A module has
- `NAME`
- `launch(peer)`: starts the client in the foreground on `peer.host`, with its listening port
  `peer.port`, its data in `peer.data`, its own state in `peer.state`, the torrent
  `peer.torrent_file`; seeds when `peer.seed` (the payload is already there); trusts
  the authority `peer.ca` alone, or any certificate when that is None; returns a Process
- `take_leave(peer)`: tells it to announce `stopped`; it may end by itself or be ended later
- `unsupported(scheme, family, seed)`: None, or why the client itself cannot do that; see README.md
- `BORN_COMPLETE`: whether a seeder announces `completed` although it never was a leecher
- `BY_NAME`: the (scheme, family) for which it needs the tracker's name instead of its address
- `version(tools)`: for the heading of a run
"""

from . import aria2, libtorrent, transmission, webtorrent

CLIENTS = [libtorrent, aria2, transmission, webtorrent]
