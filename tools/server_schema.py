#!/usr/bin/env python3
"""Tries what `runahead serve` answers against its own description: tools/server_schema.py [--cases 10000] [--seed 1]

Runs schemathesis (PyPI), which has to be on the PATH, with all of its checks: right and wrong requests to every route, until so
many cases were tried. The model is the demo's with a context of 4,096 tokens, longer than texts that are drawn. Exits with 1 when
schemathesis finds anything, or the server does not end well.
"""
import argparse
import re
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from server_process import PROGRAM, ServerProcess, copy_demo


def run(port, cases, seed, folder):
    """Returns how many cases there were, and whether all was right."""
    command = ["schemathesis", "run", f"http://127.0.0.1:{port}/openapi.json", "--checks", "all", "-n", str(cases), "--seed", str(seed)]
    command += ["--request-timeout", "600", "--max-response-time", "600"]  # how fast the machine is does not matter
    ended = subprocess.run(command, capture_output=True, text=True, cwd=folder)
    tried = re.search(r"([0-9]+) generated", ended.stdout)
    print(f"seed {seed}: {tried[0] if tried else 'nothing generated'}, schemathesis ended with {ended.returncode}", flush=True)
    if ended.returncode != 0:
        print(ended.stdout, ended.stderr)
    return int(tried[1]) if tried else 0, ended.returncode == 0 and tried is not None


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--program", default=PROGRAM)
    parser.add_argument("--cases", type=int, default=10_000, help="cases to try at least")
    parser.add_argument("--each", type=int, default=500, help="examples for each route and seed")
    parser.add_argument("--seed", type=int, default=1, help="the first one")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, ServerProcess(options.program, copy_demo(Path(folder) / "demo", context=4096)) as server:
        total, right, seed = 0, True, options.seed
        while right and total < options.cases:
            tried, right = run(server.port, options.each, seed, folder)
            total, seed = total + tried, seed + 1
        server.process.send_signal(signal.SIGTERM)
        code = server.process.wait(timeout=60)
    print(f"{total} cases, {'no' if right else 'a'} violation; the server ended with {code}")
    return 0 if right and code == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
