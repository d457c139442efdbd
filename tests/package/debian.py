"""Trees of Debian, made once and kept in the build folder. For tests/package/run and tests/compose/examples."""

import os
import pathlib
import shutil
import subprocess

TOP = pathlib.Path(__file__).resolve().parents[2]
BUILT = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", TOP / "target")).absolute() / "package"
SUITE, MIRROR = "bookworm", "http://deb.debian.org/debian"


def run(*argv, **more):
    return subprocess.run([str(arg) for arg in argv], check=True, text=True, **more)


def tree(name, make):
    """A tree that is made once. An interrupted one does not count."""
    done = BUILT / name
    if not done.exists():
        making = BUILT / f"{name}.new"
        shutil.rmtree(making, ignore_errors=True)
        BUILT.mkdir(parents=True, exist_ok=True)
        print(f"making the tree {name}", flush=True)
        make(making)
        making.rename(done)
    return done


def minimal():
    """What debootstrap makes for containers: dpkg, apt and little else."""

    def make(to):
        run("debootstrap", "--variant=minbase", SUITE, to, MIRROR, stdout=subprocess.DEVNULL)

    return tree("minimal", make)


def with_packages(name, *packages):
    """The minimal tree with more packages."""

    def make(to):
        run("cp", "-a", minimal(), to)
        env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C"}
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        run("chroot", to, "apt-get", "update", stdout=subprocess.DEVNULL)
        run("chroot", to, "apt-get", "install", "-y", "--no-install-recommends", *packages, env=env, **quiet)
        run("chroot", to, "apt-get", "clean")

    return tree(name, make)
