"""Containers of systemd-nspawn, in a network of their own. What is written in a tree is dropped at the end."""

import contextlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time

from debian import TOP

HASH = "0123456789abcdef0123456789abcdef01234567"
UNIT = "scion-tracker.service"

# Boots a tree, and again after each reboot (133), with what was written before it. The mounts end with the shell.
BOOTS = """
set -e
mount -t tmpfs tmpfs "$1"
mkdir "$1/upper" "$1/work" "$1/tree"
mount -t overlay overlay -o "lowerdir=$2,upperdir=$1/upper,workdir=$1/work" "$1/tree"
shift 2
while :; do
    status=0
    "$@" || status=$?
    [ "$status" = 133 ] || exit "$status"
done
"""


def nspawn(directory, *more):
    return [
        "systemd-nspawn", "--quiet", "--register=no", "--keep-unit", "--private-network",
        "--console=pipe", f"--directory={directory}", f"--bind-ro={TOP / 'dist'}:/dist", *more,
    ]  # fmt: skip


def _children(pid):
    with contextlib.suppress(OSError):
        return pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return []


def _name(pid):
    with contextlib.suppress(OSError):
        return pathlib.Path(f"/proc/{pid}/comm").read_text().strip()
    return ""


class Machine:
    """A container with systemd as process 1."""

    def __init__(self, tree):
        self.directory = tempfile.TemporaryDirectory()
        top = self.directory.name
        boots = ["sh", "-c", BOOTS, "sh", top, tree, *nspawn(f"{top}/tree", "--boot")]
        self.host = subprocess.Popen(
            ["unshare", "--mount", *map(str, boots)],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip
        self.leader = None

    def boot(self, seconds=60):
        before = self.leader
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if self.host.poll() is not None:
                raise OSError(self.host.stderr.read().decode(errors="replace").strip())
            leaders = [
                leader
                for program in _children(self.host.pid)
                if _name(program) == "systemd-nspawn"
                for leader in _children(program)
            ]
            if leaders and leaders[0] != before:
                self.leader = leaders[0]
                if self.try_("systemctl", "is-system-running").stdout.strip() in ("running", "degraded"):
                    return
            time.sleep(0.2)
        raise OSError(f"systemd is not up within {seconds} s")

    def reboot(self):
        self.try_("systemctl", "reboot")
        self.boot()

    def try_(self, *argv):
        command = ["nsenter", "-t", self.leader, "-a", *map(str, argv)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    def __call__(self, *argv):
        done = self.try_(*argv)
        if done.returncode != 0:
            sys.exit(f"package: {' '.join(map(str, argv))}: {done.stdout}{done.stderr}")
        return done.stdout.strip()

    def sh(self, script):
        return self("sh", "-c", script)

    def path(self, inside):
        """The path outside of a file of the container."""
        return pathlib.Path(f"/proc/{self.leader}/root{inside}")

    def stop(self):
        if self.leader and self.host.poll() is None:
            self.try_("systemctl", "poweroff")
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.host.wait(20)
        if self.host.poll() is None:
            os.killpg(self.host.pid, signal.SIGKILL)
            self.host.wait()
        self.directory.cleanup()

    def show(self, name, unit=UNIT):
        return self("systemctl", "show", "--value", "-p", name, unit)

    def announce(self, url, port, *more):
        args = ["announce", url, "--info-hash", HASH, "--port", port, "--json", *more]
        if not url.startswith(("udp", "http:")):
            args.append("--insecure")
        return self.try_("scion-tracker", *args).returncode == 0

    def peers(self, url):
        """How many peers the swarm has."""
        (torrent,) = json.loads(self("scion-tracker", "scrape", url, "--info-hash", HASH, "--json"))
        return torrent["complete"] + torrent["incomplete"]

    def journal(self):
        """The lines of the tracker since its last start, as objects."""
        start = self.show("InvocationID")
        self("journalctl", "--sync")
        lines = self("journalctl", "-o", "json", f"_SYSTEMD_INVOCATION_ID={start}") if start else ""
        return [json.loads(line) for line in lines.splitlines() if line.startswith("{")]

    def await_line(self, part, seconds=20):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for line in self.journal():
                if part in line.get("MESSAGE", ""):
                    return line
            time.sleep(0.2)
        return None
