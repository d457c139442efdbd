"""Starts the programs of a row, lets them bear the load in turn, and stops them again."""

import contextlib
import functools
import json
import os
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

from programs import HOST, ISD_AS, Unavailable, last_line, provide

START_SECONDS = 60
STOP_SECONDS = 10
# For all peers of a row to announce themselves.
FILL_SECONDS = 600
# What a run takes besides warming up and measuring: making up the population.
EXTRA_SECONDS = 60
# Before memory per connection is measured.
FEW_CONNECTIONS = 8
# For connections to open.
GROW_SECONDS = 3
# State of a listening TCP socket in /proc/net/tcp, and of an unconnected UDP one.
LISTENING = {"tcp": "0A", "tcp6": "0A", "udp": "07", "udp6": "07"}


class Cores:
    """Which cores the server has, and which the load."""

    def __init__(self, server):
        present = sorted(os.sched_getaffinity(0))
        if len(present) < 2:
            raise SystemExit("two cores are needed, one for the server and one for the load")
        self.server = present[:server]
        # Where there are no others the load has to share.
        self.load = present[server:] or present

    @property
    def shared(self):
        return bool(set(self.server) & set(self.load))


def pinned(cores, argv):
    return ["taskset", "-c", ",".join(map(str, cores)), *argv]


def free_port():
    """A port of loopback that is free over TCP and UDP."""
    while True:
        with socket.socket() as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
            tcp.bind((HOST, 0))
            port = tcp.getsockname()[1]
            with contextlib.suppress(OSError):
                udp.bind((HOST, port))
                return port


def is_open(port):
    for protocol, state in LISTENING.items():
        for line in Path("/proc/net", protocol).read_text().splitlines()[1:]:
            _, local, _, current, *_ = line.split()
            if local.endswith(f":{port:04X}") and current == state:
                return True
    return False


class Server:
    """A running program of a row."""

    def __init__(self, row, entry, places, home):
        self.entry = entry
        self.port = free_port()
        self.load = row.load | entry.load
        self.by = row.by
        self.places = places
        self.home = home
        self.cores = Cores(entry.cores or row.cores)
        options = {"torrents": self.load.get("torrents")} | entry.options
        start = entry.program.start(places, self.port, home, entry.scheme, options)
        self.log = home / "log"
        with open(self.log, "w") as log:
            self.process = subprocess.Popen(
                pinned(self.cores.server, start.argv),
                cwd=home,
                env=os.environ | start.env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def wait(self):
        deadline = time.monotonic() + START_SECONDS
        while not is_open(self.port):
            if self.process.poll() is not None:
                said = last_line(self.log.read_text(errors="replace"))
                raise Unavailable(f"ended at once with {self.process.returncode}: {said}")
            if time.monotonic() > deadline:
                raise Unavailable(f"does not listen after {START_SECONDS} s")
            time.sleep(0.05)

    def stop(self):
        for number in (signal.SIGTERM, signal.SIGKILL):
            self.process.send_signal(number)
            try:
                self.process.wait(STOP_SECONDS)
                return
            except subprocess.TimeoutExpired:
                pass

    def memory(self, figure):
        """Bytes of memory: VmRSS, what is resident now; VmHWM, the most that ever was."""
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith(f"{figure}:"):
                return int(line.split()[1]) * 1024
        raise Unavailable("has ended")

    def url(self):
        scheme = self.entry.scheme
        if scheme.startswith("scion-"):
            scheme = {"scion-udp": "udp", "scion-h3": "https"}[scheme]
            authority = f"[{ISD_AS},{HOST}]:{self.port}"
        else:
            authority = f"{HOST}:{self.port}"
        # Over UDP nothing needs a path.
        return f"{scheme}://{authority}" + ("" if scheme == "udp" else "/announce")

    def bench(self, duration, warmup, fill=False, **changes):
        """One run of the load. Returns its report, in which there is at least one reply."""
        if self.by:
            return self.by.bench(self, functools.partial(pinned, self.cores.load))
        options = self.load | changes | {"duration": f"{duration}s", "warmup": f"{warmup}s"}
        argv = [str(self.places.own / "scion-tracker"), "bench", self.url(), "--json"]
        argv += ["--server-pid", str(self.process.pid), *arguments(options)]
        if fill:
            argv.append("--fill")
        limit = duration + warmup + EXTRA_SECONDS + (FILL_SECONDS if fill else 0)
        try:
            done = subprocess.run(
                pinned(self.cores.load, argv), capture_output=True, text=True, timeout=limit
            )
        except subprocess.TimeoutExpired:
            raise Unavailable(f"is not done with the load after {limit:.0f} s") from None
        report = json.loads(done.stdout) if done.stdout else None
        if report is None or not report["replies"]:
            failures = report and report["failures"]
            raise Unavailable(f"no reply: {failures or last_line(done.stderr)}")
        return report


def arguments(options):
    for name, value in options.items():
        yield from [f"--{name}"] if value is True else [f"--{name}", str(value)]


def sample(report):
    """What is kept of a run."""
    server, failed = report["server"], sum(report["failures"].values())
    return {
        "cpu_seconds_per_million": server["cpu_seconds_per_million"],
        "user_share": server["user_seconds"] / max(server["cpu_seconds"], 1e-9),
        "replies_per_second": report["replies_per_second"],
        "peers_per_announce": report["peers_per_announce"] or 0,
        "server_busy": server["cpu_seconds"] / report["seconds"],
        "load_busy": report["generator"]["busy"],
        "failed_share": failed / (failed + report["replies"]),
    }


def run(row, places, rounds, duration, install):
    """Measures a row. Returns what is kept in the JSON file."""
    results = {entry.label: {"samples": []} for entry in row.entries}
    with contextlib.ExitStack() as stack:
        servers = []
        for entry in row.entries:
            try:
                if row.by:
                    provide(row.by, places, install)
                provide(entry.program, places, install)
                home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="compare-")))
                server = Server(row, entry, places, home)
                stack.callback(server.stop)
                server.wait()
                servers.append(server)
            except Unavailable as reason:
                give_up(row, entry, results, reason)
        if row.measure == "cpu":
            fill(row, servers, results)
            for number in range(rounds):
                # Nobody is always first.
                for at in range(len(servers)):
                    once(row, servers[(number + at) % len(servers)], results, duration)
        else:
            grow(row, servers, results)
    for entry in row.entries:
        results[entry.label]["program"] = f"{entry.program.name} {entry.program.version(places)}"
    return {
        "title": row.title,
        "taken": time.strftime("%Y-%m-%d"),
        "measure": row.measure,
        "load": row.by.describe(row.load) if row.by else " ".join(arguments(row.load)),
        "shared_cores": Cores(row.cores).shared,
        "entries": results,
    }


