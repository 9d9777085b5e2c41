"""Trains the demo model from scratch on generated harbour logs. See models/demo/README.md for the commands.

    train.py tokenizer --generator G --folder DIR
    train.py train     --generator G --folder DIR --minutes M [--state FILE]

`train` goes through the row lengths, each until the answers' accuracy passes its mark, and stays at the last one until the
minutes are over. The folder always holds a loadable model of the last minute. With --state, weights and optimizer are kept
there and a second call goes on where the first ended.
"""

import argparse
import json
import math
import pathlib
import time

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from logs import BatchSource
from model import Shape, Trainee, load_weights, new_weights, save_folder
from tokenizer import BEGIN, END, train_tokenizer

MARKS = {128: 0.95, 256: 0.96, 512: 0.965, 1024: 0.97, 2048: 0.97, 4096: 0.97, 8192: None}
WARM_UP_STEPS = 200


class Progress:
    """Where the curriculum stands; what a state file keeps beside the tensors."""

    def __init__(self, lengths):
        self.lengths, self.stage, self.step, self.spent, self.runs = lengths, 0, 0, 0.0, 0
        self.accuracy, self.steps_here = 0.0, 0

    @property
    def length(self):
        return self.lengths[self.stage]

    def note(self, accuracy):
        self.steps_here += 1
        self.accuracy = accuracy if self.steps_here == 1 else 0.9 * self.accuracy + 0.1 * accuracy

    def passes(self):
        mark = MARKS[self.length]
        last = self.stage + 1 == len(self.lengths)
        return not last and self.steps_here >= 40 and self.accuracy >= mark

    def go_on(self):
        self.stage, self.steps_here = self.stage + 1, 0


def learning_rate(peak, step, share):
    """Warm-up by steps, then a half cosine over the share of the planned time that is gone, down to 2 % of the peak."""
    return peak * min(1.0, (step + 1) / WARM_UP_STEPS) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(1.0, share))))


def optimizer_for(weights, device):
    matrices = [w for w in weights.values() if w.dim() > 1]
    vectors = [w for w in weights.values() if w.dim() == 1]
    return torch.optim.AdamW([{"params": matrices, "weight_decay": 0.05}, {"params": vectors, "weight_decay": 0.0}],
                             lr=1e-3, betas=(0.9, 0.98), eps=1e-9, fused=device == "cuda")


def save_state(path, trainee, optimizer, progress):
    torch.save({"weights": {n: w.detach() for n, w in trainee.weights.items()}, "optimizer": optimizer.state_dict(),
                "progress": progress.__dict__}, path.with_suffix(".new"))
    path.with_suffix(".new").rename(path)


