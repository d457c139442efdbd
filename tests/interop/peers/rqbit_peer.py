"""Runs rqbit as one peer: rqbit_peer.py SOURCE DIRECTORY PORT. SOURCE is a torrent file or a magnet link.

Leaves its tracker on SIGTERM.
"""

import os
import signal
import sys
import threading

import pyrqbit

source, directory, port = sys.argv[1:]
leaving = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: leaving.set())
session = pyrqbit.Session(directory, listen_port=int(port), disable_dht=True)


def add():
    # Returns only when the metadata of a magnet link is there.
    handle = session.add_torrent(source, output_folder=directory, overwrite=True)
    print("added", handle.info_hash, flush=True)
    while not leaving.wait(1):
        print(handle.stats(), flush=True)


threading.Thread(target=add, daemon=True).start()
leaving.wait()
session.stop()
os._exit(0)
