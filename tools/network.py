#!/usr/bin/env python3
"""Runs a command once per host of a network that is made for it on this machine, and takes the network down again.

    tools/network.py --hosts 3 --network 1g -- build/release/bin/runahead bench --model DIR --contexts 4096

Each host is a network namespace with a name of its own (host1, host2, ...) and the address 10.77.0.1, .2, ... The
command sees RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT, UCX_TLS=tcp, since the hosts share a kernel,
and RUNAHEAD_SECRET_FILE. Rank 0 has stdin and stdout. Networks:
    10g, 1g, 100m   that rate for what leaves and for what enters each host
    6mbit           any such rate, for each host
    slow-link       1 Gb/s, but 100 Mb/s at the second host
    loss            1 Gb/s, 1 % of the packets are lost
    delay           1 Gb/s, 25 ms each way: 50 ms there and back
    stall           1 Gb/s, and all of it stands still for a second in every ten
The first five are veth and tc's tbf. The others are TUN devices and network_relay (the dev preset builds it), with
packets of 9000 bytes. --share gives each host's processes that share of one processor, by a cgroup.
Needs root, ip, tc and unshare; where something is missing it says so and exits with 77. The exit code is that of the
first host that failed.
"""
import argparse
import os
import pathlib
import random
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile

RATES = {"10g": ["10gbit"], "1g": ["1gbit"], "100m": ["100mbit"], "slow-link": ["1gbit", "100mbit", "1gbit"]}
BURSTS = {"10gbit": "4mb", "1gbit": "512kb"}  # other rates are below these
SMALL_BURST = "128kb"
RELAYED = {  # RATE_MBIT DELAY_MS LOSS_SHARE STALL_S EVERY_S
    "loss": ["1000", "0", "0.01", "0", "0"],
    "delay": ["1000", "25", "0", "0", "0"],
    "stall": ["1000", "0", "0", "1", "10"],
}


def skip(why):
    print(f"network.py: skipped: {why}", file=sys.stderr)
    sys.exit(77)


def run(*command):
    return subprocess.run(command, capture_output=True, text=True)


def must(*command):
    done = run(*command)
    if done.returncode != 0:
        skip(f"{' '.join(command)}: {done.stderr.strip() or done.stdout.strip()}")


class Cgroup:
    """Shares of processors, one for each host."""

    def __init__(self, name):
        self.made = []
        self.name = name
        v1 = pathlib.Path("/sys/fs/cgroup/cpu")
        self.v1 = v1.is_dir()
        self.root = v1 if self.v1 else pathlib.Path("/sys/fs/cgroup")

    def make(self, host, share):
        folder = self.root / f"{self.name}-{host}"
        period = 10_000  # us
        try:
            folder.mkdir()
            self.made.append(folder)
            if self.v1:
                (folder / "cpu.cfs_period_us").write_text(str(period))
                (folder / "cpu.cfs_quota_us").write_text(str(int(share * period)))
                (folder / "cpu.shares").write_text("20000")
            else:
                (folder / "cpu.max").write_text(f"{int(share * period)} {period}")
                (folder / "cpu.weight").write_text("5000")
        except OSError as error:
            skip(f"no cgroup with a share of a processor: {error}")
        return folder / "cgroup.procs"

    def remove(self):
        for folder in self.made:
            try:
                folder.rmdir()
            except OSError:
                pass