def give_up(row, entry, results, reason):
    print(f"{row.key}: {entry.label}: {reason}", flush=True)
    results[entry.label] = {"samples": [], "missing": str(reason)}


def fill(row, servers, results):
    """All peers announce themselves. Who cannot bear it is taken out."""
    peers = None
    for server in list(servers):
        try:
            if server.entry.echo:
                # The first has filled its swarms, so what it gives is known.
                server.load |= {"numwant": round(peers)} if peers else {}
                continue
            report = server.bench(0.5, 0.5, fill=True)
            peers = peers or report["peers_per_announce"]
        except Unavailable as reason:
            servers.remove(server)
            give_up(row, server.entry, results, reason)


def once(row, server, results, duration):
    try:
        kept = sample(server.bench(duration, 0.5))
    except Unavailable as reason:
        print(f"{row.key}: {server.entry.label}: {reason}", flush=True)
        kept = None
    # A round that failed keeps its place, for rounds are compared with each other.
    samples = results[server.entry.label]["samples"]
    samples.append(kept)
    if kept:
        print(f"{row.key}: {server.entry.label}: {kept['cpu_seconds_per_million']:.2f}", flush=True)


def grow(row, servers, results):
    """What memory peers or connections take, in bytes each."""
    each, few, figure = {
        # The peers stay, once each has announced itself.
        "peer memory": ("peers", {"peers": row.load["connections"]}, "VmRSS"),
        # Connections are closed in the end, so what counts is the most that there was.
        "connection memory": ("connections", {"connections": FEW_CONNECTIONS}, "VmHWM"),
    }[row.measure]
    for server in servers:
        try:
            # A few come first, so that buffers and threads are there.
            server.bench(GROW_SECONDS, 0.2, fill=each == "peers", **few)
            before = server.memory(figure)
            server.bench(GROW_SECONDS, 0.2, fill=each == "peers")
            after = server.memory(figure)
        except Unavailable as reason:
            give_up(row, server.entry, results, reason)
            continue
        size = (after - before) / (row.load[each] - few[each])
        print(f"{row.key}: {server.entry.label}: {size:.1f}", flush=True)
        results[server.entry.label]["samples"] = [{"bytes": size}]
