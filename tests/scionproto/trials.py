"""What is tried behind the programs of scionproto. The cases run in this order, each with all links up."""

import concurrent.futures
import contextlib
import itertools
import json
import os
import re
import signal
import subprocess
import threading
import time

from harness.process import Failed, Process, wait_for
from network import LINKS, PATIENCE

PORT = 31969
NAME = "tracker.lab"
SCHEMES = ("udp", "https", "http")
PROTOCOLS = ("udp", "h3", "qs")
WIDE = [name for name in LINKS if name.endswith("wide")]
# The torrent of the client in Go.
TORRENT_IN_GO = int("60" * 20, 16)
# Seconds that an announce may take while links fail: routers notice that after some 0.6 seconds.
LIMIT = 30


class Bench:
    """The network, the tracker in AS a, and clients of this program and in Go."""

    _numbers = itertools.count(1)

    def __init__(self, network, program):
        self.network, self.program = network, program
        self.tracker = None
        self.ports = itertools.count(31100)
        self.hosts_file = os.path.join(network.directory, "hosts")
        self.client = os.path.join(network.programs, "go-client")
        for host in ("b", "c"):
            for to, count in (("a", 2), ("c" if host == "b" else "b", 4)):
                network.wait_for_paths(network[host]["host"], network[to], count)

    def start(self, system="a", *options, host="tracker"):
        """Starts the tracker on a host, instead of the one that runs."""
        self.end()
        self.system = self.network[system]
        self.host = self.system[host]
        self.data = os.path.join(self.network.directory, f"data-{next(self._numbers)}")
        options = options or ("--scion-topology", self.system.topology_file)
        argv = [self.program, *options, "--data-dir", self.data]
        env = {"SCION_TRACKER_TLS_NAMES": f"localhost,{NAME}", "SCION_TRACKER_PEERS_PER_SOURCE_IN_TORRENT": "255"}
        self.tracker = Process(self.host, argv, f"{self.data}.log", env=env)
        wait_for("the tracker listens", lambda: f"announce to udp://[{self.isd_as}" in self.log(), PATIENCE, [self.tracker])
        with open(self.hosts_file, "w") as file:
            file.write(f"{self.isd_as},[{self.host.address}] {NAME}\n")

    @property
    def isd_as(self):
        return self.system.isd_as

    def log(self):
        return self.tracker.output()

    def end(self):
        if self.tracker and self.tracker.stop() is None:
            raise Failed("the tracker did not stop on SIGTERM")
        if self.tracker and self.tracker.status() != 0:
            raise Failed(f"the tracker ended with status {self.tracker.status()}:\n{self.log()[-2000:]}")
        self.tracker = None

    def url(self, scheme):
        if scheme == "http":
            return f"http://{NAME}:{PORT}"
        return f"{scheme}://[{self.isd_as},{self.host.address}]:{PORT}"

    def run(self, host, *arguments, timeout=2 * LIMIT):
        argv = [self.program, *map(str, arguments)]
        return subprocess.run(host.argv(argv), capture_output=True, text=True, timeout=timeout, check=False)

    def announce(self, host, scheme, *more, torrent=1, port=None):
        """One announce by the client of this program. Returns its reply."""
        port = port or next(self.ports)
        options = ["--info-hash", f"{torrent:040x}", "--port", port, "--insecure", "--json", "--timeout", f"{LIMIT}s"]
        done = self.run(host, "announce", self.url(scheme), "--scion-hosts", self.hosts_file, *options, *more)
        if done.returncode != 0:
            raise Failed(f"{scheme} from {host.name}: {done.stderr}")
        return json.loads(done.stdout)

    def show_paths(self, host, *more):
        done = self.run(host, "announce", self.url("udp"), "--show-paths", "--json", *more)
        if done.returncode != 0:
            raise Failed(done.stderr)
        return json.loads(done.stdout)["paths"]

    def metric(self, name):
        """The sum of a metric over its labels."""
        done = subprocess.run(
            self.host.argv(["curl", "-sf", "http://127.0.0.1:1212/metrics"]), capture_output=True, text=True, check=True
        )
        values = re.findall(rf"^scion_tracker_{name}(?:{{.*}})? (\S+)$", done.stdout, re.M)
        if not values:
            raise Failed(f"no metric {name}")
        return sum(map(float, values))


