"""Installs the real clients with the system's package managers, into a cache next to the build."""

import hashlib
import json
import os
import shutil
import subprocess
import sys

HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
# Command that shows that it is installed -> Debian package that contains it.
DEBIAN = {
    "aria2c": "aria2",
    "deluged": "deluged",
    "haproxy": "haproxy",
    "ip": "iproute2",
    "nginx": "libnginx-mod-stream",
    "node": "nodejs",
    "npm": "npm",
    "qbittorrent-nox": "qbittorrent-nox",
    "rtorrent": "rtorrent",
    "transmission-daemon": "transmission-daemon",
    "transmission-remote": "transmission-cli",
    "varnishd": "varnish",
}

_FOUND = "_SCION_TRACKER_INTEROP_MISSING"


class Tools:
    """The installed clients, and those that are missing (`missing`: client -> reason)."""

    def __init__(self, cache):
        self.missing = {}
        self.python = os.path.join(cache, "venv", "bin", "python")
        # Has wheels for x86-64 alone, so it has a venv of its own and can be missing alone.
        self.rqbit_python = os.path.join(cache, "rqbit", "bin", "python")
        self.node = "node"
        self.node_modules = os.path.join(cache, "node", "node_modules")

    @staticmethod
    def peer_script(name):
        return os.path.join(HERE, "peers", name)


def install(cache):
    """Installs the clients. Idempotent. Failures are printed to stderr and recorded in `missing`.

    Call it outside the namespaces, where there is Internet access, and again inside them, where it returns
    the result of the first call.
    """
    tools = Tools(cache)
    if _FOUND in os.environ:
        tools.missing = json.loads(os.environ[_FOUND])
        return tools
    os.makedirs(cache, exist_ok=True)
    _debian(tools)
    _once(tools, cache, "venv", ["requirements.txt"], _venv("requirements.txt"), ("libtorrent", "aioquic", "niquests"))
    _once(tools, cache, "rqbit", ["rqbit.txt"], _venv("rqbit.txt"), ("rqbit",))
    _once(tools, cache, "node", ["package.json", "package-lock.json"], _npm, ("webtorrent",))
    os.environ[_FOUND] = json.dumps(tools.missing)
    return tools


def _debian(tools):
    wanted = [package for command, package in DEBIAN.items() if not shutil.which(command)]
    if wanted and shutil.which("apt-get"):
        env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        subprocess.run(["apt-get", "-q", "update"], stdout=sys.stderr, env=env, check=False)
        for package in wanted:
            command = ["apt-get", "-qy", "install", "--no-install-recommends", package]
            subprocess.run(command, stdout=sys.stderr, env=env, check=False)
    for command, client in [
        ("aria2c", "aria2"),
        ("deluged", "deluge"),
        ("haproxy", "haproxy"), ("nginx", "nginx"), ("varnishd", "varnish"),
        ("qbittorrent-nox", "qbittorrent"), ("rtorrent", "rtorrent"),
        ("transmission-daemon", "transmission"), ("transmission-remote", "transmission"),
        ("node", "webtorrent"), ("npm", "webtorrent"),
    ]:
        if not shutil.which(command):
            _missing(tools, client, f"no {command}: apt-get could not bring it")


def _once(tools, cache, name, inputs, build, clients):
    """Builds `cache/name` again if one of its inputs has changed."""
    digest = hashlib.sha256()
    for path in inputs:
        with open(os.path.join(HERE, path), "rb") as file:
            digest.update(file.read())
    target, stamp = os.path.join(cache, name), os.path.join(cache, f"{name}.stamp")
    if os.path.exists(stamp) and open(stamp).read() == digest.hexdigest():
        return
    shutil.rmtree(target, ignore_errors=True)
    try:
        build(target)
    except (OSError, subprocess.CalledProcessError) as error:
        for client in clients:
            _missing(tools, client, str(error))
        return
    with open(stamp, "w") as file:
        file.write(digest.hexdigest())


def _venv(requirements):
    def build(target):
        subprocess.run([sys.executable, "-m", "venv", target], stdout=sys.stderr, check=True)
        # Wheels alone: to build one of these takes minutes.
        pip = [os.path.join(target, "bin", "pip"), "install", "-q", "--only-binary", ":all:", "-r"]
        subprocess.run([*pip, os.path.join(HERE, requirements)], stdout=sys.stderr, check=True)
    return build


def _npm(target):
    os.makedirs(target)
    for name in ("package.json", "package-lock.json"):
        shutil.copy(os.path.join(HERE, name), target)
    # Without install scripts: the prebuilt WebRTC binary is a normal optional dependency.
    command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
    subprocess.run(command, cwd=target, stdout=sys.stderr, check=True)


def _missing(tools, client, reason):
    tools.missing[client] = reason
    print(f"interop: NOT INSTALLED: {client}: {reason}", file=sys.stderr, flush=True)
