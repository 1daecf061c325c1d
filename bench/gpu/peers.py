#!/usr/bin/env python3
"""Times PyTorch over the records of BenchmarkForward and writes one line of JSON a measurement.

    peers.py --model esm2-650m --records esm2-650m.tokens --out peers.jsonl
    peers.py --ceiling --out peers.jsonl

A pass takes token ids on the host to one mean embedding a record on the host. Batches are sorted by length and padded
to at most a budget of tokens; the best of the budgets counts, eager and compiled each. The baseline is what the
project started from: batches of 2,048 tokens in the records' order, padded. --check compares the embeddings in float32
with ../peers/models.py, on the same synthetic weights, before anything is timed.
"""
import argparse
import hashlib
import json
import os
import statistics
import sys
import time
import traceback

import numpy as np
import torch

here = os.path.dirname(os.path.abspath(__file__))
sys.path[1:1] = [here, os.path.join(here, "..", "peers")]

import models
import renderings

PASSES = 5  # timed passes of a measurement, at least
BASELINE_TOKENS = 2048
CHECK_BAR = 2e-5  # relative L2 of two float32 runs
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


class Batch:
    """A padded batch in the host's memory, ready to be copied."""

    def __init__(self, records, config, width, pin):
        self.ids = torch.full((len(records), width), config.pad, dtype=torch.int64)
        self.mask = torch.zeros((len(records), width), dtype=torch.int64)
        self.pooled = torch.zeros((len(records), width), dtype=torch.float32)
        for row, r in enumerate(records):
            self.ids[row, : len(r)] = torch.as_tensor(r, dtype=torch.int64)
            self.mask[row, : len(r)] = 1
            # ESM-2's embedding is the mean over the residues, DNABERT-S's over every token.
            self.pooled[row, 1 : len(r) - 1] = 1
            if config.kind == "dnabert-s":
                self.pooled[row, : len(r)] = 1
        if pin:
            self.ids, self.mask, self.pooled = self.ids.pin_memory(), self.mask.pin_memory(), self.pooled.pin_memory()


