"""One client on its own host, as a seeder or leecher of one torrent."""

import os

from harness.net import Host
from harness.process import Process

PORT = 6881


class Peer:
    """`client` is a module of the `clients` package. `directory` belongs to this peer only.

    `ca` is the authority that must have signed the tracker's certificate; None accepts any certificate.
    `source` is what the client is given: the path of the torrent file, or with `magnet` a magnet link.
    """

    port = PORT

    def __init__(self, tools, client, directory, torrent, announce, seed, ca=None, magnet=False):
        self.tools, self.client, self.torrent, self.seed = tools, client, torrent, seed
        self.ca = ca
        self.magnet = magnet
        self.source = torrent.magnet(announce) if magnet else torrent.file(announce)
        self.data = os.path.join(directory, "data")
        self.state = os.path.join(directory, "state")
        os.makedirs(self.data)
        os.makedirs(self.state)
        if seed:
            torrent.place(self.data)
        self.log = os.path.join(directory, "log")
        self.host = Host(client.NAME)
        self.process = client.launch(self)

    def run(self, argv, env=None):
        """For a client's `launch`: starts its process, with `state` as its home directory."""
        home = {"HOME": self.state, "XDG_CONFIG_HOME": self.state, "XDG_CACHE_HOME": self.state}
        return Process(self.host, argv, self.log, cwd=self.state, env={**home, **(env or {})})

    def complete(self):
        """Whether the whole payload has arrived unchanged."""
        return self.torrent.complete_in(self.data)

    def leave(self):
        """Tells the client to announce `stopped`."""
        self.client.leave(self)

    def remove(self):
        """Ends the processes that still run."""
        self.process.stop()
        self.host.remove()
