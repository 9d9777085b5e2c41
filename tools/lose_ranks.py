#!/usr/bin/env python3
"""Loses ranks of a running server at random moments, and checks that nobody notices but in the time.

Serves MODEL in several processes with --on-failure replan, sends a trace of requests, and meanwhile kills (kill),
stops (stop) or cuts off (link) a rank that is not the first, again and again. Each lost rank is started again. For
link each rank has a network namespace of its own (tools/network.py), whose link goes down: that needs root, and
elsewhere it says so and exits with 77. Every request must end with the tokens that one undisturbed process gives, every loss must be said
by all that are left within the deadline (1.25 times --lost-after) and 3 s, and at the end no page may be in use.
"""
import argparse
import collections
import ctypes
import concurrent.futures
import http.client
import json
import os
import pathlib
import random
import re
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

from network import Network, environment

WAIT_S = 120  # for anything that must happen
LATE_S = 3  # behind its deadline a loss must have been said


class Server:
    """`runahead serve` on a port of its own, under `launch` where it has several ranks."""

    def __init__(self, program, model, ranks, lost_after, more):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        serve = [program, "serve", "--model", model, "--model-name", "m", "--port", str(self.port), "--threads-per-rank", "1", *more]
        if ranks > 1:
            serve += ["--on-failure", "replan", "--lost-after", str(lost_after)]
            serve = self.launched(serve, ranks)
        self.said = []  # (time, line)
        self.start(serve)
        self.until(lambda: self.answers(), "the server answers")

    def start(self, serve):
        self.process = subprocess.Popen(serve, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        threading.Thread(target=self.listen, daemon=True).start()

    def launched(self, serve, ranks):
        return [serve[0], "launch", "--ranks", str(ranks), "--restarts", "1000000", "--", *serve]

    def listen(self):
        for line in self.process.stderr:
            self.said.append((time.monotonic(), line.rstrip()))

    def answers(self):
        if self.process.poll() is not None:
            sys.exit(f"the server ended with exit code {self.process.returncode}: {self.said[-5:]}")
        try:
            return self.ask("GET", "/health")[0] == 200
        except OSError:
            return False

    def until(self, happened, what):
        end = time.monotonic() + WAIT_S
        while not happened():
            if time.monotonic() > end:
                sys.exit(f"in {WAIT_S} s it did not happen that {what}; last lines: {self.said[-10:]}")
            time.sleep(0.02)

    def ask(self, method, path, body=None):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=WAIT_S)
        try:
            connection.request(method, path, json.dumps(body) if body else None, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read() or b"{}")
        finally:
            connection.close()

    def status(self):
        return self.ask("GET", "/runahead/state")[1]

    def pids(self):
        """Process ids by rank."""
        found = {}
        for pid in subprocess.run(["pgrep", "-P", str(self.process.pid)], capture_output=True, text=True).stdout.split():
            try:
                with open(f"/proc/{pid}/environ", "rb") as file:
                    variables = dict(v.split(b"=", 1) for v in file.read().split(b"\0") if b"=" in v)
                found[int(variables[b"RANK"])] = int(pid)
            except (OSError, KeyError):
                pass
        return found

    def end(self):
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(WAIT_S)