class GoClient:
    """A client in Go with the libraries of scionproto (scion/local-topology/tests/go-client), on one connection."""

    def __init__(self, bench, host, protocol, *options):
        self.protocol, self.host = protocol, host
        self.errors = open(os.path.join(bench.network.directory, f"go-{host.name}-{protocol}.log"), "a+")
        argv = [
            bench.client, f"-protocol={protocol}", "-daemon=127.0.0.1:30255", f"-ia={bench.isd_as}",
            f"-host={bench.host.at(PORT)}", f"-ca={bench.data}/self-signed.pem", f"-local={host.address}", *options,
        ]
        self.process = subprocess.Popen(
            host.argv(argv), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors, text=True
        )

    def announce(self, port, numwant=50):
        """One announce. Returns the number of peers in the answer, and that of connections so far."""
        self.process.stdin.write(f"{port} {numwant}\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            self.errors.seek(0)
            raise Failed(f"{self.protocol} from {self.host.name}: the client in Go ended: {self.errors.read()[-2000:]}")
        answer = json.loads(line)
        if answer["error"]:
            raise Failed(f"{self.protocol} from {self.host.name}: {answer['error']}")
        body = bytes.fromhex(answer["body"])
        if self.protocol == "udp":
            # BEP 15: after 20 bytes, peers with an ISD-AS, of the family of the host.
            return (len(body) - 20) // (26 if ":" in self.host.address else 14), answer["connections"]
        return sum(int(length) // size for size, length in self.lists(body)), answer["connections"]

    @staticmethod
    def lists(body):
        """Bytes for each peer and in all, of the two compact lists."""
        for key, size in ((b"12:peers_scion4", 14), (b"12:peers_scion6", 26)):
            if found := re.search(key + rb"(\d+):", body):
                yield size, found[1]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self.errors.close()


def expect(what, seen, expected):
    if seen != expected:
        raise Failed(f"{what}: {seen}, expected {expected}")


def clients(bench):
    """A host in each AS; that in the tracker's is another one than the tracker's."""
    return [bench.network[name]["host"] for name in "abc"]


def every_as_announces(bench, system="a", *options):
    """From each AS over each transport, by this program and in Go. Each gets all earlier peers."""
    bench.start(system, *options)
    known = 0
    for scheme in SCHEMES:
        for host in clients(bench):
            seen = len(bench.announce(host, scheme)["peers"])
            expect(f"peers for {scheme} from {host.name}", seen, known)
            known += 1
    families = []
    for protocol in PROTOCOLS:
        for host in clients(bench):
            family = 6 if ":" in host.address else 4
            with GoClient(bench, host, protocol) as client:
                for _ in range(2):
                    # Over UDP a client of the first version of the extension gets peers of its own family.
                    expected = families.count(family) if protocol == "udp" else len(families)
                    seen = client.announce(next(bench.ports))
                    expect(f"peers for {protocol} from {host.name}, on 1 connection", seen, (expected, 1))
                    families.append(family)
    return f"{bench.metric('requests_total'):.0f} requests answered"


def a_tracker_with_the_topology_file(bench):
    return every_as_announces(bench)


def a_tracker_with_the_daemon(bench):
    return every_as_announces(bench, "a", "--scion-daemon", "127.0.0.1:30255")


def a_tracker_on_an_ipv6_underlay(bench):
    return every_as_announces(bench, "c")


def scion_ping_is_answered(bench):
    """By the tracker itself, which has UDP port 30041: without it nothing answers."""
    bench.start()
    if "also receiving on UDP port 30041" not in bench.log():
        raise Failed(f"the tracker does not receive on port 30041:\n{bench.log()}")
    for host in clients(bench):
        expect(f"pings from {host.name} answered", bench.network.ping(host, bench.host), 3)
    bench.end()
    for host in clients(bench):
        expect(f"pings from {host.name} answered without the tracker", bench.network.ping(host, bench.host, 1), 0)


def programs_of_the_own_as_use_the_endhost_port(bench):
    bench.start()
    for protocol in PROTOCOLS:
        for host in (bench.network["a"]["host"], bench.host):
            with GoClient(bench, host, protocol, "-endhost-port") as client:
                client.announce(next(bench.ports))


def a_dispatcher_has_the_endhost_port(bench):
    """The table of the guide (scion/scionlab/README.md), row by row."""
    bench.end()
    network, system = bench.network, bench.network["a"]
    own = network["a"]["host"]
    for forwarding in (False, True):
        system.start_dispatcher("tracker", forwarding)
        dispatcher = system.programs["tracker", "dispatcher"]
        wait_for("the dispatcher answers", lambda: network.ping(network["b"]["host"], system["tracker"], 1), PATIENCE, [dispatcher])
        bench.start()
        if "also receiving" in bench.log():
            raise Failed("the tracker has port 30041, too")
        for host in clients(bench):
            expect(f"pings from {host.name} answered", network.ping(host, bench.host, 2), 2)
            for scheme in SCHEMES:
                bench.announce(host, scheme)
        with GoClient(bench, own, "udp") as client:
            client.announce(next(bench.ports))
        for host, answered in ((bench.host, forwarding), (own, False)):
            expect(f"an announce of {host.name} through port 30041 is answered", _answers(bench, host), answered)
        system.stop_program("tracker", "dispatcher")
        # The tracker does not miss it.
        for host in clients(bench):
            bench.announce(host, "udp")


def _answers(bench, host):
    """Whether a client that sends to port 30041 gets an answer within 3 seconds."""
    with GoClient(bench, host, "udp", "-endhost-port") as client:
        timer = threading.Timer(3, client.process.kill)
        timer.start()
        try:
            client.announce(next(bench.ports))
            return True
        except Failed:
            return False
        finally:
            timer.cancel()


def the_dispatcher_comes_and_goes(bench):
    """One that starts after the tracker does not take its port from it, and a restart loses nobody."""
    bench.start()
    system = bench.network["a"]
    for _ in range(2):
        dispatcher = system.start_program("tracker", "dispatcher", '[dispatcher]\nid = "dispatcher"\n', general=False)
        wait_for("the dispatcher ends, because it cannot listen", lambda: dispatcher.status() is not None, PATIENCE)
        del system.programs["tracker", "dispatcher"]
        for host in clients(bench):
            expect(f"pings from {host.name} answered", bench.network.ping(host, bench.host, 1), 1)
            bench.announce(host, "udp")


def the_daemon_restarts(bench):
    """The tracker asks it only at the start. A client needs it, and says so."""
    bench.start("a", "--scion-daemon", "127.0.0.1:30255")
    network = bench.network
    here, there = network["a"], network["b"]
    here.stop_program("tracker", "daemon")
    for host in clients(bench):
        bench.announce(host, "https")
    there.stop_program("host", "daemon")
    done = bench.run(there["host"], "announce", bench.url("udp"), "--info-hash", "0" * 40)
    if done.returncode == 0 or "127.0.0.1:30255" not in done.stderr:
        raise Failed(f"an announce without a daemon: status {done.returncode}: {done.stderr}")
    here.start_daemon("tracker")
    there.start_daemon("host")
    network.wait_for_paths(there["host"], here, 2)
    for host in clients(bench):
        bench.announce(host, "udp")


def the_client_obeys_its_path_policy(bench):
    """Against the paths of scionproto's daemon: by interface, by AS, by ISD, and by number."""
    bench.start()
    host = bench.network["c"]["host"]
    wide, thin = bench.show_paths(host)
    expect("MTU of the paths", (wide["mtu"], thin["mtu"]), (1472, 1280))
    for policy, allowed in (
        ("- 1-ff00:0:110#3, +", [thin]),
        ("- 2-ff00:0:210#2, +", [wide]),
        ("+ 1, + 2-ff00:0:210, -", [wide, thin]),
        ("- 1, +", []),
    ):
        usable = [it for it in bench.show_paths(host, "--path-policy", policy) if it["status"] == "usable"]
        expect(f"paths that {policy!r} allows", [it["interfaces"] for it in usable], [it["interfaces"] for it in allowed])
        if not allowed:
            done = bench.run(host, "announce", bench.url("udp"), "--info-hash", "0" * 40, "--path-policy", policy)
            expect(f"status with {policy!r}", done.returncode, 1)
            continue
        # A link that is not allowed may be down.
        for link in {"ac-wide", "ac-thin"} - {("ac-thin" if it is thin else "ac-wide") for it in allowed}:
            with cut(bench, link):
                bench.announce(host, "https", "--path-policy", policy)
    with cut(bench, "ac-wide"):
        bench.announce(host, "udp", "--path", "1")


@contextlib.contextmanager
def cut(bench, *links):
    """Cuts links until the end of the block, and then waits until all paths work again."""
    for link in links:
        bench.network.cut(link)
    try:
        yield
    finally:
        for link in links:
            bench.network.mend(link)
        _recover(bench)


def _recover(bench):
    a = bench.network["a"]
    for name in "bc":
        bench.network.wait_for_paths(bench.network[name]["host"], a, 2)


def links_of_1280_bytes(bench):
    """Only the narrow links are up. Replies of 200 peers, and those over UDP that are as long as they may be."""
    bench.start()
    with cut(bench, *WIDE):
        found = _long_replies(bench)
    return found


def ases_on_links_of_1280_bytes(bench):
    """The underlay of all ASes holds packets of 1280 bytes, although the paths have an MTU of 1472."""
    bench.start()
    bench.network.narrow(True)
    try:
        return _long_replies(bench)
    finally:
        bench.network.narrow(False)


def _long_replies(bench):
    """Fills a torrent with 250 peers, and asks for 200 of them over everything."""
    for name in "bc":
        with GoClient(bench, bench.network[name]["host"], "udp") as client:
            for port in range(20000, 20125):
                client.announce(port, 1)
    found = {}
    for host in clients(bench):
        for protocol in PROTOCOLS:
            with GoClient(bench, host, protocol) as client:
                found[f"{host.name} {protocol} in Go"], _ = client.announce(next(bench.ports), 200)
        for scheme in SCHEMES:
            reply = bench.announce(host, scheme, "--numwant", "200", torrent=TORRENT_IN_GO)
            found[f"{host.name} {scheme}"] = len(reply["peers"])
    for what, count in found.items():
        # Over UDP as many as fit into a packet: of 1280 bytes, and inside the AS of its MTU.
        low, high = (40, 102) if " udp" in what else (200, 200)
        if not low <= count <= high:
            raise Failed(f"peers for {what}: {count}")
    expect("packets that the kernel of the tracker refused", bench.metric("oversized_packets_total"), 0)
    return ", ".join(f"{what} {count}" for what, count in found.items() if " udp" in what)


def links_fail(bench):
    """Announces go on while links fail one after the other, so that each path in use fails."""
    def fail():
        for link in (*LINKS, *WIDE):
            bench.network.cut(link)
            time.sleep(1.5)
            bench.network.mend(link)
            _recover(bench)

    bench.start()
    return _while(bench, fail)


def routers_are_killed(bench):
    """Announces go on while border routers are killed and start again, those of the tracker and those of clients."""
    def fail():
        for name, router in (("a", "br1"), ("b", "br1"), ("c", "br1"), ("a", "br2")):
            system = bench.network[name]
            system.programs[router, "router"].signal(signal.SIGKILL)
            time.sleep(1.5)
            system.programs[router, "router"].stop()
            system.start_program(router, "router")
            _recover(bench)

    bench.start()
    return _while(bench, fail)


def _while(bench, fail):
    """Announces until `fail` returns: over new connections with this program, and over one in Go. None may be lost."""
    over, took = threading.Event(), []
    hosts = clients(bench)[1:]

    def timed(announce):
        while not over.is_set():
            began = time.monotonic()
            announce()
            took.append(time.monotonic() - began)
            over.wait(0.05)

    def in_go(host, protocol):
        with GoClient(bench, host, protocol) as client:
            port = next(bench.ports)

            def announce():
                _, connections = client.announce(port)
                expect(f"connections of {protocol} from {host.name}", connections, 1)

            timed(announce)

    with concurrent.futures.ThreadPoolExecutor() as pool:
        running = []
        for host in hosts:
            for scheme in SCHEMES:
                port = next(bench.ports)
                running.append(pool.submit(timed, lambda host=host, scheme=scheme, port=port: bench.announce(host, scheme, port=port)))
            running += [pool.submit(in_go, host, protocol) for protocol in PROTOCOLS]
        try:
            fail()
        finally:
            over.set()
    errors = [str(it.exception()) for it in running if it.exception()]
    if errors:
        raise Failed("\n".join(errors))
    took.sort()
    return f"{len(took)} announces, none lost; the median took {took[len(took) // 2] * 1000:.0f} ms, the slowest {took[-1]:.1f} s"


CASES = (
    a_tracker_with_the_topology_file,
    a_tracker_with_the_daemon,
    a_tracker_on_an_ipv6_underlay,
    scion_ping_is_answered,
    programs_of_the_own_as_use_the_endhost_port,
    a_dispatcher_has_the_endhost_port,
    the_dispatcher_comes_and_goes,
    the_daemon_restarts,
    the_client_obeys_its_path_policy,
    links_of_1280_bytes,
    ases_on_links_of_1280_bytes,
    links_fail,
    routers_are_killed,
)
