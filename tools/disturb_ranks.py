#!/usr/bin/env python3
"""Throws what strangers could send at every port of a running group, and checks that nobody minds.

Serves MODEL in several processes with --on-failure replan and sends a trace of requests. Meanwhile it connects to all
ports that the processes listen at, but for that of HTTP, with random bytes, true beginnings with random bytes behind
them, what the ranks themselves said to each other whole (replayed), cut and with a few bits changed, echoes, and
connections that say little or nothing and stay open. The last rank is killed in the midst of it and must come back.
Every request must end with the tokens that one undisturbed process gives, no other rank may be lost, and once all
strangers have gone no process may have more descriptors open than before.

--start launch has `runahead launch` start the ranks, --start hand starts each with RANK, WORLD_SIZE, MASTER_ADDR and
MASTER_PORT. What ranks say is recorded from the loopback device, which needs root; elsewhere it says so and exits with 77.
"""
import argparse
import collections
import concurrent.futures
import contextlib
import os
import pathlib
import random
import re
import selectors
import signal
import socket
import struct
import sys
import threading
import time

from lose_ranks import SeparateServer, Server, answer, right_answers, trace

WORD = b"RUNWIRE1"  # begins what a rank says at the meeting port


class OneHost:
    """Stands where SeparateServer has a network."""

    def command_on(self, _host, command):
        return command


class HandServer(SeparateServer):
    """A server whose processes are started one by one, on this host."""

    def __init__(self, *arguments):
        super().__init__(OneHost(), *arguments)

    def environment(self, rank):
        environment = {**super().environment(rank), "MASTER_ADDR": "127.0.0.1"}
        del environment["UCX_TLS"]
        return environment


class Recorder(threading.Thread):
    """Keeps what is said over loopback TCP to a set of ports: for each connection the bytes to the port."""

    MOST_BYTES = 1 << 16  # of a connection
    MOST = 400  # connections of a port

    def __init__(self):
        super().__init__(daemon=True)
        try:
            self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0003))
            self.socket.bind(("lo", 0))
        except (OSError, AttributeError) as error:
            print(f"disturb_ranks.py: skipped: no recording of the loopback device: {error}", file=sys.stderr)
            sys.exit(77)
        self.said = collections.defaultdict(dict)  # port -> {other port: bytes}
        self.own = set()  # ports of strangers: what they say is no recording
        self.start()

    def run(self):
        while True:
            packet, address = self.socket.recvfrom(1 << 17)
            if address[2] == socket.PACKET_OUTGOING:
                continue
            flow = self.payload(packet)
            if flow is None:
                continue
            source, target, data = flow
            kept = self.said[target]
            if source in self.own or (source not in kept and len(kept) >= self.MOST):
                continue
            if len(kept.get(source, b"")) < self.MOST_BYTES:
                kept[source] = kept.get(source, b"") + data

    @staticmethod
    def payload(packet):
        """Ports and bytes of a TCP segment, or None."""
        frame = packet[14:]
        if len(frame) < 40:
            return None
        if frame[0] >> 4 == 4 and frame[9] == 6:
            length = struct.unpack("!H", frame[2:4])[0]
            segment = frame[(frame[0] & 15) * 4:length or None]
        elif frame[0] >> 4 == 6 and frame[6] == 6:
            segment = frame[40:]
        else:
            return None
        if len(segment) < 20:
            return None
        source, target = struct.unpack("!HH", segment[:4])
        data = segment[(segment[12] >> 4) * 4:]
        return (source, target, data) if data else None

    def of(self, port):
        return [said for said in list(self.said.get(port, {}).values()) if said]


def listening(pids):
    """(port, process id) of all TCP ports that the processes listen at."""
    found = set()
    for pid in pids:
        inodes = set()
        with contextlib.suppress(OSError):
            for link in pathlib.Path(f"/proc/{pid}/fd").iterdir():
                with contextlib.suppress(OSError):
                    inodes.update(re.findall(r"socket:\[(\d+)\]", os.readlink(link)))
            for table in ("tcp", "tcp6"):
                for line in pathlib.Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
                    fields = line.split()
                    if fields[3] == "0A" and fields[9] in inodes:
                        found.add((int(fields[1].rsplit(":", 1)[1], 16), pid))
    return found


