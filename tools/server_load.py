#!/usr/bin/env python3
"""Loads `runahead serve` with the demo model: tools/server_load.py [--program P] [--clients 500] [--seconds 60]

First what HTTP costs: the time of one-token answers beyond the engine's own, the TTFT of prompts of 4k tokens against the
engine's, and that of a second turn behind each against its first. Then many streams at once: most read their answer and compare it with what `runahead generate` says; some leave in the
middle, read slowly, send garbage or bodies that are too large. Ends with SIGTERM under load. Prints the server's memory over
time, and exits with 1 when a text was wrong, an answer was cut, the memory grew, or the server died.
"""
import argparse
import asyncio
import json
import random
import signal
import statistics
import subprocess
import sys
import time

from server_process import MODEL, PROGRAM, ServerProcess

TOKENS = 12  # of each answer
PROMPTS = [f"Arrived, the {name}, lugger, with {cargo}. " * 3 for name in ("Velvet Otter", "Humble Lark", "Old Tern", "Blue Heron")
           for cargo in ("linen", "timber", "salt", "wool")]


def request(body, path="/v1/completions"):
    text = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(text)}\r\n\r\n"
    return head.encode() + text


class Connection:
    """Sends requests one after the other and reads their answers."""

    def __init__(self, port):
        self.port, self.reader, self.writer, self.used = port, None, None, 0

    async def open(self):
        if self.writer is None:
            self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.port)

    @property
    def idle(self):
        """Seconds since its last answer; 0: it had none."""
        return time.monotonic() - self.used if self.writer is not None and self.used else 0

    def close(self):
        if self.writer is not None:
            self.writer.close()
        self.reader = self.writer = None
        self.used = 0

    async def send(self, data):
        await self.open()
        self.writer.write(data)
        await self.writer.drain()

    async def head(self):
        lines = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        return int(lines[0].split()[1]), dict(line.lower().split(": ", 1) for line in lines[1:] if line)

    async def whole(self):
        status, fields = await self.head()
        body = await self.reader.readexactly(int(fields["content-length"]))
        if fields.get("connection") == "close":
            self.close()
        return status, body

    async def chunks(self):
        """Those of a chunked answer; an IncompleteReadError where it was cut."""
        while True:
            size = int(await self.reader.readline(), 16)
            data = (await self.reader.readexactly(size + 2))[:-2]
            if size == 0:
                self.used = time.monotonic()
                return
            yield data


async def costs(port):
    connection = Connection(port)
    over, ratios = [], []
    body = request({"model": "demo", "prompt": "Harbour log", "max_tokens": 1, "temperature": 0})
    for _ in range(300):
        begin = time.perf_counter()
        await connection.send(body)
        _, answer = await connection.whole()
        over.append((time.perf_counter() - begin) * 1e3 - json.loads(answer)["runahead"]["ttft_ms"])
    print(f"one-token answers: HTTP's own {statistics.median(over):.3f} ms at the median, {sorted(over)[284]:.3f} ms at 95 %")
    turns = []
    for _ in range(7):
        words = f"Log {random.random()}. " + "Arrived, the Velvet Otter, with linen and salt for the keeper. " * 232
        text, first, stats = await ask_as_stream(connection, words)
        ratios.append(first / stats["ttft_ms"])
        _, second, _ = await ask_as_stream(connection, words + text + " What did the Otter carry?")
        turns.append(second / first)
    print(f"4k prompts: TTFT {stats['ttft_ms']:.1f} ms in the engine, the client's {100 * (statistics.median(ratios) - 1):+.2f} % at the median")
    print(f"second turns: the client's TTFT {second:.1f} ms, {100 * statistics.median(turns):.2f} % of the first turn's at the median")
    connection.close()


async def ask_as_stream(connection, prompt):
    """Its text, the time until its first bytes came, ms, and what the engine says that it took."""
    begin = time.perf_counter()
    await connection.send(request({"model": "demo", "prompt": prompt, "max_tokens": 8, "temperature": 0, "stream": True}))
    await connection.head()
    text, first, stats = "", 0, None
    async for chunk in connection.chunks():
        for line in chunk.decode().splitlines():
            if line.startswith("data: {"):
                event = json.loads(line[6:])
                first = first or (time.perf_counter() - begin) * 1e3
                stats = event.get("runahead", stats)
                text += "".join(choice["text"] for choice in event["choices"])
    return text, first, stats


