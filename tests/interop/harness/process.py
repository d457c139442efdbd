"""Child processes with a log each, and waiting with a deadline."""

import os
import signal
import subprocess
import time


class Failed(Exception):
    """A case failed; the text says what was expected."""


class Process:
    """A command on a host; stdout and stderr go to one log file."""

    def __init__(self, host, argv, log, cwd=None, env=None):
        self.log = log
        with open(log, "ab") as sink:
            self._child = subprocess.Popen(
                host.argv(argv), stdin=subprocess.DEVNULL, stdout=sink, stderr=sink,
                cwd=cwd, env={**os.environ, **(env or {})}, start_new_session=True,
            )

    def status(self):
        """None while it runs."""
        return self._child.poll()

    def output(self):
        with open(self.log, errors="replace") as log:
            return log.read()

    def signal(self, which):
        if self.status() is None:
            self._child.send_signal(which)

    def stop(self, patience=10):
        """SIGTERM, then SIGKILL. Seconds it took, or None when it had to be killed."""
        began = time.monotonic()
        self.signal(signal.SIGTERM)
        try:
            self._child.wait(patience)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()
            return None
        return time.monotonic() - began


def wait_for(what, probe, deadline, alive=()):
    """Polls `probe` until it is truthy and returns that; fails when time is up or a process died."""
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
