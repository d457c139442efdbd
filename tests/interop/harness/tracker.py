"""The tracker under test, on its own host."""

import http.client
import os
import re
import urllib.parse

from harness.net import Host
from harness.process import Failed, Process, output_of, wait_for
from harness.torrent import bdecode

LISTENERS = {"udp": ("--udp", 6969), "http": ("--http", 6969), "https": ("--https", 6443), "h3": ("--http3", 6443)}


class Tracker:
    """A tracker with every kind of listener, over both address families. It serves when the constructor returns."""

    def __init__(self, binary, directory, certified=False, config=None):
        """`certified`: use a certificate from `scion-tracker cert` (`ca`, `cert`, `key`) instead of a self-signed
        one; a list of hosts: it names them too.

        `config`: a configuration that names every listener; the first of each kind has the port in LISTENERS.
        """
        self.binary, self.ca = binary, None
        self.host = Host("tracker")
        self.data = os.path.join(directory, "tracker-data")
        self.announced = os.path.join(directory, "tracker-stdout")
        self.log = os.path.join(directory, "tracker-log")
        os.makedirs(self.data)
        tls = {}
        if certified:
            others = certified if isinstance(certified, list) else []
            tls = self._certify(os.path.join(directory, "tracker-tls"), [self.host, *others])
        listeners = [part for flag, port in LISTENERS.values() for part in (flag, f"[::]:{port}")]
        if config:
            path = os.path.join(directory, "tracker.toml")
            with open(path, "w") as file:
                file.write(config)
            listeners = ["--config", path]
        self.process = Process(
            self.host,
            [binary, "serve", "--data-dir", self.data, *listeners,
             "--interval", "30m", "--min-interval", "5s"],
            self.log, stdout=self.announced, cwd=directory, env=tls,
        )
        try:
            self.ports = wait_for("an announce URL for every listener", self._ports, 20, [self.process])
        except Failed as failed:
            raise Failed(f"{failed}\n{self._said()}") from None

    def _certify(self, directory, hosts):
        names = [part for host in hosts for ip in (host.ip4, host.ip6) for part in ("--name", ip)]
        output_of(self.host, [self.binary, "cert", "--out", directory, *names], 20)
        self.ca, self.cert, self.key = (os.path.join(directory, f"{name}.pem") for name in ("ca", "cert", "key"))
        return {"SCION_TRACKER_TLS_CERT": self.cert, "SCION_TRACKER_TLS_KEY": self.key}

    def _said(self):
        with open(self.announced) as urls, open(self.log, errors="replace") as log:
            return f"stdout: {urls.read()}\nstderr: {log.read()[-4000:]}"

    def _ports(self):
        with open(self.announced) as file:
            lines = re.findall(r"^(\w+)://\S*:(\d+)/announce$", file.read(), re.MULTILINE)
        ports = {scheme: int(port) for scheme, port in reversed(lines)}
        return ports if LISTENERS.keys() <= ports.keys() else None

    def url(self, scheme, family, by_name=False):
        """The announce URL with the address of that family, or with a name for it."""
        host = f"tracker{family}.test" if by_name else self.host.address(family)
        return f"{scheme}://{host}:{self.ports[scheme]}/announce"

    def get(self, path):
        """Status and body of an HTTP GET from the switch."""
        connection = http.client.HTTPConnection(self.host.ip4, self.ports["http"], timeout=5)
        try:
            connection.request("GET", path, headers={"Connection": "close"})
            reply = connection.getresponse()
            return reply.status, reply.read()
        finally:
            connection.close()

    def swarm(self, info_hash):
        """(complete, incomplete, downloaded) of a scrape."""
        status, body = self.get(f"/scrape?info_hash={urllib.parse.quote(info_hash, safe='')}")
        if status != 200:
            raise Failed(f"scrape: status {status}: {body[:200]!r}")
        counts = bdecode(body).get(b"files", {}).get(info_hash, {})
        return tuple(counts.get(key, 0) for key in (b"complete", b"incomplete", b"downloaded"))

    def stop(self):
        """Sends SIGTERM. Returns the seconds until the end, or None if it had to be killed."""
        return self.process.stop(patience=15)