class SeparateServer(Server):
    """A server whose ranks are hosts of `network`. A rank that ends is started again."""

    def __init__(self, network, *arguments):
        self.network = network
        self.ranks = {}
        self.ending = False
        self.secret = tempfile.NamedTemporaryFile("w")
        self.secret.write(secrets.token_hex(32))
        self.secret.flush()
        self.meeting_port = random.randrange(20000, 32000)
        super().__init__(*arguments)

    def launched(self, serve, ranks):
        self.count = ranks
        return serve

    def start(self, serve):
        for rank in range(self.count):
            self.start_rank(rank, serve)
            threading.Thread(target=self.keep, args=(rank, serve), daemon=True).start()
        self.process = self.ranks[0]

    def start_rank(self, rank, serve):
        self.ranks[rank] = subprocess.Popen(
            self.network.command_on(rank + 1, serve), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
            env=self.environment(rank))

    def environment(self, rank):
        return environment(rank, self.count, self.meeting_port, self.secret.name)

    def keep(self, rank, serve):
        while True:
            for line in self.ranks[rank].stderr:
                self.said.append((time.monotonic(), f"[{rank}] {line.rstrip()}"))
            self.ranks[rank].wait()
            if self.ending or rank == 0:
                return
            self.start_rank(rank, serve)

    def pids(self):
        return {rank: process.pid for rank, process in self.ranks.items()}

    def end(self):
        self.ending = True
        code = super().end()
        for process in self.ranks.values():
            try:
                process.wait(WAIT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                code = code or 1
        return code


def trace(seed, count, vocab):
    draw = random.Random(seed)
    texts = [[draw.randrange(vocab) for _ in range(700)] for _ in range(5)]
    for number in range(count):
        begin = draw.choice(texts)[:draw.choice([0, 100, 700])]
        prompt = begin + [draw.randrange(vocab) for _ in range(draw.choice([5, 60, 400, 1500]))]
        yield {"model": "m", "prompt": prompt, "max_tokens": draw.randrange(1, 60), "seed": number, "ignore_eos": True,
               "temperature": draw.choice([0, 1]), "logprobs": 1, "return_token_ids": True}


def answer(server, request):
    code, body = server.ask("POST", "/v1/completions", request)
    if code != 200:
        return f"{code}: {body}"
    return body["choices"][0]["text"], body["usage"]["completion_tokens"]


def right_answers(alone, requests):
    """What one process answers, which then ends."""
    answers = [answer(alone, request) for request in requests]
    refused = [one for one in answers if isinstance(one, str)]
    if refused:
        sys.exit(f"one process alone does not answer: {refused[0]}")
    alone.end()
    return answers


class Loser:
    """Loses ranks of `server` until it is told to end."""

    def __init__(self, server, options):
        self.server, self.options = server, options
        self.draw = random.Random(options.seed)
        self.latest = 0.0
        self.count = 0

    def lose(self, rank, pid):
        if self.options.how == "kill":
            os.kill(pid, signal.SIGKILL)
        elif self.options.how == "stop":
            os.kill(pid, signal.SIGSTOP)
        else:
            self.server.network.set_link(rank + 1, "down")

    def once(self):
        server, options = self.server, self.options
        rank = self.draw.randrange(1, options.ranks)
        time.sleep(self.draw.uniform(0, options.every))
        pid = server.pids()[rank]
        heard = len(server.said)
        at = time.monotonic()
        self.lose(rank, pid)
        others = [other for other in range(options.ranks) if other != rank]
        pattern = re.compile(rf"rank {rank} on \S+ is lost: ")

        def said(other):
            return next((when for when, line in server.said[heard:]
                         if line.startswith(f"[{other}] ") and pattern.search(line)), None)
        server.until(lambda: all(said(other) for other in others), f"all say that rank {rank} is lost")
        late = max(said(other) for other in others) - at - (0 if options.how == "kill" else 1.25 * options.lost_after)
        self.latest = max(self.latest, late)
        if late > LATE_S:
            print(f"rank {rank} was lost at 0; since then was said:", *[f"  {when - at:.2f} s {line}" for when, line in server.said[heard:]], sep="\n")
        if options.how == "stop":
            os.kill(pid, signal.SIGKILL)
        if options.how == "link":  # it ends by itself, since it has lost the first
            server.until(lambda: server.pids()[rank] != pid, f"rank {rank} ends")
            server.network.set_link(rank + 1, "up")
        server.until(lambda: not any(one["lost"] for one in server.status()["ranks"]), f"rank {rank} is back")
        self.count += 1


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", default="build/release/bin/runahead")
    parser.add_argument("--model", required=True)
    parser.add_argument("--how", choices=["kill", "stop", "link"], default="kill")
    parser.add_argument("--times", type=int, default=100, help="how often a rank is lost [100]")
    parser.add_argument("--ranks", type=int, default=3)
    parser.add_argument("--lost-after", type=float, default=1)
    parser.add_argument("--every", type=float, default=1, help="longest time between a return and the next loss, s [1]")
    parser.add_argument("--vocab", type=int, default=256)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("more", nargs="*", help="further flags of serve, behind --")
    options = parser.parse_args()
    if options.how == "link":
        with Network(options.ranks, "10g", "") as network:
            enter(network.namespace(1))
            lose(options, lambda *arguments: SeparateServer(network, *arguments))
    else:
        lose(options, Server)


def enter(namespace):
    """From now on this process, and what it starts, has the network of `namespace`."""
    clone_newnet = 0x40000000
    with open(pathlib.Path("/run/netns") / namespace, "rb") as file:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.setns(file.fileno(), clone_newnet) != 0:
            raise OSError(ctypes.get_errno(), "setns")


def lose(options, make_server):
    requests = list(trace(options.seed, 60, options.vocab))
    alone = Server(options.program, options.model, 1, 1, [])
    right = right_answers(alone, requests)
    server = make_server(options.program, options.model, options.ranks, options.lost_after, options.more)
    loser = Loser(server, options)
    wrong = collections.Counter()
    over = threading.Event()

    def keep_asking(first):
        number = first
        asked = 0
        while not over.is_set():
            got = answer(server, requests[number % len(requests)])
            asked += 1
            if got != right[number % len(requests)]:
                wrong[f"request {number % len(requests)}: {str(got)[:200]}"] += 1
            number += 7
        return asked

    with concurrent.futures.ThreadPoolExecutor() as pool:
        askers = [pool.submit(keep_asking, first) for first in range(6)]
        try:
            while loser.count < options.times:
                loser.once()
                if loser.count % 10 == 0:
                    print(f"{loser.count} lost, latest report {loser.latest:.2f} s, {sum(wrong.values())} wrong", flush=True)
        finally:
            over.set()
        asked = sum(asker.result() for asker in askers)
    server.until(lambda: all(one["pages_used"] == 0 for one in server.status()["ranks"]), "no page is in use")
    code = server.end()
    print(f"{loser.count} times {options.how}, {asked} requests, {sum(wrong.values())} wrong, "
          f"latest report {loser.latest:.2f} s behind the deadline, exit code {code}")
    for what, times in wrong.most_common(5):
        print(f"  {times}: {what}")
    if wrong or loser.latest > LATE_S or code not in (0, 143):
        sys.exit(1)


if __name__ == "__main__":
    main()
