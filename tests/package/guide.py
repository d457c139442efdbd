"""Follows scion/scionlab/README.md on a host with the daemon and the dispatcher of scionproto, as their units run them."""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

from debian import BUILT, TOP, run
from machine import UNIT

# tests/scionproto/run builds them.
PROGRAMS = pathlib.Path(os.environ.get("PROGRAMS", BUILT.parent / "scionproto")).absolute()
URL = "udp://[1-ff00:0:111,127.0.0.1]:31969/announce"
OVERRIDE = "/etc/systemd/system/scion-tracker.service.d/override.conf"
# An AS on one host. No router runs: the packets of this test stay on the host.
TOPOLOGY = {
    "attributes": [],
    "isd_as": "1-ff00:0:111",
    "mtu": 1472,
    "dispatched_ports": "31000-32767",
    "control_service": {"cs1": {"addr": "127.0.0.1:31001"}},
    "discovery_service": {"cs1": {"addr": "127.0.0.1:31001"}},
    "border_routers": {
        "br1": {
            "internal_addr": "127.0.0.1:31002",
            "interfaces": {
                "1": {
                    "underlay": {"local": "127.0.0.1:50000", "remote": "127.0.0.2:50000"},
                    "isd_as": "1-ff00:0:110",
                    "link_to": "parent",
                    "mtu": 1472,
                }
            },
        }
    },
}


# The ISD of this AS, for scion-pki.
ISD = """
ASes:
  "1-ff00:0:110": {core: true, voting: true, authoritative: true, issuing: true}
  "1-ff00:0:111": {cert_issuer: "1-ff00:0:110"}
"""


class Missing(Exception):
    """The programs or units of scionproto are not here, and why."""


def _module():
    """The folder of scionproto's module, in the version that tests/scionproto/run builds."""
    if not shutil.which("go"):
        raise Missing("there is no go")
    done = subprocess.run(
        ["go", "list", "-m", "-f", "{{.Dir}}", "github.com/scionproto/scion"],
        cwd=TOP / "tests/scionproto/programs", capture_output=True, text=True, check=False,
        env={**os.environ, "GOTOOLCHAIN": "local", "GOWORK": "off", "GOFLAGS": "-mod=readonly"},
    )  # fmt: skip
    if done.returncode != 0 or not done.stdout.strip():
        raise Missing(f"the module of scionproto is not here: {done.stderr.strip()}")
    return pathlib.Path(done.stdout.strip())


def install(machine):
    """What scionproto's packages scion-daemon and scion-dispatcher install, and the files of the AS."""
    dist = _module() / "dist"
    for name in ("daemon", "dispatcher", "scion-pki"):
        if not (PROGRAMS / name).exists():
            raise Missing(f"{PROGRAMS / name} is missing: run tests/scionproto/run first")
    machine.sh("useradd --system --user-group --home-dir /var/lib/scion --create-home scion; mkdir -p /etc/scion/certs")
    for name in ("daemon", "dispatcher"):
        for source, target, mode in (
            (PROGRAMS / name, f"/usr/bin/scion-{name}", 0o755),
            (dist / f"systemd/scion-{name}.service", f"/lib/systemd/system/scion-{name}.service", 0o644),
            (dist / f"conffiles/{name}.toml", f"/etc/scion/{name}.toml", 0o644),
        ):
            shutil.copyfile(source, machine.path(target))
            machine.path(target).chmod(mode)
    machine.path("/etc/scion/topology.json").write_text(json.dumps(TOPOLOGY))
    with tempfile.TemporaryDirectory() as directory:
        made = pathlib.Path(directory)
        (made / "ases").write_text(ISD)
        run(PROGRAMS / "scion-pki", "testcrypto", "-t", made / "ases", "-o", made / "gen", stdout=subprocess.DEVNULL)
        # Without a TRC the daemon does not answer which AS it is in.
        shutil.copy(made / "gen/trcs/ISD1-B1-S1.trc", machine.path("/etc/scion/certs"))
    machine("systemctl", "daemon-reload")
    machine("systemctl", "enable", "--now", "scion-daemon")
    # Their units do not say when they listen.
    _await_port(machine, "udp6", 30041)
    _await_port(machine, "tcp", 30255)


