"""Drives the real program for `run --program`: kills it under load, and measures announces while its database is away."""

import http.client
import json
import os
import random
import shutil
import socket
import sqlite3
import statistics
import struct
import subprocess
import threading
import time
import urllib.parse

# Threads that change records at the same time.
CHANGERS = 4
# Completed downloads are written this often, so those of a bit longer before a kill may be lost.
FLUSH = 0.2
MAY_BE_LOST = 1.5
# The torrent whose downloads are counted.
COUNTED = bytes([0x5C] * 20)
# How long announces are measured in one phase, in seconds, and how many per second are sent.
PHASE = 1.5
RATE = 2000
# A server that does not answer is noticed within this: a statement has 4 s, a new connection 3 s.
UNNOTICED = 8


class Failure(Exception):
    """Something that must not be."""


# Those that were started, so that none is left after a failure.
RUNNING = []


def kill_all():
    """Ends those that a failed check has left."""
    for tracker in RUNNING:
        if tracker.process.poll() is None:
            tracker.kill()
    RUNNING.clear()


class Tracker:
    """A running program. `database`: a URL, or None for the file in the data directory."""

    def __init__(self, binary, directory, database=None, **settings):
        self.binary, self.directory = binary, directory
        command = [binary, "serve", "--data-dir", directory, "--udp", "127.0.0.1:0"]
        if database:
            command += ["--database", database]
        environment = {
            "SCION_TRACKER_ANNOUNCES_PER_SECOND": "0",
            "SCION_TRACKER_PEERS_PER_SOURCE": "10000000",
            "SCION_TRACKER_RECORDS_FLUSH_INTERVAL": f"{int(FLUSH * 1000)}ms",
            **settings,
        }
        self.log_path = os.path.join(directory, "log")
        self.log_from = os.path.getsize(self.log_path) if os.path.exists(self.log_path) else 0
        start = time.monotonic()
        with open(self.log_path, "a") as log:
            self.process = subprocess.Popen(
                command, env={**os.environ, **environment}, stdout=subprocess.PIPE, stderr=log, preexec_fn=come_first
            )
        RUNNING[:] = [it for it in RUNNING if it.process.poll() is None] + [self]
        line = self.process.stdout.readline().decode().strip()
        self.started_in = time.monotonic() - start
        if not line.startswith("udp://"):
            self.process.wait()
            raise Failure(f"the program does not start: {self.log()[-2000:]}")
        self.url = line
        port = urllib.parse.urlsplit(line).port
        self.address = ("127.0.0.1", port)

    def log(self):
        with open(self.log_path) as log:
            log.seek(self.log_from)
            return log.read()

    def kill(self):
        self.process.kill()
        self.process.wait()

    def stop(self):
        self.process.terminate()
        if self.process.wait(60) != 0:
            raise Failure(f"the program ended with {self.process.returncode}: {self.log()[-2000:]}")

    def api(self):
        return Api(os.path.join(self.directory, "admin.sock"))

    def bench(self, *options):
        """Measures announces. Returns what the program reports, or None if it is killed meanwhile."""
        command = [self.binary, "bench", self.url, "--json", "--i-own-this-target", *options]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=come_first)
        if done.returncode != 0:
            raise Failure(f"bench failed: {done.stderr.decode()[-500:]}")
        return json.loads(done.stdout)


def come_first():
    """Other work on this machine is not to decide what is measured."""
    if os.geteuid() == 0:
        os.nice(-15)


class Api:
    """The admin API over the Unix socket, on one connection."""

    def __init__(self, path):
        self.connection = http.client.HTTPConnection("localhost", timeout=30)
        self.path = path

    def call(self, method, path, body=None):
        """Returns status and value. OSError or HTTPException if the tracker is gone."""
        if self.connection.sock is None:
            self.connection.sock = socket.socket(socket.AF_UNIX)
            self.connection.sock.settimeout(30)
            self.connection.sock.connect(self.path)
        headers = {} if body is None else {"Content-Type": "application/json"}
        body = None if body is None else json.dumps(body)
        try:
            self.connection.request(method, f"/api/v2/{path}", body, headers)
            answer = self.connection.getresponse()
            text = answer.read()
        except (OSError, http.client.HTTPException):
            self.connection.close()
            raise
        return answer.status, json.loads(text or "null")

    def get(self, path):
        status, value = self.call("GET", path)
        if status == 404:
            return None
        if status != 200:
            raise Failure(f"GET {path}: {status} {value}")
        return value

    def all(self, path):
        entries = []
        while True:
            page = self.get(f"{path}?offset={len(entries)}&limit=10000")
            entries += page["entries"]
            if len(entries) >= page["total"]:
                return entries


