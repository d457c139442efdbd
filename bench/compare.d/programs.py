"""The programs that are compared: where they come from and how they are started.

Rivals run with their own defaults, except: one worker where the number can be set, a log of errors
alone, an address on loopback.
"""

import json
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HOST = "127.0.0.1"
# An AS for SCION listeners. Packets go to the IP address and port, through no router.
ISD_AS = "1-ff00:0:110"
INSTALL_SECONDS = 3600


class Unavailable(Exception):
    """A program cannot be had or does not run; the text says why."""


def last_line(text):
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1].strip() if lines else "no message"


def command(*argv, cwd=None):
    """Runs an installer. Raises Unavailable with the last line of what it says."""
    if not shutil.which(argv[0]):
        raise Unavailable(f"{argv[0]} is not installed")
    try:
        done = subprocess.run(argv, cwd=cwd, capture_output=True, text=True, timeout=INSTALL_SECONDS)
    except subprocess.TimeoutExpired:
        raise Unavailable(f"{argv[0]} took longer than {INSTALL_SECONDS} s") from None
    if done.returncode:
        raise Unavailable(f"{' '.join(argv)}: {last_line(done.stderr)}")
    return done.stdout


@dataclass(frozen=True)
class Start:
    """How to start a server: its command, and variables of the environment besides."""

    argv: list
    env: dict


class Own:
    """This tracker, or the floor beside it (bench/floor)."""

    def __init__(self, package):
        self.name = package

    def binary(self, places):
        return places.own / self.name

    def install(self, places):
        # Built before anything is measured.
        raise Unavailable(f"there is no {self.binary(places)}")


class Tracker(Own):
    def version(self, places):
        return places.commit

    def start(self, places, port, home, scheme, options):
        argv = [str(self.binary(places)), "serve", "--data-dir", str(home), "--log", "warn"]
        if scheme.startswith("scion-"):
            # Other listeners are there besides; naming one turns off the rest.
            argv += ["--udp", f"{HOST}:0", "--scion", f"{ISD_AS},[{HOST}]:{port}"]
        else:
            argv += [{"udp": "--udp", "http": "--http", "h3": "--http3"}[scheme], f"{HOST}:{port}"]
        env = {
            "SCION_TRACKER_WORKERS": str(options.get("workers", 1)),
            # The load comes from a few addresses.
            "SCION_TRACKER_PEERS_PER_SOURCE": "100000000",
            "SCION_TRACKER_PEERS_PER_SOURCE_IN_TORRENT": "100000000",
            "SCION_TRACKER_CONNECTIONS_PER_SOURCE": "65536",
            # As trackers run: the ISD-AS of clients over SCION is proven.
            "SCION_TRACKER_SCION_ROUTERS": "127.0.0.0/8",
            "SCION_TRACKER_SELECTION_MODE": options.get("selection", "prefer"),
        }
        return Start(argv, env)


class Floor(Own):
    # What it measures is theirs.
    libraries = ("hyper", "quinn", "h3")

    def version(self, places):
        locked = (ROOT / "Cargo.lock").read_text()
        versions = (re.search(rf'^name = "{name}"\nversion = "(.+)"$', locked, re.M)[1] for name in self.libraries)
        return "with " + ", ".join(map(" ".join, zip(self.libraries, versions)))

    def start(self, places, port, home, scheme, options):
        argv = [str(self.binary(places)), scheme, f"{HOST}:{port}"]
        return Start(argv + (["--tuned"] if options.get("tuned") else []), {})


class Crate:
    """A program from crates.io."""

    def __init__(self, name, version, folder=".", features=()):
        self.name = name
        self.number = version
        self.folder = folder
        self.features = features

    def version(self, places):
        return " with ".join([self.number, *self.features])

    def binary(self, places):
        return places.rivals / self.folder / "bin" / self.name

    def install(self, places):
        argv = ["cargo", "install", self.name, "--version", self.number, "--bin", self.name]
        argv += ["--root", str(places.rivals / self.folder)]
        if self.features:
            argv += ["--features", ",".join(self.features)]
        try:
            command(*argv, "--locked", cwd=places.rivals)
        except Unavailable:
            # The lock file of aquatic 0.9.0 names a version of metrics that rustc 1.95 refuses.
            command(*argv, cwd=places.rivals)


