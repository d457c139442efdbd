"""Runs libtorrent as one peer: libtorrent_peer.py SOURCE DIRECTORY PORT verify|trust.

SOURCE is a torrent file or a magnet link.
Leaves its tracker on SIGTERM. `verify` verifies certificates against SSL_CERT_FILE; `trust` accepts any.
"""

import signal
import sys
import threading
import time

import libtorrent as lt

source, directory, port, certificates = sys.argv[1:]

session = lt.session({
    "listen_interfaces": f"0.0.0.0:{port},[::]:{port}",
    "enable_dht": False,
    "enable_lsd": False,
    "enable_upnp": False,
    "enable_natpmp": False,
    "allow_multiple_connections_per_ip": True,
    "validate_https_trackers": certificates == "verify",
    "stop_tracker_timeout": 3,
    # A peer that was not ready at first is tried again during the case.
    "min_reconnect_time": 1,
    "alert_mask": lt.alert.category_t.tracker_notification
    | lt.alert.category_t.error_notification
    | lt.alert.category_t.status_notification
    | lt.alert.category_t.connect_notification,
})
magnet = source.startswith("magnet:")
parameters = lt.parse_magnet_uri(source) if magnet else lt.load_torrent_file(source)
parameters.save_path = directory
parameters.flags &= ~lt.torrent_flags.auto_managed & ~lt.torrent_flags.paused
handle = session.add_torrent(parameters)

scraped = False
leaving = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: leaving.set())


def answers(patience):
    """Prints every alert. Returns whether a tracker has answered or failed."""
    session.wait_for_alert(patience)
    alerts = session.pop_alerts()
    for alert in alerts:
        print(alert, flush=True)
    return any(isinstance(a, (lt.tracker_reply_alert, lt.tracker_error_alert)) for a in alerts)


while not leaving.is_set():
    if answers(200) and not scraped:
        scraped = True
        handle.scrape_tracker()

# A paused session announces `stopped`.
session.pause()
end = time.monotonic() + 3
while time.monotonic() < end and not answers(100):
    pass
