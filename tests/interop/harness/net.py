"""A private switched network: the harness is the switch, every host is a network namespace.

`isolate` re-executes the caller in new network, mount and process-id namespaces, with a private /run/netns.
So no name must be unique, two runs cannot collide, and the kernel removes every namespace, address and
process when the harness ends for whatever reason.
"""

import itertools
import os
import signal
import subprocess
import sys

# Transmission uses UDP over IPv6 only from an address in 2000::/3, and avoids peers on loopback.
PREFIX4, PREFIX6 = "10.77.0.", "2001:db8:77::"
SWITCH = 254
_INSIDE = "_SCION_TRACKER_INTEROP_INSIDE"


def inside():
    """Whether this process runs inside the namespaces."""
    return os.environ.get(_INSIDE) == "1"


def isolate():
    """Returns only inside the namespaces. The outer process waits, and exits with the same status.

    When the outer process ends for whatever reason, the first inner process dies with it, and so does the
    whole process-id namespace.
    """
    if inside():
        _switch()
        return
    if os.geteuid() != 0:
        sys.exit("interop: network namespaces need root")
    os.makedirs("/run/netns", exist_ok=True)
    for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(name, lambda *_: sys.exit(1))
    tied = ["setpriv", "--pdeathsig", "KILL"]
    unshare = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    command = [*tied, *unshare, sys.executable, *sys.argv]
    with subprocess.Popen(command, env={**os.environ, _INSIDE: "1"}) as child:
        try:
            sys.exit(child.wait())
        finally:
            child.kill()


def _ip(*batches):
    lines = "\n".join(batches) + "\n"
    subprocess.run(["ip", "-batch", "-"], input=lines, text=True, check=True)


def _switch():
    subprocess.run(["mount", "-t", "tmpfs", "netns", "/run/netns"], check=True)
    _ip(
        "link set lo up",
        "link add switch type bridge forward_delay 0 mcast_snooping 0",
        "link set switch up",
        f"addr add {PREFIX4}{SWITCH}/24 dev switch",
        f"addr add {PREFIX6}{SWITCH:x}/64 dev switch nodad",
    )


def name_hosts(directory, addresses):
    """Replaces the host names of the system with names for all hosts. The mount is private."""
    path = os.path.join(directory, "hosts")
    with open(path, "w") as file:
        # With the name of this machine: without it, a client that looks it up waits for a name server.
        file.write(f"127.0.0.1 localhost {os.uname().nodename}\n::1 localhost\n")
        file.writelines(f"{address} {name}\n" for name, address in addresses.items())
    subprocess.run(["mount", "--bind", path, "/etc/hosts"], check=True)


class Host:
    """A namespace with an IPv4 and an IPv6 address on the switch."""

    _numbers = itertools.count(1)

    def __init__(self, label):
        number = next(Host._numbers)
        if number >= SWITCH:
            raise RuntimeError("the network is full: give fewer cases their own hosts")
        self.name = f"h{number}-{label}"
        self.ip4, self.ip6 = f"{PREFIX4}{number}", f"{PREFIX6}{number:x}"
        port = f"port{number}"
        _ip(
            f"netns add {self.name}",
            f"link add {port} type veth peer name eth0 netns {self.name}",
            f"link set {port} master switch up",
        )
        inside = [
            "link set lo up",
            "link set eth0 up",
            f"addr add {self.ip4}/24 dev eth0",
            f"addr add {self.ip6}/64 dev eth0 nodad",
            f"route add default via {PREFIX4}{SWITCH}",
            f"route add ::/0 via {PREFIX6}{SWITCH:x}",
        ]
        subprocess.run(
            ["ip", "-n", self.name, "-batch", "-"],
            input="\n".join(inside) + "\n", text=True, check=True,
        )

    def argv(self, argv):
        """The command line that runs `argv` on this host."""
        return ["ip", "netns", "exec", self.name, *map(str, argv)]

    def address(self, family):
        """The address in the form of a URL."""
        return self.ip4 if family == 4 else f"[{self.ip6}]"

    def remove(self):
        """Removes the namespace. Its number is not reused, so that late packets reach no one."""
        subprocess.run(["ip", "netns", "del", self.name], check=False)