# What a client of the API sees of a record, by its kind and name.


def value_of_rules(rules):
    return json.dumps([rules["deny_clients"], rules["deny_networks"], rules["isd_as"], rules["proven"]])


def observe(api):
    """All records, by kind and name."""
    seen = {}
    for it in api.all("keys"):
        seen["key", it["key"]] = (it["note"], it["owner"])
    for kind in ("allow", "deny"):
        for it in api.all(kind):
            seen[kind, it] = True
    for it in api.all("bans"):
        seen["ban", it["target"]] = it["reason"]
    for it in api.all("isolation"):
        seen["isolation", it["info_hash"]] = (tuple(it["isds"]), it["proven"])
    for it in api.all("rules/torrents"):
        seen["rules", it["info_hash"]] = value_of_rules(it["rules"])
    rules = api.get("rules")
    if rules is not None:
        seen["all", ""] = value_of_rules(rules)
    return seen


def change_of(kind, name, number):
    """A change that gives a record a value of this number. Returns method, path, body and value."""
    if kind == "key":
        value = (f"number {number}, ä", f"owner {number}" if number % 2 else None)
        return "PUT", f"keys/{name}", {"note": value[0], "owner": value[1]}, value
    if kind in ("allow", "deny"):
        return "PUT", f"{kind}/{name}", None, True
    if kind == "ban":
        value = f"number {number}"
        return "POST", "bans", {"target": name, "reason": value}, value
    if kind == "isolation":
        value = ((64, 1 + number % 60000), number % 2 == 0)
        return "PUT", f"isolation/{name}", {"isds": list(value[0]), "proven": value[1]}, value
    rules = {
        "deny_clients": [f"-Q{number % 1000:03}"],
        "deny_networks": ["192.0.2.0/24"],
        "isd_as": "- 1-ff00:0:110, +",
        "proven": False,
    }
    path = "rules" if kind == "all" else f"rules/torrents/{name}"
    return "PUT", path, rules, value_of_rules(rules)


def removal_of(kind, name):
    path = {
        "key": f"keys/{name}",
        "ban": f"bans?target={urllib.parse.quote(name, safe='')}",
        "rules": f"rules/torrents/{name}",
        "all": "rules",
    }
    return "DELETE", path.get(kind, f"{kind}/{name}")


class Changer:
    """Changes records of its own without end, and remembers what was acknowledged."""

    KINDS = ["key", "allow", "deny", "ban", "isolation", "rules"]

    def __init__(self, number):
        self.number = number
        self.random = random.Random(number)
        self.next = 0
        # The value of each record that it ever touched. None: it was removed.
        self.values = {}
        # A change that was sent and not answered: what the record may be as well.
        self.doubt = {}
        self.acknowledged = 0
        self.errors = []

    def new_record(self):
        self.next += 1
        number = self.number << 32 | self.next
        kind = self.random.choice(self.KINDS)
        if kind == "key":
            return kind, f"key-{number}"
        if kind == "ban":
            return kind, f"10.{self.number}.{self.next >> 8 & 255}.{self.next & 255}/32"
        return kind, f"{number:040x}"

    def step(self, api):
        there = [record for record, value in self.recent() if value is not None]
        what = self.random.random()
        if there and what < 0.25:
            record = self.random.choice(there)
            method, path, body, value = *removal_of(*record), None, None
        else:
            if what < 0.3 and self.number == 0:
                record = ("all", "")
            elif there and what < 0.5:
                record = self.random.choice(there)
            else:
                record = self.new_record()
            self.next += 1
            method, path, body, value = change_of(*record, self.next)
        self.doubt[record] = value
        status, answer = api.call(method, path, body)
        if status in (200, 201):
            self.values[record] = value
            self.acknowledged += 1
        else:
            self.errors.append(f"{method} {path}: {status} {answer}")
        del self.doubt[record]

    def recent(self):
        return list(self.values.items())[-200:]

    def run(self, tracker, stop):
        api = tracker.api()
        try:
            while not stop.is_set():
                self.step(api)
        except (OSError, http.client.HTTPException):
            pass  # It was killed.

    def check(self, seen):
        """Compares with what the tracker shows. Takes the records out of `seen`."""
        for record in {**self.values, **self.doubt}:
            value = seen.pop(record, None)
            expected = [self.values.get(record)]
            if record in self.doubt:
                expected.append(self.doubt[record])
            if value not in expected:
                raise Failure(f"{record} is {value}, not {' or '.join(map(str, expected))}")
            self.values[record] = value
        self.doubt = {}