def train(args):
    start = time.monotonic()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.backends.cuda.matmul.allow_tf32 = True
    tokenizer_file = str(args.folder / "tokenizer.json")
    vocabulary = json.loads(pathlib.Path(tokenizer_file).read_text())["model"]["vocab"]
    shape = Shape(vocabulary=len(vocabulary), layers=args.layers)
    progress = Progress([int(length) for length in args.lengths.split(",")])
    state = None
    if args.state and args.state.exists():
        state = torch.load(args.state, map_location=device, weights_only=True)
        weights = state["weights"]
        progress.__dict__.update(state["progress"])
    elif args.resume_weights:
        weights = load_weights(args.folder)
        progress.stage = len(progress.lengths) - 1
    else:
        weights = new_weights(shape, args.seed)
    trainee = Trainee(shape, weights, device, compiled=device == "cuda")
    optimizer = optimizer_for(trainee.weights, device)
    if state:
        optimizer.load_state_dict(state["optimizer"])
    parameters = list(trainee.weights.values())
    print(f"parameters {sum(p.numel() for p in parameters)}, vocabulary {shape.vocabulary}, device {device}", flush=True)

    progress.runs += 1
    length = progress.length
    source = BatchSource(args.generator, tokenizer_file, args.bytes_per_token, args.batch_tokens, args.workers,
                         (args.seed << 48) + (progress.runs << 40), length)
    plan = 60 * (args.plan_minutes or args.minutes)
    spent_before, saved, told, tokens_since = progress.spent, time.monotonic(), time.monotonic(), 0
    source.mixed.value = progress.stage + 1 == len(progress.lengths)
    pending = []  # hits of steps whose numbers were not read yet: reading them each step would stall the device

    def spent():
        return spent_before + time.monotonic() - start

    while time.monotonic() - start < 60 * args.minutes:
        tokens, kinds = source.next()
        batch = torch.from_numpy(tokens.astype("int64")).to(device, non_blocking=True)
        kinds = torch.from_numpy(kinds).to(device, non_blocking=True)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(args.peak, progress.step, spent() / plan)
        loss, hits, count = trainee(batch[:, :-1].contiguous(), batch[:, 1:].contiguous(), kinds[:, 1:].contiguous())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        if tokens.shape[1] == length + 1:
            pending.append((hits, count))
        tokens_since += tokens.size - tokens.shape[0]
        progress.step += 1
        if len(pending) < 4:
            continue
        for hits, count in pending:
            progress.note(hits.item() / max(1, count.item()))
        pending = []
        now = time.monotonic()
        if now - told >= args.tell_seconds or progress.passes():
            print(f"{spent():6.1f} s  step {progress.step:6d}  length {length:5d}  loss {loss.item():.4f}  "
                  f"answers {progress.accuracy:.4f}  {tokens_since / (now - told) / 1e3:.0f} k tokens/s  "
                  f"lr {group['lr']:.2e}  queue {source.queue.qsize()}", flush=True)
            told, tokens_since = now, 0
        if progress.passes():
            progress.go_on()
            length = progress.length
            source.length.value = length
            source.mixed.value = progress.stage + 1 == len(progress.lengths)
        if now - saved >= args.save_seconds:
            saved = now
            progress.spent = spent()
            save_folder(shape, trainee.weights, args.folder, vocabulary[BEGIN], vocabulary[END])
            if args.state:
                save_state(args.state, trainee, optimizer, progress)
    source.close()
    progress.spent = spent()
    save_folder(shape, trainee.weights, args.folder, vocabulary[BEGIN], vocabulary[END])
    if args.state:
        save_state(args.state, trainee, optimizer, progress)
    print(f"ended: step {progress.step}, {progress.spent:.0f} s, length {length}, answers {progress.accuracy:.4f}",
          flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("what", choices=["tokenizer", "train"])
    parser.add_argument("--generator", required=True, help="the compiled generate_logs")
    parser.add_argument("--folder", type=pathlib.Path, required=True, help="the model's folder")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--minutes", type=float, default=8.0, help="wall time of this call, start-up included")
    parser.add_argument("--plan-minutes", type=float, default=None, help="time of all calls, for the learning rate")
    parser.add_argument("--state", type=pathlib.Path, default=None)
    parser.add_argument("--resume-weights", action="store_true", help="start from the folder's weights, last length")
    parser.add_argument("--peak", type=float, default=1e-3)
    parser.add_argument("--attention", default="flash", choices=["flash", "cudnn"])
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--lengths", default=",".join(str(length) for length in MARKS))
    parser.add_argument("--batch-tokens", type=int, default=81920)
    parser.add_argument("--bytes-per-token", type=float, default=3.9)
    parser.add_argument("--workers", type=int, default=12)
    parser.add_argument("--tell-seconds", type=float, default=5.0)
    parser.add_argument("--save-seconds", type=float, default=45.0)
    args = parser.parse_args()
    if args.what == "tokenizer":
        train_tokenizer(args.generator, args.folder, seed=1 << 60, logs=400)
    else:
        backends = {"flash": SDPBackend.FLASH_ATTENTION, "cudnn": SDPBackend.CUDNN_ATTENTION}
        with sdpa_kernel([backends[args.attention], SDPBackend.MATH] if torch.cuda.is_available() else SDPBackend.MATH):
            train(args)


if __name__ == "__main__":
    main()
