"""One client on a host of its own, as a seeder or a leecher of one torrent."""

import os

from harness.net import Host
from harness.process import Process

PORT = 6881


class Peer:
    """`client` is a module of the `clients` package; `directory` is this peer's alone.

    `ca`: the authority that the tracker's certificate must come from; None: any will do.
    """

    port = PORT

    def __init__(self, tools, client, directory, torrent, announce, seed, ca=None):
        self.tools, self.client, self.torrent, self.seed = tools, client, torrent, seed
        self.ca = ca
        self.torrent_file = torrent.file(announce)
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
        """For a client's `launch`: its process, at home in `state`."""
        home = {"HOME": self.state, "XDG_CONFIG_HOME": self.state, "XDG_CACHE_HOME": self.state}
        return Process(self.host, argv, self.log, cwd=self.state, env={**home, **(env or {})})

    def complete(self):
        """Whether the whole payload has arrived, byte for byte."""
        return self.torrent.complete_in(self.data)

    def take_leave(self):
        """Tells the client to announce `stopped`."""
        self.client.take_leave(self)

    def remove(self):
        """Ends what still runs."""
        self.process.stop()
        self.host.remove()
