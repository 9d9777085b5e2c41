"""Serves the page's files with answers and states that are made up: what a real server shows seldom."""
import http.server
import itertools
import json
import pathlib
import re
import threading
import urllib.parse

SECONDS = 20  # that the mock waits for a test, at most
TYPES = {".html": "text/html; charset=utf-8", ".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml"}
ANSWER = "Rotterdam, says the log.\n\n```python\nprint('a < b')\n```\n- one **bold** thing\n- two"


def timeline(ranks=2, layers=6, length_ms=800.0):
    """Events of a chain: each rank waits for a little, computes, and hands over."""
    events = []
    for rank in range(ranks):
        at = 0.0
        for layer in range(layers):
            wait = 12.0 * rank / (layer + 1)
            step = (length_ms - 60) / layers - wait
            if rank > 0:
                events.append({"rank": rank, "kind": "wait", "begin_ms": at, "end_ms": at + wait})
                events.append({"rank": rank, "kind": "receive", "begin_ms": at, "end_ms": at + wait})
            events.append({"rank": rank, "kind": "compute", "begin_ms": at + wait, "end_ms": at + wait + step})
            at += wait + step
            if rank + 1 < ranks:
                events.append({"rank": rank, "kind": "send", "begin_ms": at, "end_ms": at + 9})
    return events


def recent(number, ranks=2, tokens=6012):
    cuts = [0, *(round(tokens * (1 - 0.45 ** (i + 1))) for i in range(ranks - 1)), tokens]
    return {"id": f"cmpl-{number}", "prompt_tokens": tokens, "cached_tokens": 128 * (number % 3), "new_tokens": 42, "finish": "stop",
            "predicted_ttft_ms": 780.0, "ttft_ms": 812.5, "tpot_ms": 4.2, "queued_ms": 1.4, "members": list(range(ranks)), "cuts": cuts, "rounds": 1,
            "timeline": timeline(ranks)}


def rank(**other):
    return {"device": "cpu", "pages": 512, "pages_used": 48, "pages_cached": 120, "doing": "idle", "requests": 0, "busy_s": 1.5,
            "wait_s": 0.1, "bytes_sent": 123456, **other}


def first_state():
    return {"model": "mock", "uptime_s": 12.5, "healthy": True, "failure": "", "ranks": [rank(), rank(pages_used=0, bytes_sent=0)],
            "waiting": 0, "running": 0,
            "totals": {"requests": 0, "failed": 0, "cancelled": 0, "prompt_tokens": 0, "cached_tokens": 0, "new_tokens": 0},
            "requests": [], "recent": []}


class Mock:
    """`plan` is what the next completions meet: "answer", "hold", "key", "busy", "broken", "late error" or "no chat"."""

    def __init__(self, page, policy, port=0):
        self.page, self.policy = pathlib.Path(page), policy
        self.state, self.plan, self.text, self.key = first_state(), "answer", ANSWER, ""
        self.bodies, self.left, self.closed = [], threading.Event(), False
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", port), self._handler())
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self):
        self.closed = True  # connections that are open get no answer any more
        self.server.shutdown()
        self.server.server_close()

    def state_after(self, path):
        """Of the recent prompts only those that are newer than the one that the page names."""
        known = urllib.parse.parse_qs(urllib.parse.urlsplit(path).query).get("known", [""])[0]
        newer = list(itertools.takewhile(lambda entry: entry["id"] != known, self.state["recent"]))
        return {**self.state, "recent": newer}

    def _handler(mock):
        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def send(self, status, text, kind="application/json", **fields):
                data = text.encode() if isinstance(text, str) else text
                self.send_response(status)
                self.send_header("content-type", kind)
                self.send_header("content-length", str(len(data)))
                self.send_header("content-security-policy", mock.policy)
                for name, value in fields.items():
                    self.send_header(name.replace("_", "-"), value)
                self.end_headers()
                self.wfile.write(data)

            def refuse(self, status, message, code, **fields):
                self.send(status, json.dumps({"error": {"message": message, "type": code, "param": None, "code": code}}), **fields)

            def locked(self):
                if not mock.key or self.headers.get("authorization") == f"Bearer {mock.key}":
                    return False
                self.refuse(401, "The key is wrong <b>or</b> missing.", "invalid_api_key")
                return True

            def parse_request(self):
                self.close_connection = mock.closed
                return not mock.closed and super().parse_request()

            def do_GET(self):
                name = "index.html" if self.path == "/" else self.path.removeprefix("/page/")
                file = mock.page / name
                if self.path.split("?")[0] == "/runahead/state":
                    if not self.locked():
                        self.send(200, json.dumps(mock.state_after(self.path)))
                elif name == "sample.json":
                    self.send(200, json.dumps({"name": "harbour log", "text": "Log book.\n" * 400, "questions": ["Where from?", "Where to?", "What cargo?"]}))
                elif "/" not in name and file.is_file() and file.suffix in TYPES:
                    self.send(200, file.read_bytes(), TYPES[file.suffix])
                else:
                    self.refuse(404, f"there is nothing at {self.path}", "not_found")

            def chunk(self, data):
                event = f"data: {json.dumps(data) if isinstance(data, dict) else data}\n\n".encode()
                self.wfile.write(b"%x\r\n%s\r\n" % (len(event), event))

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                mock.bodies.append((self.path, body))
                chat = self.path.startswith("/v1/chat")
                if self.locked():
                    return
                if mock.plan == "busy":
                    return self.refuse(429, "64 requests wait already.", "queue_full", retry_after="7")
                if mock.plan == "no chat" and chat:
                    return self.refuse(501, "the model has no chat template", "no_chat")
                self.send_response(200)
                self.send_header("content-type", "text/event-stream")
                self.send_header("transfer-encoding", "chunked")
                self.end_headers()
                try:
                    self.stream(chat)
                except OSError:
                    mock.left.set()

            def stream(self, chat):
                for done in (1024, 3072, 6012):
                    progress = {"total": 6012, "cache": 512, "processed": done, "time_ms": done / 8, "predicted_left_ms": (6012 - done) / 8}
                    self.chunk({"choices": [], "prompt_progress": progress})
                    if mock.plan == "hold" and done == 3072:
                        self.wait_until_gone()
                for piece in re.findall(r"(?s).{1,7}", mock.text):
                    choice = {"index": 0, "finish_reason": None, **({"delta": {"content": piece}} if chat else {"text": piece})}
                    self.chunk({"choices": [choice]})
                    if mock.plan == "broken":
                        self.close_connection = True
                        return
                    if mock.plan == "late error":
                        return self.chunk({"error": {"message": "rank 1 is lost", "type": "server_error", "code": "device"}})
                self.chunk({"choices": [{"index": 0, "finish_reason": "stop", **({"delta": {}} if chat else {"text": ""})}]})
                usage = {"prompt_tokens": 6012, "completion_tokens": 42, "total_tokens": 6054, "prompt_tokens_details": {"cached_tokens": 512}}
                self.chunk({"choices": [], "usage": usage, "runahead": {"predicted_ttft_ms": 780.0, "ttft_ms": 812.5, "tpot_ms": 4.2, "queued_ms": 1.4, "cached_tokens": 512, "members": [0, 1], "cuts": [0, 3400, 6012], "rounds": 1}})
                self.chunk("[DONE]")
                self.wfile.write(b"0\r\n\r\n")

            def wait_until_gone(self):
                self.connection.settimeout(SECONDS)
                if self.connection.recv(1) == b"":
                    raise ConnectionError("the page has left")

        return Handler
