"""Child processes, each with a log, and waiting with a deadline."""

import os
import signal
import subprocess
import time


class Failed(Exception):
    """A case failed. The text says what was expected."""


class Skipped(Exception):
    """A case cannot run here. The text says why; `allowed` says whether CI may accept that."""

    def __init__(self, reason, allowed):
        super().__init__(reason)
        self.allowed = allowed


def _environment(more=None):
    """The environment of a child: only PATH of the caller, without its proxies, authorities and options."""
    return {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", **(more or {})}


class Process:
    """A command on a host. stderr goes to the log file, and so does stdout unless it has its own."""

    def __init__(self, host, argv, log, stdout=None, cwd=None, env=None):
        self.log = log
        with open(log, "ab") as errors, open(stdout or log, "ab") as output:
            self._child = subprocess.Popen(
                host.argv(argv), stdin=subprocess.DEVNULL, stdout=output, stderr=errors,
                cwd=cwd, env=_environment(env), start_new_session=True,
            )

    def status(self):
        """The exit status; None while it runs."""
        return self._child.poll()

    def listens(self, port):
        """Whether a TCP socket on the host of this process accepts connections to this port."""
        return any(local.endswith(f":{port:04X}") for local, _ in self.sockets(listening=True))

    def sockets(self, listening=False):
        """(local, remote) of the TCP sockets on the host of this process, as /proc/net/tcp writes addresses."""
        found = []
        for table in ("tcp", "tcp6"):
            try:
                with open(f"/proc/{self._child.pid}/net/{table}") as file:
                    lines = file.readlines()[1:]
            except OSError:
                continue
            for line in lines:
                _, local, remote, state = line.split()[:4]
                if (state == "0A") == listening:
                    found.append((local, remote))
        return found

    def output(self):
        with open(self.log, encoding="utf-8", errors="replace") as log:
            return log.read()

    def signal(self, which):
        if self.status() is None:
            self._child.send_signal(which)

    def stop(self, patience=10):
        """Sends SIGTERM, then SIGKILL. Returns the seconds until the end, or None if SIGKILL was needed."""
        began = time.monotonic()
        self.signal(signal.SIGTERM)
        try:
            self._child.wait(patience)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()
            return None
        return time.monotonic() - began


def output_of(host, argv, deadline):
    """Runs a command on a host to its end. Returns its stdout."""
    try:
        done = subprocess.run(
            host.argv(argv), stdin=subprocess.DEVNULL, capture_output=True, text=True,
            timeout=deadline, env=_environment(),
        )
    except subprocess.TimeoutExpired:
        raise Failed(f"{argv[1]}: not over within {deadline} s") from None
    if done.returncode != 0:
        raise Failed(f"{argv[1]}: status {done.returncode}\n{done.stderr[-2000:]}")
    return done.stdout


def wait_for(what, probe, deadline, alive=()):
    """Polls `probe` until it is truthy and returns its value. Fails after the deadline or if a process died."""
    end = time.monotonic() + deadline
    while True:
        found = probe()
        if found:
            return found
        for process in alive:
            if process.status() not in (None, 0):
                raise Failed(f"{what}: a process ended with status {process.status()}")
        if time.monotonic() > end:
            raise Failed(f"{what}: not within {deadline} s")
        time.sleep(0.05)
