"""Images, and a container engine of the test's own, for tests/compose/run and tests/compose/examples.

The engine is Debian's dockerd. It runs in a network and a mount namespace of its own: containers on "the network of
the host" then use ports of that namespace, and nothing of the engine stays on the machine. It cannot pull images.
"""

import contextlib
import os
import pathlib
import re
import shutil
import subprocess
import tempfile
import time

TOP = pathlib.Path(__file__).resolve().parents[2]
# The licences and binaries of an image, in seconds.
BUILD = 120
# Debian's packages that have the commands.
TOOLS = {"dockerd": "docker.io", "docker-compose": "docker-compose", "ip": "iproute2", "curl": "curl", "debootstrap": "debootstrap", "caddy": "caddy"}
# The network of its own has loopback only, and no trace of a key is left in /etc.
START = """
    ip link set lo up
    mkdir -p /etc/docker && mount -t tmpfs tmpfs /etc/docker
    exec dockerd --data-root "$1/data" --exec-root "$1/run" --pidfile "$1/pid" --host "unix://$1/socket" \
        --exec-opt native.cgroupdriver=cgroupfs --cgroup-parent "$2"
"""


class NoEngine(Exception):
    """Says why no engine can run here."""


def works(*argv, env=None):
    try:
        return subprocess.run(argv, capture_output=True, timeout=30, check=False, env=env).returncode == 0
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return False


def find_compose():
    """The command line of compose, version 2 or 1."""
    for argv in (["docker", "compose"], ["docker-compose"]):
        if works(*argv, "version"):
            return argv
    return None


def install(*tools):
    """Installs what is missing. Raises NoEngine where that is not possible."""
    missing = [TOOLS[tool] for tool in tools if not shutil.which(tool)]
    if not missing:
        return
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise NoEngine(f"not installed: {' '.join(missing)}")
    for argv in (["update"], ["install", "-y", "--no-install-recommends", *missing]):
        done = subprocess.run(["apt-get", *argv], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise NoEngine(f"apt-get {argv[0]}: {done.stderr.strip().splitlines()[-1:]}")


class Engine:
    """A dockerd that belongs to this process. `stop` removes it with all that it has made."""

    def __init__(self):
        if os.geteuid() != 0:
            raise NoEngine("an engine of the test's own needs root")
        install("dockerd", "docker-compose", "ip")
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="scion-tracker-engine-"))
        self.group = self.directory.name
        self.env = {**os.environ, "DOCKER_HOST": f"unix://{self.directory}/socket"}
        self.log = (self.directory / "log").open("w")
        argv = ["unshare", "--net", "--mount", "--propagation", "private", "sh", "-ec", START, "sh"]
        self.process = subprocess.Popen(
            [*argv, self.directory, self.group], stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log,
            start_new_session=True,
        )  # fmt: skip
        end = time.monotonic() + 60
        while not works("docker", "version", env=self.env):
            if self.process.poll() is not None or time.monotonic() > end:
                why = (self.directory / "log").read_text().strip().splitlines()[-1:]
                self.stop()
                raise NoEngine(f"dockerd does not start: {why}")
            time.sleep(0.2)

    def inside(self, *argv, **more):
        """Runs a command in the network of the engine."""
        argv = ["nsenter", "-t", self.process.pid, "-n", *argv]
        return subprocess.run([str(arg) for arg in argv], capture_output=True, text=True, check=False, env=self.env, **more)

    def docker(self, *argv, **more):
        return subprocess.run(["docker", *map(str, argv)], text=True, env=self.env, **{"check": True, **more})

    def stop(self):
        if self.process.poll() is None:
            with contextlib.suppress(OSError, subprocess.SubprocessError):
                names = self.docker("ps", "-aq", stdout=subprocess.PIPE, timeout=30).stdout.split()
                if names:
                    self.docker("rm", "-f", *names, stdout=subprocess.DEVNULL, timeout=60)
            self.process.terminate()
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.log.close()
        shutil.rmtree(self.directory, ignore_errors=True)
        for path in pathlib.Path("/sys/fs/cgroup").glob(f"**/{self.group}"):
            with contextlib.suppress(OSError):
                path.rmdir()


def libraries(binary):
    """The libraries that the dynamic linker loads for a binary, including itself. Empty for a static binary."""
    found = subprocess.run(["ldd", binary], capture_output=True, text=True, check=False).stdout
    return re.findall(r"(/\S+) \(0x", found)


def put(binary, root, name):
    """Puts a binary, its libraries and the certificates of public authorities into the root of an image."""
    target = root / name
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(binary, target)
    authorities = "/etc/ssl/certs/ca-certificates.crt"
    for file in [*libraries(binary), *filter(os.path.exists, [authorities])]:
        target = root / file.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, target)


def build_around(binary, name, dockerfile, image, env=None):
    """Builds an image around a binary, as /name, with the `prebuilt` stage of its Dockerfile."""
    with tempfile.TemporaryDirectory() as directory:
        context = pathlib.Path(directory)
        for path in TOP.glob("LICENSE*"):
            shutil.copy(path, context)
        shutil.copytree(TOP / "scion/topologies", context / "scion/topologies")
        put(binary, context / "root", name)
        argv = ["docker", "build", "-q", "--target", "prebuilt", "-f", TOP / dockerfile, "-t", image, directory]
        subprocess.run(argv, timeout=BUILD, check=True, env=env)