class Load:
    def __init__(self, port, wanted):
        self.port, self.wanted = port, wanted
        self.counts = dict.fromkeys(["right", "wrong", "cut", "left", "slow", "garbage", "oversized", "refused", "late", "stale"], 0)
        self.draining = False

    async def read(self, connection, prompt, slow=False):
        # A server may end a connection that is idle, for as long as this at least when it drains: an answer is not promised then.
        if connection.idle > 0.5:
            self.counts["stale"] += 1
            connection.close()
        body = {"model": "demo", "prompt": prompt, "max_tokens": TOKENS, "temperature": 0, "stream": True}
        await connection.send(request(body))
        status, fields = await connection.head()
        if status != 200:
            self.counts["refused"] += 1
            connection.close()
            return
        text = ""
        async for chunk in connection.chunks():
            for line in chunk.decode().splitlines():
                if line.startswith("data: {"):
                    text += "".join(c["text"] for c in json.loads(line[6:])["choices"])
            if slow:
                await asyncio.sleep(0.05)
        self.counts["right" if text == self.wanted[prompt] else "wrong"] += 1
        if text != self.wanted[prompt]:
            print("wrong:", repr(prompt[:40]), repr(text), "instead of", repr(self.wanted[prompt]))
        if fields.get("connection") == "close":
            connection.close()

    async def client(self, seed, end):
        draw, connection = random.Random(seed), Connection(self.port)
        while time.monotonic() < end and not self.draining:
            prompt, kind = draw.choice(PROMPTS), draw.random()
            try:
                if kind < 0.80:
                    await self.read(connection, prompt)
                elif kind < 0.85:
                    self.counts["slow"] += 1
                    await self.read(connection, prompt, slow=True)
                elif kind < 0.95:
                    self.counts["left"] += 1
                    await connection.send(request({"model": "demo", "prompt": prompt, "max_tokens": 400, "stream": draw.random() < 0.8}))
                    await asyncio.sleep(draw.random() * 0.3)
                    connection.close()
                else:
                    what = "garbage" if kind < 0.98 else "oversized"
                    self.counts[what] += 1
                    data = draw.randbytes(500) + b"\r\n\r\n" if what == "garbage" else b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999\r\n\r\n" + b"x" * 100_000
                    connection.close()
                    await connection.send(data)
                    await connection.reader.read()
                    connection.close()
            except (OSError, asyncio.IncompleteReadError) as error:
                # What was asked before SIGTERM has to be answered; a connection that could not be made asked nothing.
                if kind < 0.85:
                    self.counts["late" if isinstance(error, ConnectionRefusedError) and self.draining else "cut"] += 1
                    if self.counts["cut"] in (1, 10):
                        print("cut:", repr(error))
                connection.close()
        connection.close()


async def run(options, server, wanted):
    await costs(server.port)
    load, begin = Load(server.port, wanted), time.monotonic()
    clients = [asyncio.create_task(load.client(i, begin + options.seconds)) for i in range(options.clients)]
    seen = []
    while time.monotonic() < begin + options.seconds - 2 and server.alive():
        await asyncio.sleep(min(10, options.seconds / 6))
        seen.append(server.memory())
        print(f"{time.monotonic() - begin:6.0f} s: {seen[-1]} MiB, {load.counts}", flush=True)
    server.process.send_signal(signal.SIGTERM)
    load.draining = True
    await asyncio.wait_for(asyncio.gather(*clients), 120)
    print(f"after SIGTERM: {load.counts}")
    code = server.process.wait(timeout=60)
    third = len(seen) // 3
    before, after = max(seen[third:-third]), max(seen[-third:])
    print(f"the server ended with {code}; memory {seen[0]} MiB at first, {before} at most in the second third, {after} in the last")
    right = load.counts["wrong"] == load.counts["cut"] == 0 and load.counts["right"] > 0
    return code == 0 and right and after <= 1.05 * before + 8


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--program", default=PROGRAM)
    parser.add_argument("--clients", type=int, default=500)
    parser.add_argument("--seconds", type=float, default=60)
    options = parser.parse_args()
    common = [options.program, "generate", "--model", MODEL, "--json", "-n", str(TOKENS), "--prompt"]
    wanted = {p: json.loads(subprocess.run([*common, p], check=True, capture_output=True).stdout)["text"] for p in PROMPTS}
    # A small cache, which is soon full of prefixes: what the memory grows by then is something else.
    with ServerProcess(options.program, flags=("--devices", "cpu:2", "--kv-memory", "96MiB")) as server:
        return 0 if asyncio.run(run(options, server, wanted)) else 1


if __name__ == "__main__":
    sys.exit(main())