class Downloader:
    """Peers that complete downloads of one torrent, one after the other, over UDP."""

    def __init__(self):
        self.peers = 0
        self.answered = 0
        # Sent, without an answer.
        self.unanswered = 0
        # Answered so shortly before a kill that they may be lost, over all kills.
        self.may_be_lost = 0

    def run(self, tracker, stop):
        """Until `stop`. Notes when each was answered."""
        times = []
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as it:
            it.settimeout(3)
            it.connect(tracker.address)
            connection = None
            while not stop.is_set():
                try:
                    if connection is None:
                        connection = self._exchange(it, struct.pack(">QI", 0x41727101980, 0), 0)[8:16]
                    self.peers += 1
                    for event, left in ((2, 1), (1, 0), (3, 0)):
                        self.unanswered += event == 1
                        self._exchange(it, self._announce(connection, event, left), 1)
                        if event == 1:
                            self.unanswered -= 1
                            self.answered += 1
                            times.append(time.monotonic())
                except OSError:
                    break  # It was killed.
                time.sleep(0.002)
        self.times = times

    def _exchange(self, it, request, action):
        it.send(request + struct.pack(">I", 7) if action == 0 else request)
        reply = it.recv(2048)
        if struct.unpack(">I", reply[:4])[0] != action:
            raise Failure(f"an announce was refused: {reply[8:]}")
        return reply

    def _announce(self, connection, event, left):
        peer = b"-KL0001-" + struct.pack(">IQ", 0, self.peers)
        port = 1 + self.peers % 60000
        return connection + struct.pack(
            ">II20s20sQQQIIIiH", 1, 7, COUNTED, peer, 0, left, 0, event, 0, 0, 0, port
        )

    def killed(self, at):
        self.may_be_lost += sum(at - it < MAY_BE_LOST for it in self.times)

    def check(self, tracker):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as it:
            it.settimeout(5)
            it.connect(tracker.address)
            connection = self._exchange(it, struct.pack(">QI", 0x41727101980, 0), 0)[8:16]
            reply = self._exchange(it, connection + struct.pack(">II20s", 2, 7, COUNTED), 2)
        counted = struct.unpack(">III", reply[8:20])[1]
        least, most = self.answered - self.may_be_lost, self.answered + self.unanswered
        if not least <= counted <= most:
            raise Failure(f"{counted} downloads are counted, not from {least} to {most}")
        return counted


def check_file(path):
    """Checks a file of SQLite as the kill left it, on a copy: opening it would repair it."""
    copy = path + ".copy"
    for end in ("", "-wal"):
        if os.path.exists(path + end):
            shutil.copyfile(path + end, copy + end)
    with sqlite3.connect(copy) as it:
        found = it.execute("PRAGMA integrity_check").fetchall()
    it.close()
    for end in ("", "-wal", "-shm"):
        if os.path.exists(copy + end):
            os.remove(copy + end)
    if found != [("ok",)]:
        raise Failure(f"the file is damaged: {found[:3]}")