class AquaticUdp(Crate):
    def start(self, places, port, home, scheme, options):
        config = home / "aquatic_udp.toml"
        config.write_text(f'socket_workers = 1\nlog_level = "error"\n[network]\naddress = "{HOST}:{port}"\n')
        return Start([str(self.binary(places)), "-c", str(config)], {})


class AquaticHttp(Crate):
    def start(self, places, port, home, scheme, options):
        config = home / "aquatic_http.toml"
        # One worker for sockets and one for swarms are the fewest.
        config.write_text(
            'socket_workers = 1\nswarm_workers = 1\nlog_level = "error"\n'
            f'[network]\naddress = "{HOST}:{port}"\n'
        )
        return Start([str(self.binary(places)), "-c", str(config)], {})


class Torrust(Crate):
    def start(self, places, port, home, scheme, options):
        # As in its tracker.udp.benchmarking.toml.
        config = f"""
            [metadata]
            schema_version = "2.0.0"
            [logging]
            threshold = "error"
            [core]
            listed = false
            private = false
            tracker_usage_statistics = false
            [core.database]
            driver = "sqlite3"
            path = "{home}/torrust.db"
            [core.tracker_policy]
            persistent_torrent_completed_stat = false
            remove_peerless_torrents = false
            [[{scheme}_trackers]]
            bind_address = "{HOST}:{port}"
            [health_check_api]
            bind_address = "{HOST}:0"
        """
        return Start([str(self.binary(places))], {"TORRUST_TRACKER_CONFIG_TOML": config})


class Node:
    """bittorrent-tracker from npm."""

    name = "bittorrent-tracker"
    number = "11.2.3"

    def version(self, places):
        return self.number

    def binary(self, places):
        return places.rivals / "node" / "node_modules" / self.name / "server.js"

    def install(self, places):
        folder = places.rivals / "node"
        folder.mkdir(parents=True, exist_ok=True)
        # Without the native modules that only its client needs.
        argv = ["npm", "install", "--omit=optional", "--ignore-scripts", "--no-audit", "--no-fund"]
        command(*argv, "--prefix", str(folder), f"{self.name}@{self.number}", cwd=folder)

    def start(self, places, port, home, scheme, options):
        # Its own command loads the client too.
        kinds = {kind: kind == scheme for kind in ("udp", "http", "ws")} | {"stats": False}
        hosts = {"http": HOST, "udp": HOST, "udp6": "::1"}
        script = home / "serve.mjs"
        script.write_text(
            f"import Server from {json.dumps(str(self.binary(places)))}\n"
            f"new Server({json.dumps(kinds)}).listen({port}, {json.dumps(hosts)})\n"
        )
        return Start(["node", str(script)], {})


