#!/usr/bin/env python3
"""Times PyTorch over the records of BenchmarkForward and writes one line of JSON per measurement.

    peers.py --model esm2-650m --records esm2-650m.tokens --out bench.jsonl
    peers.py --ceiling --out bench.jsonl
    peers.py --check --device cpu

A pass converts token ids on the host to one mean embedding per record on the host. There are four modes:

    eager, compile  records sorted by length, in batches of at most a budget of tokens, including padding
    packed          records stored end to end without padding, in batches of at most a budget of tokens
    baseline        the method that embed replaces: files of 50 records, in their order, in batches of at most 2,048
                    tokens, including padding

Every mode except the baseline tries several budgets, and the fastest counts. --check compares the embeddings of padded
and of packed batches with those of ../peers/models.py for the same synthetic weights, before anything is timed. Without
--model it compares three small models over random records and times nothing.
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

PASSES = 5  # minimum number of timed passes of a measurement
BASELINE_TOKENS = 2048
BASELINE_RECORDS = 50  # number of records in a file
SMALL = ("esm2-tiny", "esm2-8m", "dnabert-s-2l")
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def bar(config, dtype):
    """Returns the largest permitted relative L2 distance of a run in the type dtype from models.py in float32.

    docs/numerics.md limits the distance of a run from float64. In float32 the limit is 1e-5 for DNABERT-S and 3e-6 for
    ESM-2, so two runs may differ by twice the limit. In bfloat16 it is 5.6e-2 for DNABERT-S and at least 1.05e-2 for
    ESM-2, and the error of models.py is negligible.
    """
    if dtype == "fp32":
        return 2e-5 if config.kind == "dnabert-s" else 6e-6
    return 5.6e-2 if config.kind == "dnabert-s" else 1.05e-2


class Batch:
    """A padded batch in host memory."""

    def __init__(self, records, config, width, pin):
        self.ids = torch.full((len(records), width), config.pad, dtype=torch.int64)
        self.mask = torch.zeros((len(records), width), dtype=torch.int64)
        self.pooled = torch.zeros((len(records), width), dtype=torch.float32)
        for row, r in enumerate(records):
            self.ids[row, : len(r)] = torch.as_tensor(r, dtype=torch.int64)
            self.mask[row, : len(r)] = 1
            # The embedding of ESM-2 is the mean over the residues, that of DNABERT-S over all tokens.
            self.pooled[row, 1 : len(r) - 1] = 1
            if config.kind == "dnabert-s":
                self.pooled[row, : len(r)] = 1
        if pin:
            self.ids, self.mask, self.pooled = self.ids.pin_memory(), self.mask.pin_memory(), self.pooled.pin_memory()


def fill(records, order, budget, multiple=1):
    """Divides records, in the given order, into groups of at most budget tokens, including padding, or of one record.

    Returns [indices of the records, width] for each group. Each width is rounded up to a multiple of `multiple`.
    """
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


def balanced(records, budget):
    """Divides records into packed batches of about equal numbers of tokens, of at most budget each if possible."""
    groups = [[0, []] for _ in range(-(-sum(map(len, records)) // budget))]
    for i in by_length(records):
        least = min(groups)
        least[0] += len(records[i])
        least[1].append(i)
    return [rows for _, rows in groups if rows]


class Runner:
    """Runs a model over padded batches of records."""

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

    @staticmethod
    def padded(batches):
        return sum(b.ids.numel() for b in batches)

    def timed(self, batches):
        self.synchronize()
        start = time.perf_counter()
        self.embed(batches)
        self.synchronize()
        return time.perf_counter() - start

    def warm(self, make, budget, passes):
        """Runs batches of at most budget tokens, halving budget until they fit. Returns batches and budget."""
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
            # Outside of the except clause the error no longer keeps the allocated memory alive.
            say(f"  out of memory with batches of {budget} tokens, trying {budget // 2}")
            budget //= 2
            torch.cuda.empty_cache()

    def best(self, make, budgets, seconds, warm):
        """Times every budget briefly, and the fastest one again for longer.

        Returns the seconds of each pass, the budget, the number of tokens including padding, and the results of all
        budgets.
        """
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
        return passes, budget, self.padded(batches), [{"budget": b, "seconds": s} for s, b in tried]


class PackedRunner(Runner):
    """Runs a plain PyTorch model of renderings.py over packed batches of sequences."""

    def __init__(self, model, config, records, device):
        super().__init__(model, config, records, device)
        self.packings = {}

    def prepare(self, groups):
        # A second Packing would have other functions, which PyTorch would compile again.
        key = tuple(map(tuple, groups))
        if key not in self.packings:
            self.packings[key] = renderings.Packing(self.model, self.config, self.records, groups, self.device)
        return self.packings[key]

    @torch.inference_mode()
    def embed(self, packing):
        results = []
        for b in packing.batches:
            t = {name: tensor.to(self.device, non_blocking=True) for name, tensor in b["host"].items()}
            states = self.model.packed(t["ids"], t["position"], t["sequence"], packing.where(b, t))
            sums = torch.zeros(t["cu"].shape[0], 1 + states.shape[1], device=self.device)
            weighted = torch.cat((torch.ones_like(t["weight"])[:, None], states.float()), 1) * t["weight"][:, None]
            sums.index_add_(0, t["sequence"], weighted)
            results.append(sums[: len(b["rows"]), 1:] / sums[: len(b["rows"]), :1])
        return torch.cat(results).cpu()

    @staticmethod
    def padded(packing):
        return packing.tokens * len(packing.batches)


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
    warm = 2 if fields.get("compiled") else 1
    passes, budget, padded, tried = runner.best(make, budgets, args.seconds, warm)
    tokens = sum(len(r) for r in runner.records)
    median = statistics.median(passes)
    say(f"  {tokens / median:.0f} tokens/s, {dtype}, {len(passes)} passes, batches of {budget} tokens")
    out.line(mode=mode, dtype=dtype, budget=budget, padded=padded, records=len(runner.records), tokens=tokens,
             seconds=passes, median=median, min=min(passes), max=max(passes), tokens_per_second=tokens / median,
             tried=tried, **fields)


def take(records, tokens):
    """Returns the first records that together have at most the given number of tokens, but at least one record."""
    taken, left = [], tokens
    for r in records:
        left -= len(r)
        if taken and left < 0:
            break
        taken.append(r)
    return taken


def allow_compilations():
    """Raises the limits of PyTorch for recompiling a model; older releases call the limits cache sizes."""
    for limit, *names in ((256, "recompile_limit", "cache_size_limit"),
                          (1024, "accumulated_recompile_limit", "accumulated_cache_size_limit")):
        for name in names:
            if hasattr(torch._dynamo.config, name):
                setattr(torch._dynamo.config, name, limit)
                break


def compile_model(model, layers, wanted):
    """Compiles the whole model or each of its blocks. Returns the compiled model and a text that tells which."""
    allow_compilations()
    changed = renderings.stateless_rotary(model)
    note = ", rotary tables without a cache" if changed else ""
    if wanted == "whole" or (wanted == "auto" and layers <= 12):
        return torch.compile(model, dynamic=True), "whole model, dynamic shapes" + note
    for block in model.blocks:
        block.compile(dynamic=True)
    return model, "each block, dynamic shapes" + note


def few_of(records):
    few = sorted(records, key=len)[:: max(1, len(records) // 6)][:6]
    return [r for r in few if len(r) <= 600]


def check(model, config, name, records, device):
    """Compares a model over padded batches, and the plain PyTorch model over packed batches, with models.py.

    All have the same synthetic weights. Returns a line of results for each comparison.
    """
    weights = lambda tensor, shape: models.synthetic_tensor(tensor, shape, 0)
    few = few_of(records)
    reference, want = models.load("synthetic:" + name), []
    with torch.inference_mode():
        for r in few:
            ids = torch.as_tensor([r])
            mask = torch.ones_like(ids)
            want.append(reference.pool(reference(ids, mask), mask).numpy()[0])

    def compared(how, got, order, dtype):
        # A NaN never passes the bar.
        errors = [np.linalg.norm(got[row] - want[i]) / np.linalg.norm(want[i]) for row, i in enumerate(order)]
        worst = float("nan") if np.isnan(errors).any() else float(max(errors))
        most = bar(config, dtype)
        say(f"  {name}, {how}, {dtype}: {worst:.2g} from models.py, the bar is {most:g} (relative L2)")
        return {"how": how, "dtype": dtype, "relative_l2": worst, "bar": most, "records": len(few),
                "against": "models.py in float32", "passed": worst <= most}

    renderings.set_weights(model, config, weights)
    padded = Runner(model, config, few, device)
    everything = list(range(len(few)))
    got = padded.embed(padded.prepare([[everything, max(map(len, few))]])).numpy()
    lines = [compared("padded", got, everything, "fp32")]

    packed = renderings.rendering(config, device)
    renderings.set_weights(packed, config, weights)
    # On a GPU in bf16: varlen_attn does not support float32, and flex_attention is timed in bf16.
    dtype = "bf16" if torch.device(device).type == "cuda" else "fp32"
    runner = PackedRunner(packed.to(DTYPES[dtype]), config, few, device)
    packing = runner.prepare(balanced(few, -(-sum(map(len, few)) // 2)))
    got = runner.embed(packing).numpy()
    return lines + [compared("packed, " + packed.PACKED, got, [i for b in packing.batches for i in b["rows"]], dtype)]


def check_all(device):
    """Checks every small model over random records of 3 to 300 tokens, and returns the exit status."""
    rng, passed = np.random.default_rng(1), True
    for name in SMALL:
        config = models.Config.known(name)
        records = [rng.integers(4, min(24, config.vocabulary), n).tolist() for n in (3, 17, 64, 127, 128, 300)]
        model, how, attention, why = renderings.build(config, device)
        say(f"{name}: {how}, {attention}{'; ' + why if why else ''}")
        passed = all([line["passed"] for line in check(model, config, name, records, device)]) and passed
    say("passed" if passed else "FAILED")
    return 0 if passed else 1


def ceiling(out, device):
    """Measures bf16 products of large square matrices of random values, and the rate of a copy on the device."""
    cuda = torch.device(device).type == "cuda"

    def times(work, count):
        taken = []
        for repeat in range(8):
            if cuda:
                torch.cuda.synchronize()
            start = time.perf_counter()
            for _ in range(count):
                work()
            if cuda:
                torch.cuda.synchronize()
            if repeat >= 2:  # the first two warm up
                taken.append((time.perf_counter() - start) / count)
        return taken

    for n in (4096, 8192, 16384) if cuda else (256,):
        a, b = (torch.randn(n, n, device=device, dtype=torch.bfloat16) for _ in range(2))
        c = torch.empty_like(a)
        seconds = times(lambda: torch.matmul(a, b, out=c), max(2, int(2e13 / n**3)) if cuda else 1)
        say(f"{n}: {2 * n**3 / min(seconds) / 1e12:.1f} TFLOP/s")
        out.line(kind="ceiling", dtype="bf16", size=n, seconds=seconds, tflops=2 * n**3 / min(seconds) / 1e12,
                 median_tflops=2 * n**3 / statistics.median(seconds) / 1e12)
    size = 1 << (32 if cuda else 24)  # much larger than the caches
    a, b = (torch.randint(0, 255, (size,), device=device, dtype=torch.uint8) for _ in range(2))
    seconds = times(lambda: b.copy_(a), 10 if cuda else 1)
    say(f"copy: {2 * size / min(seconds) / 1e12:.3f} TB/s, bytes read and written")
    out.line(kind="ceiling", bytes=2 * size, seconds=seconds, terabytes=2 * size / min(seconds) / 1e12)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", help="a name such as esm2-650m")
    parser.add_argument("--records", help="token ids of one record a line")
    parser.add_argument("--ceiling", action="store_true", help="measure the machine's bf16 product instead")
    parser.add_argument("--out", help="append the lines to this file instead of printing them")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--budgets", default="16384,32768,65536", help="tokens of a batch, padding included")
    parser.add_argument("--baseline-tokens", type=int, default=32768, help="the baseline runs over the first of them")
    parser.add_argument("--seconds", type=float, default=1.0, help="of timed passes, %d passes at least" % PASSES)
    parser.add_argument("--modes", default="eager,compile,packed,baseline")
    parser.add_argument("--compile", default="auto", choices=["auto", "whole", "blocks"],
                        help="auto: blocks from 13 layers on")
    parser.add_argument("--rendering", action="store_true", help="time the rendering although transformers is there")
    parser.add_argument("--check", action="store_true",
                        help="compare with models.py first; alone: three small models, and nothing else")
    args = parser.parse_args()

    if args.device.startswith("cuda") and not torch.cuda.is_available():
        sys.exit("there is no GPU that PyTorch can use")
    out = Output(args.out)
    out.common = {"device": torch.cuda.get_device_name() if args.device.startswith("cuda") else "cpu",
                  "torch": torch.__version__}
    if args.ceiling:
        return ceiling(out, args.device)
    if args.check and not args.model:
        sys.exit(check_all(args.device))
    if not args.model or not args.records:
        parser.error("--model and --records, --ceiling, or --check")
    modes = args.modes.split(",")
    unknown = set(modes) - {"eager", "baseline", "compile", "packed"}
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
        model, how, why = renderings.rendering(config, args.device), "rendering in PyTorch", None
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
        except Exception as e:  # a failed mode is reported in the results, and the others still run
            failed = True
            say(traceback.format_exc())
            out.line(mode=mode, error=f"{type(e).__name__}: {e}"[:500])

    def compare():
        nonlocal failed
        for line in check(model, config, args.model, records, args.device):
            out.line(mode="check", **line)
            failed = failed or not line["passed"]

    if args.check:
        attempt("check", compare)
    if "eager" in modes:
        runner.model = model.to(DTYPES["bf16"])
        attempt("eager", lambda: measure(out, runner, "eager", "bf16", sorted_batches, budgets, args,
                                         order="by length"))
    if "baseline" in modes:
        few = take(records, args.baseline_tokens)
        files = [range(i, min(i + BASELINE_RECORDS, len(few))) for i in range(0, len(few), BASELINE_RECORDS)]
        file_by_file = lambda budget: [group for rows in files for group in fill(few, rows, budget)]
        for dtype in ("bf16", "fp32"):
            baseline = Runner(model.to(DTYPES[dtype]), config, few, args.device)
            attempt("baseline", lambda: measure(out, baseline, "baseline", dtype, file_by_file, [BASELINE_TOKENS], args,
                                                order=f"as given, files of {BASELINE_RECORDS} records"))
    # Compiled modes come last, because compiling changes the model.
    if "compile" in modes:
        model.to(DTYPES["bf16"])
        def compiled():
            runner.model, what = compile_model(model, config.layers, args.compile)
            measure(out, runner, "compile", "bf16", sorted_batches, budgets, args, order="by length", compiled=what)
        if hasattr(torch, "compile"):
            attempt("compile", compiled)
        else:
            say(f"PyTorch {torch.__version__} has no torch.compile")
    if "packed" in modes:
        runner.model = model = None  # frees the memory of the model
        make_model = lambda: renderings.rendering(config, args.device).to(DTYPES["bf16"])
        packed = PackedRunner(make_model(), config, records, args.device)
        out.common.update(how="rendering in PyTorch", attention=packed.model.PACKED)
        out.common.pop("instead_of_transformers", None)
        make = lambda budget: balanced(records, budget)
        def over_packed(what):
            measure(out, packed, "packed", "bf16", make, budgets, args, order="by length", compiled=what)
        def with_blocks():
            allow_compilations()
            for block in packed.model.blocks:
                block.compile(dynamic=False)
            over_packed("each block, static shapes")
        if hasattr(torch, "compile"):
            before = failed
            attempt("packed", with_blocks)
            if failed and not before:  # compiling only the attention, which is a separate function, may still work
                packed.model = make_model()
                attempt("packed", lambda: over_packed(None))
        else:
            attempt("packed", lambda: over_packed(None))
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