def follow(machine, checks):
    machine.sh("""
        mkdir -p /etc/systemd/system/scion-tracker.service.d
        cp /usr/share/doc/scion-tracker/examples/scion.conf /etc/systemd/system/scion-tracker.service.d/10-scion.conf
        systemctl daemon-reload
        systemctl enable scion-tracker
        systemctl restart scion-tracker
    """)
    port = "receiving on UDP port 30041"
    checks("the tracker leaves the dispatcher its port", machine.await_line(f"not {port}") is not None, machine.journal())
    checks("it answers over SCION", _answers(machine, 31001))
    machine("systemctl", "disable", "--now", "scion-dispatcher")
    _restart(machine, "scion-daemon")
    checks("the daemon starts a dispatcher that is only disabled", _state(machine, "scion-dispatcher") == "active")

    machine("systemctl", "mask", "--now", "scion-dispatcher")
    machine("systemctl", "restart", UNIT)
    _without_dispatcher(machine, checks, "with the mask")
    _restart(machine, "scion-daemon")
    states = _state(machine, "scion-daemon"), _state(machine, "scion-dispatcher")
    checks("the daemon starts, without the dispatcher", states == ("active", "inactive"), states)

    peers = _peers(machine)
    machine.reboot()
    _without_dispatcher(machine, checks, "after a reboot")
    states = _state(machine, "scion-daemon"), _state(machine, "scion-dispatcher")
    checks("after a reboot the daemon is there, without the dispatcher", states == ("active", "inactive"), states)
    checks(f"after a reboot the swarm has its {peers} peers", peers > 0 and _peers(machine) == peers, _peers(machine))

    machine.path(OVERRIDE).write_text(
        "[Service]\nEnvironment=SCION_TRACKER_SCION_DAEMON=127.0.0.1:30255\nEnvironment=SCION_TRACKER_SCION_TOPOLOGY=\n"
    )
    machine("systemctl", "daemon-reload")
    _await_port(machine, "tcp", 30255)
    machine("systemctl", "restart", UNIT)
    pid = machine.show("MainPID")
    names = machine.path(f"/proc/{pid}/environ").read_text().split("\0")
    given = "SCION_TRACKER_SCION_TOPOLOGY=" in names and "SCION_TRACKER_SCION_DAEMON=127.0.0.1:30255" in names
    checks("override.conf comes after 10-scion.conf", given, names)
    checks("the daemon tells it its AS", _answers(machine, 31003), machine.journal())


def end(machine):
    machine.sh("""
        systemctl disable --now scion-daemon
        systemctl unmask scion-dispatcher
        rm -rf /etc/systemd/system/scion-tracker.service.d
        systemctl daemon-reload
    """)


def _restart(machine, unit):
    # These units may start only once per second. This forgets the last start.
    machine.try_("systemctl", "reset-failed", unit, "scion-dispatcher")
    machine("systemctl", "restart", unit)


def _await_port(machine, table, port, seconds=30):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        sockets = machine("cat", f"/proc/net/{table}").splitlines()[1:]
        if any(line.split()[1].endswith(f":{port:04X}") for line in sockets):
            return
        time.sleep(0.1)
    sys.exit(f"package: nothing listens on port {port} ({table}) within {seconds} s")


def _state(machine, unit):
    return machine.try_("systemctl", "is-active", unit).stdout.strip()


def _without_dispatcher(machine, checks, when):
    line = machine.await_line("receiving on UDP port 30041") or {}
    checks(f"{when} the tracker has port 30041", line.get("MESSAGE", "").startswith("also "), line)
    checks(f"{when} it answers over SCION", _answers(machine, 31002))


def _answers(machine, port):
    return machine.announce(URL, port, "--scion-local", "1-ff00:0:111,[127.0.0.1]")


def _peers(machine):
    return machine.peers("udp://127.0.0.1:6969/announce")
