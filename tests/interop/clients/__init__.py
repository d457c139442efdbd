"""The clients. A client is one module here and one entry in CLIENTS.

A module has:
- `NAME`
- `launch(peer)`: starts the client in the foreground on `peer.host` and returns a Process. The client listens
  on `peer.port`, has its data in `peer.data`, its state in `peer.state`, and the torrent `peer.source`:
  the path of a file, or a magnet link. With `peer.seed` the payload is already there, and it seeds. It trusts only the authority `peer.ca`, or any
  certificate if that is None
- `leave(peer)`: tells the client to announce `stopped`; it may exit by itself or be ended later
- `unsupported(scheme, family, seed)`: None, or the reason why the client does not support it; see README.md
- `BORN_COMPLETE`: whether a seeder announces `completed` although it never was a leecher
- `SAYS_COMPLETED`, `SAYS_STOPPED`: whether a leecher announces that it has finished, and any peer that it leaves
- `BY_NAME`: the (scheme, family) for which it needs the name of the tracker instead of the address
- `said(peer)`, only where `cases/access.py` asks: what a user sees of the tracker's last reply
- `version(tools)`: for the head of the output
"""

from . import aria2, deluge, libtorrent, qbittorrent, rqbit, rtorrent, transmission, webtorrent

CLIENTS = [libtorrent, aria2, transmission, webtorrent, qbittorrent, rtorrent, deluge, rqbit]
