"""Drives a headless Chromium over a pipe with the DevTools protocol; nothing but Python's own library."""
import base64
import fcntl
import json
import os
import queue
import shutil
import subprocess
import tempfile
import threading
import time

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
KEYS = {  # name: (code, virtual key code, text)
    "Enter": ("Enter", 13, "\r"), "Escape": ("Escape", 27, ""), "Tab": ("Tab", 9, ""), " ": ("Space", 32, " "),
}
SHIFT = 8


def find_chromium():
    """The path of a Chromium, or None."""
    return next((path for path in map(shutil.which, NAMES) if path), None)


def pipe_above_others():
    """A pipe whose descriptors are none of those that a child has by their numbers."""
    ends = os.pipe()
    above = tuple(fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 20) for end in ends)
    for end in ends:
        os.close(end)
    return above


class Browser:
    """One browser process with one page. What it logs, throws and asks for is kept: `console`, `requests`."""

    def __init__(self, program, width=1280, height=860):
        self.profile = tempfile.TemporaryDirectory(prefix="runahead-page-", ignore_cleanup_errors=True)
        to_read, self._to = pipe_above_others()
        self._from, to_write = pipe_above_others()
        command = [program, "--headless=new", "--remote-debugging-pipe", "--no-sandbox", "--disable-gpu", "--no-first-run",
                   "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
                   "--disable-default-apps", "--hide-scrollbars", f"--user-data-dir={self.profile.name}", "about:blank"]
        # The browser reads its descriptor 3 and writes its descriptor 4.
        shuffle = 'exec 3<&"$1" 4>&"$2"; shift 2; exec "$@"'
        self.process = subprocess.Popen(["bash", "-c", shuffle, "bash", str(to_read), str(to_write), *command],
                                        pass_fds=(to_read, to_write), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        os.close(to_read)
        os.close(to_write)
        self.console, self.requests = [], []
        self._number = 0
        self._answers = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()
        self._session = None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        self.resize(width, height)

    def _read(self):
        rest = b""
        while True:
            try:
                got = os.read(self._from, 1 << 16)
            except OSError:
                got = b""
            if not got:
                return self._answers.put(None)
            *messages, rest = (rest + got).split(b"\0")
            for message in messages:
                self._take(json.loads(message))

    def _take(self, message):
        if "id" in message:
            return self._answers.put(message)
        method, params = message["method"], message.get("params", {})
        if method == "Runtime.exceptionThrown":
            details = params["exceptionDetails"]
            self.console.append(details.get("exception", {}).get("description") or details["text"])
        elif method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning", "assert"):
            self.console.append(" ".join(str(a.get("value", a.get("description"))) for a in params["args"]))
        elif method == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            self.console.append(f'{params["entry"]["text"]} {params["entry"].get("url", "")}'.strip())
        elif method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])

    def call(self, method, timeout=30, **params):
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        until = time.monotonic() + timeout
        while True:
            answer = self._answers.get(timeout=max(0.01, until - time.monotonic()))
            if answer is None:
                raise RuntimeError(f"{method}: the browser has ended")
            if answer["id"] != self._number:
                continue
            if "error" in answer:
                raise RuntimeError(f'{method}: {answer["error"]["message"]}')
            return answer["result"]

    def run(self, script, timeout=30):
        """The value of an expression, a promise's too."""
        result = self.call("Runtime.evaluate", timeout=timeout, expression=script, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in result:
            details = result["exceptionDetails"]
            raise RuntimeError(details.get("exception", {}).get("description") or details["text"])
        return result["result"].get("value")

    def wait(self, condition, seconds=20):
        """Returns once the expression is true, or fails with what the page shows then."""
        script = f"""new Promise((done) => {{
          const end = performance.now() + {seconds * 1000};
          const look = () => {{
            let good = false;
            try {{ good = Boolean({condition}); }} catch {{ good = false; }}
            if (good) done(true); else if (performance.now() > end) done(false); else setTimeout(look, 15);
          }};
          look();
        }})"""
        if not self.run(script, timeout=seconds + 10):
            raise AssertionError(f"never true: {condition}\nthe page shows: {self.run('document.body.innerText')[:3000]}")

    def open(self, url):
        self.call("Page.navigate", url=url)
        self.wait(f"location.href.startsWith({json.dumps(url)}) && document.readyState === 'complete'")

    def key(self, name, shift=False):
        code, number, text = KEYS[name]
        common = {"key": name, "code": code, "windowsVirtualKeyCode": number, "modifiers": SHIFT if shift else 0}
        self.call("Input.dispatchKeyEvent", type="keyDown" if text else "rawKeyDown", **common, **({"text": text} if text else {}))
        self.call("Input.dispatchKeyEvent", type="keyUp", **common)

    def write(self, text):
        self.call("Input.insertText", text=text)

    def resize(self, width, height):
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def prefer(self, **features):
        """For instance prefer(prefers_color_scheme="dark")."""
        media = [{"name": name.replace("_", "-"), "value": value} for name, value in features.items()]
        self.call("Emulation.setEmulatedMedia", features=media)

    def picture(self, path):
        with open(path, "wb") as file:
            file.write(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))

    def close(self):
        self.process.terminate()
        try:
            self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        os.close(self._to)
        self.profile.cleanup()