def fill(records, order, budget, multiple=1):
    """Groups of records in that order, each of one record or of at most budget tokens once padded, and their widths."""
    groups, width = [], 0
    for i in order:
        rounded = -(-len(records[i]) // multiple) * multiple
        if groups and (len(groups[-1][0]) + 1) * max(width, rounded) <= budget:
            groups[-1][0].append(i)
            width = max(width, rounded)
            groups[-1][1] = width
        else:
            width = rounded
            groups.append([[i], width])
    return groups


def by_length(records):
    return sorted(range(len(records)), key=lambda i: -len(records[i]))


class Runner:
    def __init__(self, model, config, records, device):
        self.model, self.config, self.records, self.device = model, config, records, torch.device(device)

    def synchronize(self):
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def prepare(self, groups):
        pin = self.device.type == "cuda"
        return [Batch([self.records[i] for i in rows], self.config, width, pin) for rows, width in groups]

    @torch.inference_mode()
    def embed(self, batches):
        results = []
        for b in batches:
            ids, mask, pooled = (t.to(self.device, non_blocking=True) for t in (b.ids, b.mask, b.pooled))
            states = self.model(ids, mask)
            sums = torch.bmm(pooled.to(states.dtype).unsqueeze(1), states).squeeze(1).float()
            results.append(sums / pooled.sum(1, keepdim=True))
        return torch.cat(results).cpu()

    def timed(self, batches):
        self.synchronize()
        start = time.perf_counter()
        self.embed(batches)
        self.synchronize()
        return time.perf_counter() - start

    def warm(self, make, budget, passes):
        """The batches of a budget once they have run, and the budget, halved until its batches fit in memory."""
        while True:
            batches = self.prepare(make(budget))
            try:
                for _ in range(passes):
                    self.embed(batches)
                self.synchronize()
                return batches, budget
            except torch.cuda.OutOfMemoryError:
                if budget <= 2048:
                    raise
            # Out here the error no longer holds on to what was allocated.
            say(f"  out of memory with batches of {budget} tokens, trying {budget // 2}")
            budget //= 2
            torch.cuda.empty_cache()

    def best(self, make, budgets, seconds, warm):
        """Times every budget briefly and the fastest at length: (seconds of each pass, budget, padded tokens, tried)."""
        tried, done = [], set()
        for asked in budgets:
            batches, budget = self.warm(make, asked, warm)
            if budget in done:
                continue
            done.add(budget)
            tried.append((min(self.timed(batches) for _ in range(2)), budget))
            say(f"  {budget} tokens: {tried[-1][0]:.4f} s a pass")
        took, budget = min(tried)
        batches, budget = self.warm(make, budget, 1)
        passes = [self.timed(batches) for _ in range(PASSES)]
        while sum(passes) < seconds and len(passes) < 100:
            passes.append(self.timed(batches))
        return passes, budget, sum(b.ids.numel() for b in batches), [{"budget": b, "seconds": s} for s, b in tried]


def say(text):
    print(text, file=sys.stderr, flush=True)


class Output:
    def __init__(self, path):
        self.path, self.common = path, {}

    def line(self, **fields):
        text = json.dumps({**self.common, **fields})
        if not self.path:
            return print(text, flush=True)
        with open(self.path, "a") as f:
            f.write(text + "\n")


def measure(out, runner, mode, dtype, make, budgets, args, **fields):
    warm = 2 if mode == "compile" else 1
    passes, budget, padded, tried = runner.best(make, budgets, args.seconds, warm)
    tokens = sum(len(r) for r in runner.records)
    median = statistics.median(passes)
    say(f"  {tokens / median:.0f} tokens/s, {dtype}, {len(passes)} passes, batches of {budget} tokens")
    out.line(mode=mode, dtype=dtype, budget=budget, padded=padded, records=len(runner.records), tokens=tokens, seconds=passes,
             median=median, min=min(passes), max=max(passes), tokens_per_second=tokens / median, tried=tried, **fields)


def take(records, tokens):
    """The first records of that many tokens in all, one at least."""
    taken, left = [], tokens
    for r in records:
        left -= len(r)
        if taken and left < 0:
            break
        taken.append(r)
    return taken


def compile_model(model, layers, wanted):
    """Compiles in place, or wraps; says what was compiled."""
    torch._dynamo.config.cache_size_limit = 256
    if hasattr(torch._dynamo.config, "accumulated_cache_size_limit"):
        torch._dynamo.config.accumulated_cache_size_limit = 1024
    changed = renderings.stateless_rotary(model)
    note = ", rotary tables without a cache" if changed else ""
    if wanted == "whole" or (wanted == "auto" and layers <= 12):
        return torch.compile(model, dynamic=True), "whole model, dynamic shapes" + note
    for block in model.blocks:
        block.compile(dynamic=True)
    return model, "each block, dynamic shapes" + note


def check(model, config, name, records, device):
    """The largest relative L2 between the model and models.py on synthetic weights, both in float32."""
    weights = lambda tensor, shape: models.synthetic_tensor(tensor, shape, 0)
    renderings.set_weights(model, config, weights)
    few = sorted(records, key=len)[:: max(1, len(records) // 6)][:6]
    few = [r for r in few if len(r) <= 600]
    got = Runner(model, config, few, device)
    got = got.embed(got.prepare([[list(range(len(few))), max(len(r) for r in few)]])).numpy()
    reference = models.load("synthetic:" + name)
    worst = 0.0
    with torch.inference_mode():
        for i, r in enumerate(few):
            ids = torch.as_tensor([r])
            mask = torch.ones_like(ids)
            want = reference.pool(reference(ids, mask), mask).numpy()[0]
            worst = max(worst, float(np.linalg.norm(got[i] - want) / np.linalg.norm(want)))
    return worst, len(few)


def ceiling(out, device):
    """The fastest bf16 product of large square matrices of random values."""
    cuda = torch.device(device).type == "cuda"
    for n in (4096, 8192, 16384) if cuda else (256,):
        a, b = (torch.randn(n, n, device=device, dtype=torch.bfloat16) for _ in range(2))
        c = torch.empty_like(a)
        times = []
        for repeat in range(8):
            count = max(2, int(2e13 / n**3)) if cuda else 1
            if cuda:
                torch.cuda.synchronize()
            start = time.perf_counter()
            for _ in range(count):
                torch.matmul(a, b, out=c)
            if cuda:
                torch.cuda.synchronize()
            if repeat >= 2:  # the first two warm up
                times.append((time.perf_counter() - start) / count)
        say(f"{n}: {2 * n**3 / min(times) / 1e12:.1f} TFLOP/s")
        out.line(kind="ceiling", dtype="bf16", size=n, seconds=times, tflops=2 * n**3 / min(times) / 1e12,
                 median_tflops=2 * n**3 / statistics.median(times) / 1e12)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", help="a name such as esm2-650m")
    parser.add_argument("--records", help="token ids of one record a line")
    parser.add_argument("--ceiling", action="store_true", help="measure the machine's bf16 product instead")
    parser.add_argument("--out", help="append the lines to this file instead of printing them")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--budgets", default="16384,32768,65536", help="tokens of a batch, padding included")
    parser.add_argument("--baseline-tokens", type=int, default=32768, help="the baseline runs over the first so many tokens")
    parser.add_argument("--seconds", type=float, default=1.0, help="of timed passes, %d passes at least" % PASSES)
    parser.add_argument("--modes", default="eager,baseline,compile")
    parser.add_argument("--compile", default="auto", choices=["auto", "whole", "blocks"], help="auto: blocks from 13 layers on")
    parser.add_argument("--rendering", action="store_true", help="time the rendering although transformers is there")
    parser.add_argument("--check", action="store_true")
    args = parser.parse_args()

    if args.device.startswith("cuda") and not torch.cuda.is_available():
        sys.exit("there is no GPU that PyTorch can use")
    out = Output(args.out)
    out.common = {"device": torch.cuda.get_device_name() if args.device.startswith("cuda") else "cpu", "torch": torch.__version__}
    if args.ceiling:
        return ceiling(out, args.device)
    if not args.model or not args.records:
        parser.error("--model and --records, or --ceiling")
    modes = args.modes.split(",")
    unknown = set(modes) - {"eager", "baseline", "compile"}
    if unknown:
        parser.error(f"there is no mode {', '.join(sorted(unknown))}")
    budgets = [int(b) for b in args.budgets.split(",")]

    try:
        config = models.Config.known(args.model)
        with open(args.records, "rb") as f:
            text = f.read()
        records = [[int(t) for t in line.split()] for line in text.decode().splitlines()]
    except (ValueError, OSError) as e:
        sys.exit(f"peers.py: {e}")
    if not records or min(map(len, records)) < 3 or max(max(r) for r in records) >= config.vocabulary:
        sys.exit(f"peers.py: {args.records} does not hold records of {args.model}")
    out.common.update(kind="peer", model=args.model, digest=hashlib.sha256(text).hexdigest())

    torch.manual_seed(1)
    if args.rendering and config.kind == "esm2":
        attention = "scaled_dot_product_attention" if renderings.FUSED else "plain attention"
        model, how, why = renderings.on(args.device, lambda: renderings.ESM2(config)), "rendering in PyTorch", None
    else:
        model, how, attention, why = renderings.build(config, args.device)
    out.common.update(how=how, attention=attention)
    if why:
        say(why)
        out.common["instead_of_transformers"] = why

    failed = False
    runner = Runner(model, config, records, args.device)
    sorted_batches = lambda budget: fill(records, by_length(records), budget, 8)

    def attempt(mode, work):
        nonlocal failed
        say(f"{args.model}: {mode}")
        try:
            work()
        except Exception as e:  # one mode's failure is a line of the results, and the others still run
            failed = True
            say(traceback.format_exc())
            out.line(mode=mode, error=f"{type(e).__name__}: {e}"[:500])

    def compare():
        nonlocal failed
        worst, compared = check(model, config, args.model, records, args.device)
        out.line(mode="check", dtype="fp32", relative_l2=worst, bar=CHECK_BAR, records=compared)
        failed = failed or not worst <= CHECK_BAR
        say(f"  {worst:.2g} from models.py (relative L2), the bar is {CHECK_BAR:g}")

    if args.check:
        attempt("check", compare)
    if "eager" in modes:
        runner.model = model.to(DTYPES["bf16"])
        attempt("eager", lambda: measure(out, runner, "eager", "bf16", sorted_batches, budgets, args, order="by length"))
    if "baseline" in modes:
        few = take(records, args.baseline_tokens)
        in_order = lambda budget: fill(few, range(len(few)), budget)
        for dtype in ("bf16", "fp32"):
            baseline = Runner(model.to(DTYPES[dtype]), config, few, args.device)
            attempt("baseline", lambda: measure(out, baseline, "baseline", dtype, in_order, [BASELINE_TOKENS], args, order="as given"))
    if "compile" in modes:
        model.to(DTYPES["bf16"])
        if hasattr(torch, "compile"):
            def compiled():
                runner.model, what = compile_model(model, config.layers, args.compile)
                measure(out, runner, "compile", "bf16", sorted_batches, budgets, args, order="by length", compiled=what)
            attempt("compile", compiled)
        else:
            failed = True
            out.line(mode="compile", error=f"PyTorch {torch.__version__} has no torch.compile")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
