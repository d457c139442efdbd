"""A SCION network of scionproto's own programs, one network namespace for each host.

    1-ff00:0:110 (core, IPv4)     two links to each of the others: one of 1472 bytes over IPv4,
    1-ff00:0:111 (child, IPv4)    and one of 1280 bytes, the least that SCION allows, over IPv6
    2-ff00:0:210 (core, IPv6)

Each AS has two border routers, one for each kind of link, a control service, and hosts with a daemon each.
"""

import base64
import json
import os
import shutil
import subprocess

from harness.process import Failed, Process, output_of, wait_for

HERE = os.path.dirname(os.path.abspath(__file__))
DAEMON = "127.0.0.1:30255"
PORTS = "31000-32767"
# A packet of 1280 bytes with the headers of UDP and IPv6.
NARROW = 1280 + 8 + 40
# Seconds until a program listens, or the control services have found paths.
PATIENCE = 60

# Name of the AS, ISD-AS, whether it is in the core, and the beginning of its addresses.
ASES = [
    ("a", "1-ff00:0:110", True, "10.1.0."),
    ("b", "1-ff00:0:111", False, "10.2.0."),
    ("c", "2-ff00:0:210", True, "fd00:3::"),
]
# The two ends: AS, router, interface, the link as this end calls it.
WIDE, THIN = 0, 1
LINKS = {
    "ab-wide": (("a", 1, 1, "child"), ("b", 1, 1, "parent"), WIDE),
    "ab-thin": (("a", 2, 2, "child"), ("b", 2, 2, "parent"), THIN),
    "ac-wide": (("a", 1, 3, "core"), ("c", 1, 1, "core"), WIDE),
    "ac-thin": (("a", 2, 4, "core"), ("c", 2, 2, "core"), THIN),
}


def ip(*lines, host=None):
    """Runs commands of `ip`, in the namespace of a host or in that of this process."""
    where = ["-n", host] if host else []
    done = subprocess.run(
        ["ip", *where, "-batch", "-"], input="\n".join(lines) + "\n", text=True, capture_output=True, check=False
    )
    if done.returncode != 0:
        raise Failed(f"ip: {done.stderr}")


def url_host(address):
    return f"[{address}]" if ":" in address else address


class Host:
    """A namespace with one address on the switch of its AS."""

    def __init__(self, system, name, number):
        self.system, self.name = system, f"{system.name}-{name}"
        self.address = f"{system.prefix}{number}"
        length = 64 if ":" in self.address else 24
        port = f"{self.name}-up"
        ip(
            f"netns add {self.name}",
            f"link add {port} type veth peer name eth0 netns {self.name}",
            f"link set {port} master switch-{system.name} up",
        )
        nodad = " nodad" if length == 64 else ""
        ip("link set lo up", "link set eth0 up", f"addr add {self.address}/{length} dev eth0{nodad}", host=self.name)

    def argv(self, argv):
        return ["ip", "netns", "exec", self.name, *map(str, argv)]

    def at(self, port):
        return f"{url_host(self.address)}:{port}"