def descriptors(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


class Strangers(threading.Thread):
    """Connections that mean no good, at the ports that `ports` gives, until end()."""

    def __init__(self, seed, ports, recorder, most=200):
        super().__init__(daemon=True)
        self.draw = random.Random(seed)
        self.ports, self.recorder, self.most = ports, recorder, most
        self.selector = selectors.DefaultSelector()
        self.open = {}  # socket -> (time of its end, whether it echoes)
        self.counts = collections.Counter()
        self.over = threading.Event()
        self.start()

    def words(self, port):
        """What to say, and what it is."""
        draw = self.draw
        known = self.recorder.of(port)
        kind = draw.choice(["random", "begun", "silent", "short", "echo"] + ["replayed", "cut", "changed", "mixed"] * 2)
        if kind in ("replayed", "cut", "changed", "mixed") and not known:
            kind = "begun"
        if kind == "random":
            return kind, draw.randbytes(draw.choice([1, 7, 8, 40, 72, 500, 70_000]))
        if kind == "begun":
            return kind, WORD + draw.randbytes(draw.choice([0, 31, 32, 64, 300, 4000]))
        if kind == "short":
            return kind, (draw.choice(known) if known else WORD)[:draw.randrange(1, 40)]
        if kind in ("silent", "echo"):
            return kind, b""
        said = bytearray(draw.choice(known))
        at = draw.randrange(len(said)) if draw.random() < 0.5 else draw.randrange(min(len(said), 100))
        if kind == "cut":
            del said[at:]
        elif kind == "mixed":
            said[at:] = draw.randbytes(draw.choice([1, 16, 200, 5000]))
        elif kind == "changed":
            for _ in range(draw.randrange(1, 4)):
                said[draw.randrange(min(len(said), draw.choice([16, 100, 1 << 16])))] ^= 1 << draw.randrange(8)
        return kind, bytes(said)

    def once(self):
        ports = self.ports()
        if not ports:
            return time.sleep(0.01)
        port = self.draw.choice(ports)
        kind, words = self.words(port)
        stranger = socket.socket(socket.AF_INET)
        stranger.setblocking(False)
        try:
            stranger.bind(("127.0.0.1", 0))
            self.recorder.own.add(stranger.getsockname()[1])
            stranger.settimeout(1)
            stranger.connect(("127.0.0.1", port))
            stranger.settimeout(0.05)
            # In pieces, so that a message that begins in one packet and ends in another is met.
            while words:
                piece = self.draw.choice([1, 16, 1000, 1 << 20])
                stranger.sendall(words[:piece])
                words = words[piece:]
        except OSError:
            pass  # refused in the midst of it
        self.counts[kind] += 1
        stay = self.draw.choice([0, 0, 0.2, 1, 8]) if kind not in ("silent", "short") else self.draw.choice([0, 2, 20])
        if stay == 0:
            return self.close(stranger)
        stranger.setblocking(False)
        self.open[stranger] = (time.monotonic() + stay, kind == "echo")
        self.selector.register(stranger, selectors.EVENT_READ)

    def close(self, stranger):
        if self.draw.random() < 0.3:  # with a reset
            stranger.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        stranger.close()

    def drop(self, stranger):
        self.selector.unregister(stranger)
        del self.open[stranger]
        self.close(stranger)

    def run(self):
        while not self.over.is_set():
            for key, _ in self.selector.select(0.002):
                try:
                    heard = key.fileobj.recv(1 << 16)
                    if not heard:
                        self.counts["closed by a rank"] += 1
                        self.drop(key.fileobj)
                    elif self.open[key.fileobj][1]:
                        key.fileobj.send(heard)
                except OSError:
                    self.drop(key.fileobj)
            now = time.monotonic()
            for stranger in [one for one, (end, _) in self.open.items() if end < now]:
                self.drop(stranger)
            if len(self.open) < self.most:
                self.once()
        for stranger in list(self.open):
            self.drop(stranger)

    def end(self):
        self.over.set()
        self.join()


class Disturbed:
    """A server, strangers at all of its ports, and what came of it."""

    def __init__(self, options):
        self.options = options
        self.recorder = Recorder()
        self.requests = list(trace(options.seed, 40, options.vocab))
        self.right = right_answers(Server(options.program, options.model, 1, 1, []), self.requests)
        self.wrong = collections.Counter()
        self.over = threading.Event()
        self.server = None
        self.targets = []

    def keep_asking(self, first):
        asked = 0
        while not self.over.is_set():
            number = (first + 7 * asked) % len(self.requests)
            got = answer(self.server, self.requests[number])
            asked += 1
            if got != self.right[number]:
                self.wrong[f"request {number}: {str(got)[:200]}"] += 1
        return asked

    def look(self):
        """Keeps `targets` up to date: a rank that comes back listens elsewhere."""
        while not self.over.is_set():
            server = self.server
            self.targets = sorted({port for port, _ in listening(server.pids().values()) if port != server.port})
            time.sleep(0.2)

    def settled(self, before):
        pids = self.server.pids()
        return all(descriptors(pids[rank]) <= count for rank, count in before.items())

    def run(self):
        options = self.options
        make = HandServer if options.start == "hand" else Server
        self.server = make(options.program, options.model, options.ranks, options.lost_after, options.more)
        server = self.server
        with concurrent.futures.ThreadPoolExecutor() as pool:
            looker = pool.submit(self.look)
            askers = [pool.submit(self.keep_asking, first) for first in range(4)]
            time.sleep(3)  # all links that there can be have been made, and recorded
            first_pids = server.pids()
            before = {rank: descriptors(pid) for rank, pid in first_pids.items()}
            print(f"ports {self.targets}, descriptors {before}", flush=True)
            strangers = Strangers(options.seed, lambda: self.targets, self.recorder)
            try:
                time.sleep(options.seconds / 2)
                said = len(server.said)
                last = options.ranks - 1
                self.must_be_whole(first_pids, 0)
                os.kill(server.pids()[last], signal.SIGKILL)
                server.until(lambda: server.pids().get(last) not in (None, first_pids[last]), f"rank {last} is started again")
                server.until(lambda: any("is lost: " in line for _, line in server.said[said:]), f"rank {last} is missed")
                server.until(lambda: not any(one["lost"] for one in server.status()["ranks"]), f"rank {last} is back")
                print(f"rank {last} is back; {dict(strangers.counts)}", flush=True)
                said, first_pids = len(server.said), server.pids()
                time.sleep(options.seconds / 2)
                self.must_be_whole(first_pids, said)
            finally:
                strangers.end()
                self.over.set()
            asked = sum(asker.result() for asker in askers)
            looker.result()
        server.until(lambda: self.settled(before), f"no more descriptors are open than {before}")
        after = {rank: descriptors(pid) for rank, pid in server.pids().items()}
        server.until(lambda: all(one["pages_used"] == 0 for one in server.status()["ranks"]), "no page is in use")
        code = server.end()
        connections = strangers.counts.total() - strangers.counts["closed by a rank"]
        print(f"{connections} connections {dict(strangers.counts)}; {asked} requests, "
              f"{sum(self.wrong.values())} wrong; descriptors {before}, then {after}; exit code {code}")
        for what, times in self.wrong.most_common(5):
            print(f"  {times}: {what}")
        if self.wrong or code not in (0, 143):
            sys.exit(1)

    def must_be_whole(self, pids, said):
        lines = [line for _, line in self.server.said[said:] if "is lost: " in line]
        if lines or self.server.pids() != pids:
            sys.exit(f"a rank was lost: {lines[:3]}; last lines: {self.server.said[-10:]}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", default="build/release/bin/runahead")
    parser.add_argument("--model", required=True)
    parser.add_argument("--start", choices=["launch", "hand"], default="launch")
    parser.add_argument("--ranks", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=60, help="how long strangers come [60]")
    parser.add_argument("--lost-after", type=float, default=5)
    parser.add_argument("--vocab", type=int, default=256)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("more", nargs="*", help="further flags of serve, behind --")
    disturbed = Disturbed(parser.parse_args())
    try:
        disturbed.run()
    finally:
        if disturbed.server is not None and disturbed.server.process.poll() is None:
            disturbed.server.end()


if __name__ == "__main__":
    main()