class Opentracker:
    """The Debian package, unpacked, not installed: that would start a service.

    It is built to serve only info hashes on a list, so it is given those that the load asks for.
    """

    name = "opentracker"
    packages = ("opentracker", "libowfat0t64", "libowfat0")

    def version(self, places):
        for line in command("apt-cache", "show", "--no-all-versions", self.name).splitlines():
            if line.startswith("Version:"):
                return f"{line.split()[1]} of Debian"
        return "of unknown version"

    def binary(self, places):
        installed = shutil.which(self.name)
        return Path(installed) if installed else places.rivals / "debian" / "usr" / "bin" / self.name

    def install(self, places):
        folder = places.rivals / "debian"
        folder.mkdir(parents=True, exist_ok=True)
        for package in self.packages:
            # One of the two names of the library is that of this release.
            known = command("apt-cache", "pkgnames", package).split()
            if package in known:
                command("apt-get", "download", package, cwd=folder)
        for archive in folder.glob("*.deb"):
            command("dpkg-deb", "-x", str(archive), str(folder))

    def start(self, places, port, home, scheme, options):
        # As root it confines itself to this folder and becomes nobody.
        home.chmod(0o755)
        with open(home / "whitelist", "w") as file:
            file.writelines(f"{info_hash}\n" for info_hash in info_hashes(options["torrents"]))
        config = home / "opentracker.conf"
        config.write_text(
            f"listen.udp.workers 1\nlisten.tcp_udp {HOST}:{port}\n"
            f"tracker.rootdir {home}\naccess.whitelist whitelist\n"
        )
        libraries = [path.parent for path in (places.rivals / "debian").glob("**/libowfat.so*")]
        env = {"LD_LIBRARY_PATH": str(libraries[0])} if libraries else {}
        return Start([str(self.binary(places)), "-f", str(config)], env)


def info_hashes(torrents, seed=1):
    """The info hashes of `scion-tracker bench --seed 1`, in hexadecimal (src/bench/load.rs)."""
    mask = (1 << 64) - 1

    def split_mix(number):
        x = (seed + number * 0x9E3779B97F4A7C15) & mask
        x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & mask
        x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & mask
        return x ^ (x >> 31)

    for torrent in range(torrents):
        words = [split_mix(torrent | (2 + n) << 40) for n in range(3)]
        yield "".join(f"{word:016x}" for word in words)[:40]


TRACKER = Tracker("scion-tracker")
FLOOR = Floor("scion-tracker-floor")
AQUATIC_UDP = AquaticUdp("aquatic_udp", "0.9.0")
AQUATIC_URING = AquaticUdp("aquatic_udp", "0.9.0", "uring", ("io-uring",))
AQUATIC_HTTP = AquaticHttp("aquatic_http", "0.9.0")
TORRUST = Torrust("torrust-tracker", "3.0.0")
NODE = Node()
OPENTRACKER = Opentracker()


@dataclass(frozen=True)
class Places:
    """Folders with our own binaries and with the rivals, and the commit that our own were built from."""

    own: Path
    rivals: Path
    commit: str


def head():
    """The commit of this work tree. Refuses one with changes, which nobody could find again."""
    git = ["git", "-C", str(ROOT)]
    # Results are written between rows.
    sources = ["--", ".", ":!docs/performance", ":!docs/performance.md"]
    if command(*git, "status", "--porcelain", *sources).strip():
        raise SystemExit("commit your changes first, so that the results can name what was measured")
    return named("HEAD")


def named(commit):
    """The short name of a commit of this history."""
    git = ["git", "-C", str(ROOT)]
    try:
        command(*git, "merge-base", "--is-ancestor", commit, "HEAD")
        return command(*git, "rev-parse", "--short", f"{commit}^{{commit}}").strip()
    except Unavailable:
        raise SystemExit(f"{commit} is not a commit in the history of this work tree") from None


def build():
    """Builds this tracker and the floor. Returns the folder with the binaries."""
    packages = ["-p", TRACKER.name, "-p", FLOOR.name]
    subprocess.run(["cargo", "build", "--release", *packages], cwd=ROOT, check=True)
    return target() / "release"


def target():
    """Cargo's folder for what is built."""
    metadata = ["cargo", "metadata", "--no-deps", "--format-version", "1"]
    said = subprocess.run(metadata, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return Path(json.loads(said)["target_directory"])


def provide(program, places, install):
    """Makes sure that a program is there, installing it if `install` says so."""
    if program.binary(places).exists():
        return
    if not install:
        raise Unavailable(f"not installed: there is no {program.binary(places)}")
    places.rivals.mkdir(parents=True, exist_ok=True)
    print(f"installing {program.name} into {places.rivals}", flush=True)
    program.install(places)
    if not program.binary(places).exists():
        raise Unavailable(f"installed, but there is no {program.binary(places)}")