class System:
    """An AS: its topology file, its routers, its control service, and what else is in it."""

    def __init__(self, network, name, isd_as, core, prefix):
        self.network, self.name, self.isd_as, self.core, self.prefix = network, name, isd_as, core, prefix
        self.directory = os.path.join(network.directory, "gen", "AS" + isd_as.split("-")[1].replace(":", "_"))
        ip(f"link add switch-{name} type bridge forward_delay 0 mcast_snooping 0", f"link set switch-{name} up")
        self.hosts = {}
        self.programs = {}
        for number, host in enumerate(["br1", "br2", "cs", "tracker", "host"], 1):
            self.hosts[host] = Host(self, host, number)

    def __getitem__(self, name):
        return self.hosts[name]

    def topology(self):
        """topology.json, as scionproto's generator writes it."""
        service = {f"cs{self.isd_as}-1": {"addr": self["cs"].at(31001)}}
        routers = {}
        for link, (one, other, kind) in LINKS.items():
            for (system, router, interface, relation), (remote, *_) in ((one, other), (other, one)):
                if system != self.name:
                    continue
                entry = routers.setdefault(
                    f"br{self.isd_as}-{router}", {"internal_addr": self[f"br{router}"].at(31002), "interfaces": {}}
                )
                local, far = self.network.ends(link, system)
                entry["interfaces"][str(interface)] = {
                    "underlay": {"local": f"{url_host(local)}:50000", "remote": f"{url_host(far)}:50000"},
                    "isd_as": self.network.systems[remote].isd_as,
                    "link_to": {"parent": "parent", "child": "child", "core": "core"}[relation],
                    "mtu": 1280 if kind == THIN else 1472,
                }
        return {
            "attributes": ["core"] if self.core else [],
            "isd_as": self.isd_as,
            "mtu": 1472,
            "test_dispatcher": False,
            "dispatched_ports": PORTS,
            "control_service": service,
            "discovery_service": service,
            "border_routers": routers,
        }

    @property
    def topology_file(self):
        return os.path.join(self.directory, "topology.json")

    def write(self):
        with open(self.topology_file, "w") as file:
            json.dump(self.topology(), file, indent=2)
        for number in (0, 1):
            with open(os.path.join(self.directory, "keys", f"master{number}.key"), "wb") as file:
                file.write(base64.b64encode(os.urandom(16)))
        for isd in (1, 2):
            shutil.copy(os.path.join(self.network.directory, f"gen/trcs/ISD{isd}-B1-S1.trc"), f"{self.directory}/certs")

    def start(self):
        for number in (1, 2):
            self.start_program(f"br{number}", "router")
        extra = "".join(
            f'[{name}_db]\nconnection = "{self.database("cs", name)}"\n' for name in ("trust", "beacon", "path")
        )
        every = "".join(f'{it}_interval = "1s"\n' for it in ("origination", "propagation", "registration"))
        self.start_program("cs", "control", f"{extra}[beaconing]\n{every}")
        for host in ("tracker", "host"):
            self.start_daemon(host)

    def database(self, host, name):
        return os.path.join(self.network.directory, f"{self.name}-{host}.{name}.db")

    def start_daemon(self, host):
        extra = "".join(f'[{name}_db]\nconnection = "{self.database(host, name)}"\n' for name in ("trust", "path"))
        self.start_program(host, "daemon", f'{extra}[sd]\naddress = "{DAEMON}"\n')

    def start_dispatcher(self, host, forwarding):
        settings = f"[dispatcher]\nid = \"dispatcher\"\nlocal_udp_forwarding = {'true' if forwarding else 'false'}\n"
        self.start_program(host, "dispatcher", settings, general=False)

    def start_program(self, host, program, more="", general=True):
        """Starts a program of scionproto on a host. A second start has the settings of the first."""
        name = f"{self.name}-{host}-{program}"
        file = os.path.join(self.network.directory, f"{name}.toml")
        # The names that these have in the topology file.
        identities = {"router": f"br{self.isd_as}-{host[-1]}", "control": f"cs{self.isd_as}-1"}
        identity = identities.get(program, name)
        head = f'[general]\nid = "{identity}"\nconfig_dir = "{self.directory}"\n' if general else ""
        with open(file, "w") as out:
            out.write(f'{head}{more}[log.console]\nlevel = "info"\n')
        log = os.path.join(self.network.directory, f"{name}.log")
        argv = [os.path.join(self.network.programs, program), "--config", file]
        self.programs[host, program] = Process(self[host], argv, log)
        return self.programs[host, program]

    def stop_program(self, host, program):
        self.programs.pop((host, program)).stop()


