"""Reads logs from the C++ generator and packs them into training batches, in processes of their own."""

import json
import multiprocessing
import random
import subprocess

import numpy as np

MIX = [0.65, 0.13, 0.09, 0.08, 0.05]  # shares of batches of the full length, half of it, a quarter, ...
TEXT, ANSWER, ANSWER_END, PADDING = 1, 2, 3, 0  # what a target token is


def read_logs(generator: str, seed: int, count: int, low: int, high: int):
    """Yields `count` logs of [low, high] bytes as dictionaries; see generate_logs.cc for the fields."""
    command = [generator, "--seed", str(seed), "--count", str(count),
               "--min-bytes", str(low), "--max-bytes", str(high)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        for line in process.stdout:
            yield json.loads(line)
    if process.returncode != 0:
        raise RuntimeError(f"{command} ended with {process.returncode}")


class Packer:
    """Turns logs into rows of tokens: begin, log, then question after question while they fit."""

    def __init__(self, tokenizer_file: str):
        from tokenizers import Tokenizer
        self.tokenizer = Tokenizer.from_file(tokenizer_file)
        self.begin = self.tokenizer.token_to_id("<|begin|>")
        self.end = self.tokenizer.token_to_id("<|end|>")

    def encode(self, texts: list[str]) -> list[list[int]]:
        return [e.ids for e in self.tokenizer.encode_batch_fast(texts, add_special_tokens=False)]

    def row(self, log: dict, length: int, dice: random.Random):
        """length + 1 tokens and their kinds. The log's end and every question start a new pre-token, so that the pieces
        encode as the whole would."""
        questions = log["questions"]
        if dice.random() < 0.5:
            questions = sorted(questions, key=lambda question: not question["first_quarter"])
        questions = questions[:length // 16 + 1]
        pieces = [log["log"] + "\n"]
        for i, question in enumerate(questions):
            pieces += [("\n" if i else "") + question["ask"], " " + question["answer"], "."]
        encoded = self.encode(pieces)
        tokens, kinds = [self.begin] + encoded[0], [TEXT] * (1 + len(encoded[0]))
        for i in range(1, len(encoded), 3):
            ask, answer, stop = encoded[i:i + 3]
            tokens += ask + answer + stop + [self.end]
            kinds += [TEXT] * len(ask) + [ANSWER] * len(answer) + [ANSWER_END] * (len(stop) + 1)
        missing = max(0, length + 1 - len(tokens))
        tokens, kinds = tokens + [self.end] * missing, kinds + [PADDING] * missing
        return tokens[:length + 1], kinds[:length + 1]


def bytes_for(length: int, bytes_per_token: float) -> tuple[int, int]:
    """The range of log sizes which leave 3 to 25 % of a row, and at least 30 tokens, to questions."""
    high = min(0.97 * length, length - 30)
    return int(0.75 * length * bytes_per_token), max(int(0.75 * length * bytes_per_token), int(high * bytes_per_token))


def _work(generator, tokenizer_file, bytes_per_token, tokens_per_batch, first_seed, length, mixed, queue):
    packer, dice = Packer(tokenizer_file), random.Random(first_seed)
    seed = first_seed
    while True:
        now = length.value
        if mixed.value:
            now = dice.choices([now >> i for i in range(len(MIX))], MIX)[0]
        rows = tokens_per_batch // now
        tokens, kinds = np.zeros((rows, now + 1), np.uint16), np.zeros((rows, now + 1), np.uint8)
        for i, log in enumerate(read_logs(generator, seed, rows, *bytes_for(now, bytes_per_token))):
            tokens[i], kinds[i] = packer.row(log, now, dice)
        seed += rows
        queue.put((now, tokens, kinds))


class BatchSource:
    """Batches of tokens_per_batch tokens at the current `length`, prepared ahead by `workers` processes."""

    def __init__(self, generator, tokenizer_file, bytes_per_token, tokens_per_batch, workers, first_seed, length):
        context = multiprocessing.get_context("spawn")
        self.length, self.mixed = context.Value("q", length), context.Value("b", 0)
        self.queue = context.Queue(maxsize=2 * workers)
        self.processes = [
            context.Process(target=_work, daemon=True,
                            args=(generator, tokenizer_file, bytes_per_token, tokens_per_batch,
                                  first_seed + (i << 32), self.length, self.mixed, self.queue))
            for i in range(workers)]
        for process in self.processes:
            process.start()

    def next(self):
        while True:
            length, tokens, kinds = self.queue.get(timeout=120)
            if self.mixed.value or length == self.length.value:
                return tokens, kinds

    def close(self):
        for process in self.processes:
            process.terminate()
