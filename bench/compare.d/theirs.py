"""Load programs that others wrote, as a check on our own."""

import os
import re
import subprocess
import time
from pathlib import Path

from programs import HOST, Crate, Unavailable, last_line

# They report every five seconds, so this is the shortest run.
SECONDS = 5
TICKS = os.sysconf("SC_CLK_TCK")


def cpu(process):
    """CPU seconds of a process so far: in user mode, and in the kernel."""
    # The name of the program, in parentheses, may hold anything.
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) / TICKS, int(fields[12]) / TICKS


class LoadTester(Crate):
    """A load program of aquatic."""

    def describe(self, load):
        """What is asked, in its own terms."""
        return f"{self.name} {self.number}: " + ", ".join(settings(load))

    def bench(self, server, pinned):
        """One run. Returns a report with what is kept of those of `scion-tracker bench`."""
        config = server.home / f"{self.name}.toml"
        lines = [f'server_address = "{HOST}:{server.port}"', f"duration = {SECONDS}", *settings(server.load)]
        config.write_text("\n".join(lines) + "\n")
        before, spent, begun = cpu(server.process.pid), os.times(), time.monotonic()
        argv = pinned([str(self.binary(server.places)), "-c", str(config)])
        try:
            done = subprocess.run(argv, capture_output=True, text=True, timeout=60)
        except subprocess.TimeoutExpired:
            raise Unavailable(f"{self.name} does not end") from None
        took, spent = time.monotonic() - begun, sum(os.times()[2:4]) - sum(spent[2:4])
        user, system = (then - now for then, now in zip(cpu(server.process.pid), before))
        said = re.search(r"^Average responses per second: ([\d.]+)", done.stdout, re.M)
        rate = float(said[1]) if said else 0
        if not rate:
            raise Unavailable(f"no reply: {last_line(done.stderr)}")
        # Failures are among the replies, and what is given to whom is known of UDP alone.
        failed = re.findall(r"- (?:Error|Failure) responses: +([\d.]+)", done.stdout)
        peers = re.findall(r"^Peers per announce response: ([\d.]+)", done.stdout, re.M)
        replies = rate * SECONDS
        return {
            "replies": replies,
            "failures": {"failed": float(failed[-1]) * SECONDS},
            "seconds": SECONDS,
            "replies_per_second": rate,
            "peers_per_announce": float(peers[-1]) if peers else None,
            "server": {
                "cpu_seconds": user + system,
                "user_seconds": user,
                "cpu_seconds_per_million": (user + system) / replies * 1e6,
            },
            "generator": {"busy": spent / took},
        }


def settings(load):
    return [f"{name} = {str(value).lower()}" for name, value in load.items()]


UDP_LOAD = LoadTester("aquatic_udp_load_test", "0.9.0")
HTTP_LOAD = LoadTester("aquatic_http_load_test", "0.9.0")
