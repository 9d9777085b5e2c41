#!/usr/bin/env python3
"""Sends broken requests to `runahead serve`: tools/server_fuzz.py [--requests 1000000] [--seed 1] [--program P]

Each is drawn from the seed: bodies with other values, types, fields and bytes, mutated heads and framing, garbage, heads and bodies
that are too large, connections that end in the middle; whole or in pieces, many on one connection. Beside them right requests are
asked and compared. Exits with 1 when the server died, hung, answered with 500 or what is no HTTP, gave a wrong answer, took more
and more memory, or did not end well.
"""
import argparse
import collections
import copy
import json
import multiprocessing
import random
import signal
import socket
import sys
import tempfile
import time
from pathlib import Path

from server_process import PROGRAM, ServerProcess, copy_demo

MESSAGES = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "What cargo?"}]
SEEDS = [
    ("/v1/completions", {"model": "demo", "prompt": "Harbour log", "max_tokens": 2, "temperature": 0.5, "seed": 3, "n": 2}),
    ("/v1/completions", {"prompt": ["Arrived", "Left"], "max_tokens": 1, "stop": ["x", "y"], "logprobs": 2, "logit_bias": {"5": 1.5}}),
    ("/v1/completions", {"prompt": [5, 6, 7], "max_tokens": 2, "stream": True, "stream_options": {"include_usage": True}, "echo": True}),
    ("/v1/completions", {"prompt": "x", "max_tokens": 1, "return_progress": True, "stream": True, "top_k": 4, "min_p": 0.1, "ignore_eos": True}),
    ("/v1/completions", {"prompt": "x", "max_tokens": 1, "presence_penalty": 1, "frequency_penalty": -1, "repetition_penalty": 1.1, "deadline_ms": 9e5}),
    ("/v1/chat/completions", {"messages": MESSAGES, "max_tokens": 1, "logprobs": True, "top_logprobs": 2}),
    ("/v1/chat/completions", {"messages": MESSAGES, "max_completion_tokens": 1, "chat_template_kwargs": {"x": [1]}, "stream": True}),
    ("/v1/chat/completions", {"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}]}], "max_tokens": 1, "tools": []}),
    ("/tokenize", {"prompt": "In came the Otter", "add_special_tokens": True, "return_token_strs": True}),
    ("/tokenize", {"messages": MESSAGES}),
    ("/detokenize", {"tokens": [1, 2, 3, 500]}),
]
VALUES = [None, True, False, 0, -1, 1, 2, 1.5, -0.0, 1e308, 1e-320, 2**31, 2**63, 2**64, -(2**63) - 1, "", "x", "\0", "\ud800", "é" * 50, [], {},
          [[]], [None], {"": None}, ["a", 1], [[1], "b"], [-1], [99999], {"type": "image_url"}, "demo", "none", "stop", [1] * 300, "a" * 3000]
NAMES = ["model", "prompt", "n", "best_of", "suffix", "tools", "response_format", "messages", "role", "content", "type", "logit_bias", "user",
         "metadata", "priority", "chat_template", "continue_final_message", "add_generation_prompt", "stop_token_ids", "documents", "__proto__", ""]
LINES = [b"Content-Length: 5\r\n", b"Content-Length: -1\r\n", b"Content-Length: 18446744073709551616\r\n", b"Transfer-Encoding: chunked\r\n",
         b"Transfer-Encoding: gzip, chunked\r\n", b"Expect: 100-continue\r\n", b"Expect: x\r\n", b"Connection: close\r\n", b"Connection: upgrade\r\n",
         b"Upgrade: h2c\r\n", b"Host: evil.example\r\n", b"Origin: null\r\n", b": x\r\n", b" folded\r\n", b"X\r\n", b"X: \x00\x01\xff\r\n", b"\r\n", b"\n",
         b"x-runahead-deadline-ms: nan\r\n", b"traceparent: 00-\r\n", b"x-request-id: \"\\\r\n", b"A: " + b"b" * 9000 + b"\r\n", b"Content-Type: text/html\r\n"]
STARTS = [b"GET / HTTP/1.1", b"GET /metrics HTTP/1.1", b"GET /health HTTP/1.0", b"HEAD /v1/models HTTP/1.1", b"OPTIONS * HTTP/1.1", b"PRI * HTTP/2.0",
          b"POST /v1/completions HTTP/1.1", b"GET http://localhost/ready HTTP/1.1", b"GET /page/../../etc/passwd HTTP/1.1", b"GET /%00%zz? HTTP/1.1",
          b"DELETE /v1/models/demo HTTP/1.1", b"GET /runahead/state?known=%ff HTTP/1.1", b"POST /tokenize HTTP/9.9", b"G\xc3\x89T / HTTP/1.1", b"GET  / HTTP/1.1"]
WANTED = {"model": "demo", "prompt": "Arrived, the Velvet Otter, with linen.", "max_tokens": 4, "temperature": 0}


def message(path, body, more=b""):
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n".encode()
    return head + more + b"\r\n" + body


class Mutator:
    def __init__(self, seed):
        self.draw = random.Random(seed)

    def place(self, value):
        """A container within `value`, and a key of it; None where there is none."""
        found = None
        while isinstance(value, (dict, list)) and value:
            key = self.draw.choice(list(value)) if isinstance(value, dict) else self.draw.randrange(len(value))
            found = (value, key)
            if self.draw.random() < 0.5:
                break
            value = value[key]
        return found

    def value(self, depth=0):
        if self.draw.random() < 0.8 or depth > 3:
            return copy.deepcopy(self.draw.choice(VALUES))
        if self.draw.random() < 0.5:
            return [self.value(depth + 1) for _ in range(self.draw.randrange(4))]
        return {self.draw.choice(NAMES): self.value(depth + 1) for _ in range(self.draw.randrange(4))}

    def body(self):
        """A path, and JSON that is changed in its values or in its bytes."""
        path, seed = self.draw.choice(SEEDS)
        body = copy.deepcopy(seed)
        for _ in range(self.draw.choice((0, 1, 1, 2, 2, 3, 3, 4))):
            place, kind = self.place(body), self.draw.random()
            if place is None or kind < 0.2:
                body[self.draw.choice(NAMES)] = self.value()
            elif kind < 0.35:
                del place[0][place[1]]
            else:
                place[0][place[1]] = self.value()
        text = json.dumps(body, ensure_ascii=self.draw.random() < 0.5).encode(errors="surrogatepass")
        if self.draw.random() < 0.3:
            text = self.bytes(text)
        if self.draw.random() < 0.005:
            text = self.draw.choice((b"[", b'{"a":')) * self.draw.randrange(1, 20_000)
        return self.draw.choice((path, path, path, "/v1/completions")), text

    def bytes(self, data):
        data = bytearray(data)
        for _ in range(self.draw.choice((1, 1, 2, 4, 16))):
            at, kind = self.draw.randrange(len(data) + 1), self.draw.random()
            if kind < 0.4 and at < len(data):
                data[at] ^= 1 << self.draw.randrange(8)
            elif kind < 0.6:
                data[at:at] = self.draw.randbytes(self.draw.randrange(1, 5))
            elif kind < 0.8:
                del data[at:at + self.draw.randrange(1, 9)]
            elif kind < 0.9:
                data[at:at] = data[:self.draw.randrange(len(data) + 1)][-40:]
            else:
                del data[at:]
        return bytes(data)

    def chunked(self, body):
        parts, at = [], 0
        while at < len(body):
            size = self.draw.randrange(1, 60)
            part = body[at:at + size]
            length = self.draw.choice((b"%x" % len(part),) * 8 + (b"0%X;a=b" % len(part), b"%x" % (len(part) + 1), b"ffffffffffffffff", b"-1", b"", b"zz"))
            parts.append(length + b"\r\n" + part + self.draw.choice((b"\r\n",) * 12 + (b"\n", b"")))
            at += size
        return b"".join(parts) + self.draw.choice((b"0\r\n\r\n",) * 6 + (b"0\r\nX: y\r\n\r\n", b"0\r\n", b"", b"\r\n" * 50))

    def http(self):
        """A request whose head or framing is wrong, as a rule."""
        path, body = self.body()
        kind = self.draw.random()
        lines = b"".join(self.draw.choice(LINES) for _ in range(self.draw.choice((0, 1, 1, 2, 5))))
        if kind < 0.35:
            data = message(path, body, lines)
        elif kind < 0.6:
            data = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n".encode() + self.chunked(body)
        elif kind < 0.85:
            data = self.draw.choice(STARTS) + b"\r\nHost: localhost\r\n" + lines + b"\r\n"
        elif kind < 0.97:
            return self.draw.randbytes(self.draw.randrange(1, 600)) + self.draw.choice((b"", b"\r\n\r\n"))
        elif kind < 0.985:
            return b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"X: " + b"y" * 60_000 + b"\r\n\r\n"
        else:
            size = self.draw.choice((2**20 + 1, 2**40, 10**6))  # a million is taken, and does not come
            return b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % size + b"x" * 50_000
        return self.bytes(data) if self.draw.random() < 0.5 else data


class Answers:
    """Reads the answers of a connection and counts their statuses."""

    def __init__(self, connection, statuses):
        self.connection, self.statuses, self.buffer = connection, statuses, b""

    def more(self):
        data = self.connection.recv(65536)
        self.buffer += data
        return bool(data)

    def until(self, mark):
        while mark not in self.buffer:
            if not self.more():
                return None
        found, self.buffer = self.buffer.split(mark, 1)
        return found

    def exactly(self, size):
        while len(self.buffer) < size:
            if not self.more():
                return None
        found, self.buffer = self.buffer[:size], self.buffer[size:]
        return found

    def next(self):
        """Whether there was one more, and the connection goes on. Raises ValueError for what is no answer."""
        head = self.until(b"\r\n\r\n")
        if head is None:
            if self.buffer:
                raise ValueError(f"half a head: {self.buffer[:80]}")
            return False
        lines = head.decode("latin1").split("\r\n")
        if not lines[0].startswith("HTTP/1.1 "):
            raise ValueError(f"no status: {lines[0][:80]}")
        status, fields = int(lines[0].split()[1]), dict(line.lower().split(": ", 1) for line in lines[1:])
        if status == 100:
            return self.next()
        self.statuses[status] += 1
        if "content-length" in fields:
            body = self.exactly(int(fields["content-length"]))
            if status >= 400 and body:
                json.loads(body)
        elif fields.get("transfer-encoding") == "chunked":
            while (size := self.until(b"\r\n")) is not None:
                data = self.exactly(int(size, 16) + 2)
                if data is None or size == b"0":
                    break
        return fields.get("connection") != "close"


def send_in_pieces(connection, data, draw):
    at = 0
    while at < len(data):
        size = draw.choice((1, 3, 20, 200, 5000))
        connection.sendall(data[at:at + size])
        at += size


def one_connection(port, mutator, statuses):
    """Returns how many requests were sent."""
    draw = mutator.draw
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if draw.random() < 0.2:  # bodies, whose framing is right
            requests = [message(*mutator.body()) for _ in range(draw.randrange(1, 32))]
            data, leaves = b"".join(requests), draw.random() < 0.03
        else:
            data, requests, leaves = mutator.http(), [None], draw.random() < 0.2
        try:
            if draw.random() < 0.1 and len(data) < 20_000:
                send_in_pieces(connection, data, draw)
            else:
                connection.sendall(data)
            if leaves:
                statuses["left"] += len(requests)
                return len(requests)
            answers = Answers(connection, statuses)
            if requests[0] is None:  # which may wait for more
                connection.shutdown(socket.SHUT_WR)
                while data[:4] != b"HEAD" and answers.more():
                    pass
                if answers.buffer[:9] == b"HTTP/1.1 ":
                    statuses[int(answers.buffer[9:12])] += 1
            else:
                for _ in requests:
                    if not answers.next():
                        break
        except (ConnectionResetError, BrokenPipeError):
            statuses["reset"] += 1
        return len(requests)


def work(port, seed, wanted, sent, results):
    mutator, statuses = Mutator(seed), collections.Counter()
    try:
        while sent.value < wanted:
            count = one_connection(port, mutator, statuses)
            with sent.get_lock():
                sent.value += count
    except (OSError, ValueError) as error:
        statuses[f"worker {seed}: {error!r}"] += 1
    results.put(statuses)


def ask(port):
    """What the server says to a right request."""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.sendall(message("/v1/completions", json.dumps(WANTED).encode(), b"Connection: close\r\n"))
        data = b""
        while part := connection.recv(65536):
            data += part
    return json.loads(data.split(b"\r\n\r\n", 1)[1])["choices"][0]["text"]


def watch(server, workers, sent, wanted):
    """Returns the memory over time, and the right requests that were answered otherwise."""
    text, memory, wrong, asked, begin = ask(server.port), [], 0, 0, time.monotonic()
    while any(worker.is_alive() for worker in workers) and server.alive():
        time.sleep(1)
        wrong += ask(server.port) != text
        asked += 1
        if asked % 15 == 1:
            memory.append(server.memory())
            print(f"{time.monotonic() - begin:6.0f} s: {sent.value} of {wanted} requests, {memory[-1]} MiB, {asked} right ones, {wrong} wrong", flush=True)
    wrong += ask(server.port) != text
    return memory, wrong


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--program", default=PROGRAM)
    parser.add_argument("--requests", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=12)
    options = parser.parse_args()
    flags = ["--devices", "cpu:2", "--kv-memory", "64MiB", "--max-body", "1MiB", "--header-timeout", "10", "--body-timeout", "10", "--idle-timeout", "30"]
    sent, results = multiprocessing.Value("q", 0), multiprocessing.Queue()
    with tempfile.TemporaryDirectory() as folder, ServerProcess(options.program, copy_demo(Path(folder) / "demo", context=64), flags) as server:
        workers = [multiprocessing.Process(target=work, args=(server.port, options.seed * 1000 + i, options.requests, sent, results), daemon=True)
                   for i in range(options.workers)]
        for worker in workers:
            worker.start()
        memory, wrong = watch(server, workers, sent, options.requests)
        statuses = sum((results.get(timeout=60) for _ in workers), collections.Counter())
        server.process.send_signal(signal.SIGTERM)
        processor = server.processor()
        code = server.process.wait(timeout=60)
    print(f"{sent.value} requests, {processor:.0f} s of a processor, statuses and others: {dict(sorted(statuses.items(), key=str))}")
    half = len(memory) // 2
    before, after = max(memory[:half] or memory), max(memory[half:])
    print(f"memory {before} MiB at most in the first half, {after} MiB in the second; {wrong} wrong answers; the server ended with {code}")
    bad = [name for name in statuses if name == 500 or str(name).startswith("worker")]
    return 0 if code == wrong == 0 and not bad and after <= 1.05 * before + 8 else 1


if __name__ == "__main__":
    sys.exit(main())