class Network:
    """Hosts 1 to `hosts`. Use in a with statement."""

    def __init__(self, hosts, kind, relay, seed=1):
        self.hosts, self.kind, self.relay_program, self.seed = hosts, kind, relay, seed
        self.tag = f"ra{os.getpid()}"
        self.relay = None

    def namespace(self, host):
        return f"{self.tag}-{host}"

    def __enter__(self):
        if os.geteuid() != 0:
            skip("it needs root")
        for tool in ("ip", "tc", "unshare"):
            if shutil.which(tool) is None:
                skip(f"there is no {tool}")
        try:
            for host in range(1, self.hosts + 1):
                must("ip", "netns", "add", self.namespace(host))
                must("ip", "-n", self.namespace(host), "link", "set", "lo", "up")
            if self.kind in RELAYED:
                self.make_relayed()
            else:
                self.make_switched()
        except BaseException:
            self.__exit__()
            raise
        return self

    def device(self, host):
        return f"{self.tag}h{host}"

    def bring_up(self, host):
        must("ip", "-n", self.namespace(host), "address", "add", f"10.77.0.{host}/24", "dev", self.device(host))
        must("ip", "-n", self.namespace(host), "link", "set", self.device(host), "up")

    def limit(self, namespace, device, rate):
        must("tc", "-n", namespace, "qdisc", "add", "dev", device, "root", "tbf", "rate", rate, "burst",
             BURSTS.get(rate, SMALL_BURST), "latency", "50ms")

    def make_switched(self):
        switch = self.namespace("switch")
        must("ip", "netns", "add", switch)
        must("ip", "-n", switch, "link", "add", "bridge", "type", "bridge")
        must("ip", "-n", switch, "link", "set", "bridge", "up")
        rates = RATES.get(self.kind, [self.kind])
        for host in range(1, self.hosts + 1):
            port = f"{self.tag}p{host}"
            must("ip", "link", "add", self.device(host), "netns", self.namespace(host), "type", "veth", "peer", "name",
                 port, "netns", switch)
            must("ip", "-n", switch, "link", "set", port, "master", "bridge", "up")
            self.bring_up(host)
            rate = rates[(host - 1) % len(rates)]
            self.limit(self.namespace(host), self.device(host), rate)
            self.limit(switch, port, rate)

    def make_relayed(self):
        if not os.access(self.relay_program, os.X_OK):
            skip(f"there is no {self.relay_program}; the dev preset builds network_relay")
        devices = [self.device(host) for host in range(1, self.hosts + 1)]
        self.relay = subprocess.Popen([self.relay_program, *RELAYED[self.kind], str(self.seed), *devices],
                                      stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        if self.relay.stdout.readline() != "ready\n":
            skip("network_relay makes no TUN devices here")
        for host in range(1, self.hosts + 1):
            must("ip", "link", "set", self.device(host), "netns", self.namespace(host))
            must("ip", "-n", self.namespace(host), "link", "set", self.device(host), "mtu", "9000")
            self.bring_up(host)

    def set_link(self, host, state):
        """state: "up" or "down"."""
        subprocess.run(["ip", "-n", self.namespace(host), "link", "set", self.device(host), state], check=True)

    def command_on(self, host, command):
        return ["ip", "netns", "exec", self.namespace(host), "unshare", "--uts", "sh", "-c",
                f'hostname host{host} && exec "$@"', "sh", *command]

    def __exit__(self, *_):
        if self.relay is not None:
            self.relay.stdin.close()
            self.relay.wait()
        for host in [*range(1, self.hosts + 1), "switch"]:
            run("ip", "netns", "delete", self.namespace(host))


def network_kind(text):
    if text in RATES or text in RELAYED or re.fullmatch(r"[1-9][0-9]{0,2}mbit", text):
        return text
    raise argparse.ArgumentTypeError(f"expected {', '.join([*RATES, *RELAYED])} or a rate like 6mbit, got '{text}'")


def environment(rank, ranks, port, secret):
    return {**os.environ, "RANK": str(rank), "WORLD_SIZE": str(ranks), "LOCAL_RANK": "0", "MASTER_ADDR": "10.77.0.1",
            "MASTER_PORT": str(port), "UCX_TLS": "tcp", "RUNAHEAD_SECRET_FILE": secret}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hosts", type=int, default=3)
    parser.add_argument("--network", type=network_kind, default="1g")
    parser.add_argument("--share", help="processors of each host, or a list with one number for each: 0.5 or 1,0.33")
    parser.add_argument("--relay", default="build/dev/bin/network_relay")
    parser.add_argument("command", nargs="+", help="behind --")
    options = parser.parse_args()
    shares = [float(share) for share in options.share.split(",")] if options.share else []
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    port = random.randrange(20000, 32000)
    cgroup = Cgroup(f"runahead-{os.getpid()}")
    with Network(options.hosts, options.network, options.relay) as network, tempfile.NamedTemporaryFile("w") as secret:
        secret.write(secrets.token_hex(32))
        secret.flush()
        ranks = []
        try:
            for host in range(1, options.hosts + 1):
                procs = cgroup.make(host, shares[(host - 1) % len(shares)]) if shares else None
                command = network.command_on(host, options.command)
                if procs is not None:
                    command = ["sh", "-c", 'echo $$ > "$0" && exec "$@"', str(procs), *command]
                ranks.append(subprocess.Popen(command, env=environment(host - 1, options.hosts, port, secret.name),
                                              stdin=None if host == 1 else subprocess.DEVNULL,
                                              stdout=None if host == 1 else subprocess.DEVNULL))
            codes = [rank.wait() for rank in ranks]
        finally:
            for rank in ranks:
                if rank.poll() is None:
                    rank.kill()
                    rank.wait()
            cgroup.remove()
    sys.exit(next((code for code in codes if code != 0), 0))


if __name__ == "__main__":
    main()
