"""Trees of Debian, made once and kept in the build folder. For tests/package/run and tests/compose/examples.

    python3 tests/package/debian.py        makes all of them, which takes minutes
"""

import os
import pathlib
import shutil
import subprocess

TOP = pathlib.Path(__file__).resolve().parents[2]
BUILT = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", TOP / "target")).absolute() / "debian"
# The packages of each tree, besides those of a minimal one.
TREES = {
    "minimal": [],
    "systemd": ["systemd", "systemd-sysv", "dbus", "logrotate"],
    "mariadb": ["mariadb-server"],
}
SUITE, MIRROR = "bookworm", "http://deb.debian.org/debian"


class NoTree(Exception):
    """No tree can be made here, and why."""


def run(*argv, **more):
    return subprocess.run([str(arg) for arg in argv], check=True, text=True, **more)


def tree(name):
    """A tree that is made once. An interrupted one does not count."""
    done = BUILT / name
    if not done.exists():
        making = BUILT / f"{name}.new"
        shutil.rmtree(making, ignore_errors=True)
        BUILT.mkdir(parents=True, exist_ok=True)
        print(f"making the tree {name}", flush=True)
        try:
            if TREES[name]:
                add(making, TREES[name])
            else:
                run("debootstrap", "--variant=minbase", SUITE, making, MIRROR, stdout=subprocess.DEVNULL)
        except (OSError, subprocess.CalledProcessError) as error:
            raise NoTree(f"no tree of Debian can be made here: {error}") from error
        making.rename(done)
    return done


def add(making, packages):
    """Makes a minimal tree with more packages."""
    run("cp", "-a", tree("minimal"), making)
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C"}
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    run("chroot", making, "apt-get", "update", stdout=subprocess.DEVNULL)
    run("chroot", making, "apt-get", "install", "-y", "--no-install-recommends", *packages, env=env, **quiet)
    run("chroot", making, "apt-get", "clean")


if __name__ == "__main__":
    try:
        for each in TREES:
            tree(each)
    except NoTree as error:
        # Those who need one say so again, and what they could not test.
        print(error, flush=True)