def kills(name, binary, directory, database, count):
    """Kills the program at random moments, and checks what is there after each restart."""
    os.mkdir(directory)
    file = os.path.join(directory, "records.db") if database is None else None
    changers, downloader = [Changer(number) for number in range(CHANGERS)], Downloader()
    chance = random.Random(count)
    in_snapshot = loaded = counted = 0
    slowest = 0
    for kill in range(count + 1):
        tracker = Tracker(binary, directory, database, SCION_TRACKER_SNAPSHOT_INTERVAL="1s")
        slowest = max(slowest, tracker.started_in)
        log = tracker.log()
        if "cannot be used" in log or os.path.exists(os.path.join(directory, "swarms.snapshot.damaged")):
            raise Failure(f"kill {kill} damaged the snapshot: {log[-2000:]}")
        loaded += "swarms read from the snapshot" in log
        seen = observe(tracker.api())
        for changer in changers:
            changer.check(seen)
            if changer.errors:
                raise Failure(f"changes failed: {changer.errors[:3]}")
        if seen:
            raise Failure(f"these records were never made: {list(seen.items())[:3]}")
        counted = downloader.check(tracker)
        if kill == count:
            tracker.stop()
            break
        stop = threading.Event()
        work = [(it.run, (tracker, stop)) for it in (*changers, downloader)]
        work.append((write_snapshots, (tracker, stop)))
        threads = [threading.Thread(target=run, args=arguments) for run, arguments in work]
        for thread in threads:
            thread.start()
        load = [binary, "bench", tracker.url, "--rate", "2000", "--duration", "60s", "--warmup", "0s"]
        load += ["--peers", "200000", "--torrents", "20000", "--mix", "announce=70,completed=20,stopped=10"]
        load = subprocess.Popen(load, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(chance.uniform(0.05, 3))
        tracker.kill()
        at = time.monotonic()
        load.kill()
        load.wait()
        stop.set()
        for thread in threads:
            thread.join()
        downloader.killed(at)
        in_snapshot += os.path.exists(os.path.join(directory, "swarms.snapshot.new"))
        if file:
            check_file(file)
    if not in_snapshot:
        raise Failure("no kill has hit the writing of a snapshot")
    acknowledged = sum(it.acknowledged for it in changers)
    there = sum(value is not None for it in changers for value in it.values.values())
    print(
        f"   {name}: {count} kills, {in_snapshot} of them while a snapshot was written; {acknowledged} acknowledged"
        f" changes, {there} records there and no other; {counted} of {downloader.answered} downloads counted,"
        f" {downloader.may_be_lost} may be lost; {loaded} snapshots read, none damaged; slowest start {slowest:.2f} s",
        flush=True,
    )


def write_snapshots(tracker, stop):
    api = tracker.api()
    try:
        while not stop.is_set():
            api.call("POST", "snapshot")
    except (OSError, http.client.HTTPException):
        pass  # It was killed.


class Allowing:
    """Adds torrents to the allow list, some twenty a second, and counts the answers by status."""

    def __init__(self, tracker):
        self.tracker = tracker
        self.stop = threading.Event()
        self.next = 0
        self.acknowledged = []
        self.reasons = {}
        self.unexpected = []
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def add(self, api):
        self.next += 1
        name = f"{self.next:040x}"
        start = time.monotonic()
        status, answer = api.call("PUT", f"allow/{name}")
        took = time.monotonic() - start
        if status == 200:
            self.acknowledged.append(name)
        elif status == 503:
            reason = answer.get("reason") or answer.get("error") or json.dumps(answer)
            self.reasons[reason] = self.reasons.get(reason, 0) + 1
        if status not in (200, 503) or took > 6:
            self.unexpected.append(f"{status} {answer} after {took:.1f} s")
        return status

    def _run(self):
        api = self.tracker.api()
        while not self.stop.wait(0.05):
            self.add(api)

    def end(self):
        self.stop.set()
        self.thread.join()
        if self.unexpected:
            raise Failure(f"answers of the API: {self.unexpected[:3]}")


def away(name, binary, directory, database, go, back, phases, is_null=False, is_hanging=False):
    """Compares the 99th percentile of announces while the database works and while it is away. `is_hanging`: it
    does not answer, which the tracker notices after some seconds; half of the phases begin then."""
    os.makedirs(directory, exist_ok=True)
    tracker = Tracker(binary, directory, database)
    measure = lambda: tracker.bench(
        *("--rate", str(RATE), "--duration", f"{PHASE}s", "--warmup", "200ms", "--connections", "4"),
        *("--peers", "20000", "--torrents", "2000", "--mix", "announce=80,completed=20"),
    )["latency_us"]["p99"]
    measure()
    allowing = Allowing(tracker)
    api = tracker.api()
    healthy, gone = [], []
    noticed = 0
    try:
        for phase in range(phases):
            first, second = (healthy, gone) if not is_null or phase % 2 else (gone, healthy)
            first.append(measure())
            go()
            if is_hanging and phase % 2:
                time.sleep(UNNOTICED)
            elif not is_hanging and not is_null:
                wait("the outage is noticed", lambda: api.get("stats")["store_outage"] is not None)
            second.append(measure())
            noticed += api.get("stats")["store_outage"] is not None
            back()
            wait("all is caught up with", lambda: api.get("stats")["store_outage"] is None)
    finally:
        allowing.end()
    if is_null and allowing.reasons:
        raise Failure(f"changes failed: {allowing.reasons}")
    if not is_null and (not allowing.reasons or not noticed):
        raise Failure("no change failed: the database was not away")
    tracker.stop()
    ratio = statistics.median(gone) / statistics.median(healthy)
    spread = lambda values: " ".join(f"{it:.0f}" for it in statistics.quantiles(values, n=4))
    print(
        f"   {name}: p99 of {phases} phases of {PHASE} s, quartiles in µs: {spread(healthy)} before, {spread(gone)}"
        f" meanwhile; ratio of the medians {ratio:.3f}; {len(allowing.acknowledged)} changes acknowledged,"
        f" {sum(allowing.reasons.values())} answered with 503: {'; '.join(sorted(allowing.reasons)) or '-'}",
        flush=True,
    )
    tracker = Tracker(binary, directory, database)
    there = set(tracker.api().all("allow"))
    tracker.stop()
    lost = [it for it in allowing.acknowledged if it not in there]
    if lost:
        raise Failure(f"{len(lost)} acknowledged changes are lost, as {lost[0]}")
    # Less than this is what a machine does by itself: see the comparison of healthy phases.
    if not is_null and ratio > 1.1:
        raise Failure(f"the 99th percentile is {ratio:.3f} of that before")


def wait(what, is_so, limit=60):
    start = time.monotonic()
    while not is_so():
        if time.monotonic() - start > limit:
            raise Failure(f"waited for {limit} s: {what}")
        time.sleep(0.02)


class Lock:
    """Another program that holds a file of SQLite."""

    def __init__(self, path):
        self.path = path

    def go(self):
        self.other = sqlite3.connect(self.path, isolation_level=None, timeout=10)
        self.other.execute("BEGIN IMMEDIATE")

    def back(self):
        self.other.execute("ROLLBACK")
        self.other.close()


class Filler:
    """Fills the file system of a directory."""

    def __init__(self, directory):
        self.path = os.path.join(directory, "filler")

    def go(self):
        with open(self.path, "wb", buffering=0) as it:
            for size in (64 << 10, 512, 1):
                try:
                    while it.write(bytes(size)) == size:
                        pass
                except OSError:
                    pass

    def back(self):
        os.remove(self.path)


def full_snapshot(binary, directory):
    """No room for a snapshot: the API says so, the one before stays, and the next one is written."""
    tracker = Tracker(binary, directory)
    fill = ("--rate", "2000", "--duration", "1s", "--peers", "2000", "--torrents", "100")
    tracker.bench(*fill)
    api, filler = tracker.api(), Filler(directory)
    status, first = api.call("POST", "snapshot")
    file = os.path.join(directory, "swarms.snapshot")
    with open(file, "rb") as it:
        before = it.read()
    filler.go()
    full, reason = api.call("POST", "snapshot")
    with open(file, "rb") as it:
        is_kept = it.read() == before
    is_clean = not os.path.exists(file + ".new")
    tracker.bench(*fill)
    filler.back()
    again, _ = api.call("POST", "snapshot")
    tracker.stop()
    if (status, full, again) != (200, 503, 200) or not is_kept or not is_clean:
        raise Failure(f"{status} {first}, {full} {reason}, {again}, kept: {is_kept}, clean: {is_clean}")
    tracker = Tracker(binary, directory)
    if "swarms read from the snapshot" not in tracker.log():
        raise Failure(f"the snapshot is not read: {tracker.log()}")
    tracker.stop()
    print(f"   no room for a snapshot: {full} {json.dumps(reason)}; the one before stays", flush=True)


def load(name, binary, directory, database, fill):
    """How long a start with a million listed torrents and as many counts takes."""
    os.makedirs(directory, exist_ok=True)
    Tracker(binary, directory, database).stop()
    fill()
    times = []
    for _ in range(3):
        tracker = Tracker(binary, directory, database)
        times.append(tracker.started_in)
        allowed = tracker.api().get("stats")["allowed"]
        # No snapshot, so that counts come from the records.
        tracker.kill()
        if allowed != 1_000_000:
            raise Failure(f"{allowed} torrents are allowed")
    print(f"   {name}: starts with a million torrents and counts: {' '.join(f'{it:.2f}' for it in times)} s", flush=True)
    if statistics.median(times) > 5:
        raise Failure("a start takes more than 5 s")


def fill_file(path):
    """A million rows of both tables, in the order of hashes, which are random."""
    it = sqlite3.connect(path)
    hashes = ((random.randbytes(20),) for _ in range(1_000_000))
    it.executemany("INSERT INTO allowed VALUES (?)", hashes)
    it.execute("INSERT INTO completed SELECT info_hash, 7 FROM allowed")
    it.commit()
    it.close()