class Network:
    """All ASes. `directory` gets settings, keys, certificates and logs; `programs` has scionproto's programs."""

    def __init__(self, directory, programs):
        self.directory, self.programs = directory, programs
        self._certify()
        self.systems = {}
        for row in ASES:
            self.systems[row[0]] = System(self, *row)
        for name in LINKS:
            self._link(name)
        for system in self.systems.values():
            system.write()
            system.start()

    def __getitem__(self, name):
        return self.systems[name]

    def _certify(self):
        """TRCs and certificates of all ASes."""
        lines = ["---", "ASes:"]
        for _, isd_as, core, _ in ASES:
            issuer = "core: true, voting: true, authoritative: true, issuing: true"
            lines.append(f'  "{isd_as}": {{{issuer if core else "cert_issuer: " + ASES[0][1]}}}')
        file = os.path.join(self.directory, "ases.topo")
        with open(file, "w") as out:
            out.write("\n".join(lines) + "\n")
        argv = [os.path.join(self.programs, "scion-pki"), "testcrypto", "-t", file, "-o", f"{self.directory}/gen"]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise Failed(f"scion-pki: {done.stdout}{done.stderr}")

    def ends(self, link, system):
        """The addresses of a link: at this AS, and at the other one."""
        number = list(LINKS).index(link)
        one, _, kind = LINKS[link]
        prefix = f"fd00:99:{number}::" if kind == THIN else f"10.99.{number}."
        return (f"{prefix}1", f"{prefix}2") if one[0] == system else (f"{prefix}2", f"{prefix}1")

    def _link(self, name):
        one, other, kind = LINKS[name]
        here, there = (self.systems[it[0]][f"br{it[1]}"].name for it in (one, other))
        ip(f"link add {name} netns {here} type veth peer name {name} netns {there}")
        mtu, length = (NARROW, "64 nodad") if kind == THIN else (1500, "24")
        for host, system in ((here, one[0]), (there, other[0])):
            local, _ = self.ends(name, system)
            address, _, more = f"{local}/{length}".partition(" ")
            ip(f"link set {name} mtu {mtu} up", f"addr add {address} dev {name} {more}", host=host)

    def cut(self, name):
        """Takes a link down at its first end. The routers have to notice it by themselves."""
        one, _, _ = LINKS[name]
        ip(f"link set {name} down", host=self.systems[one[0]][f"br{one[1]}"].name)

    def mend(self, name):
        one, _, kind = LINKS[name]
        local, _ = self.ends(name, one[0])
        lines = [f"link set {name} up"]
        if kind == THIN:
            # Linux drops the IPv6 addresses of an interface that goes down.
            lines.append(f"addr replace {local}/64 dev {name} nodad")
        ip(*lines, host=self.systems[one[0]][f"br{one[1]}"].name)

    def narrow(self, narrow):
        """Gives all hosts and switches links that hold SCION packets of 1280 bytes and no more, or ordinary ones."""
        for system in self.systems.values():
            mtu = 1500 if not narrow else NARROW if ":" in system.prefix else NARROW - 20
            for host in system.hosts.values():
                ip(f"link set {host.name}-up mtu {mtu}")
                ip(f"link set eth0 mtu {mtu}", host=host.name)

    def paths(self, host, to, probe=True):
        """The paths from a host to an AS that `scion showpaths` finds. Only those that work with `probe`."""
        argv = [os.path.join(self.programs, "scion"), "showpaths", to.isd_as, "--sciond", DAEMON, "--format", "json", "--refresh"]
        try:
            found = json.loads(output_of(host, argv + ([] if probe else ["--no-probe"]), 30))
        except Failed:
            # It fails if no path works.
            return []
        return [path for path in found.get("paths") or [] if not probe or path["status"] == "alive"]

    def wait_for_paths(self, host, to, count, patience=PATIENCE):
        return wait_for(
            f"{count} paths from {host.name} to {to.isd_as}",
            lambda: (lambda found: len(found) == count and found)(self.paths(host, to)),
            patience,
            [it for system in self.systems.values() for it in system.programs.values()],
        )

    def ping(self, host, to, count=3):
        """Sends `scion ping` to a host. Returns how many of the requests were answered."""
        remote = f"{to.system.isd_as},{to.address}"
        argv = [os.path.join(self.programs, "scion"), "ping", remote, "--sciond", DAEMON, "-c", count, "--interval", "100ms", "--format", "json"]
        done = subprocess.run(host.argv(argv), capture_output=True, text=True, timeout=60, check=False)
        try:
            return json.loads(done.stdout)["statistics"]["received"]
        except (ValueError, KeyError):
            raise Failed(f"scion ping {remote} from {host.name}: {done.stdout}{done.stderr}") from None

    def dead(self):
        """The programs that ended by themselves."""
        every = ((system, key, it) for system in self.systems.values() for key, it in system.programs.items())
        return [f"{system.name} {' '.join(key)}: status {it.status()}" for system, key, it in every if it.status() is not None]

    def stop(self):
        for system in self.systems.values():
            for it in system.programs.values():
                it.stop()
