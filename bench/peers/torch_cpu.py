#!/usr/bin/env python3
"""Embeds records with PyTorch on the CPU and prints, as one line of JSON, how fast.

    torch_cpu.py --model MODEL --input FILE [--dtype fp32|bf16] [--threads 2] [--rounds 3] [--out FILE.f32] [--step]

bf16 means autocast. A line of the input FILE has the token ids of one record, as `ours tokens` writes them. The first
pass warms up and is not timed; its embeddings are written to --out. With --step the program prints `ready` after that
pass. It then runs a round for each line of standard input, and prints a line after the round, until the input ends.
"""
import argparse
import json
import re
import statistics
import sys
import time

import numpy as np
import torch

import models


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--input", required=True)
    parser.add_argument("--dtype", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=4096, help="of a batch, padding included")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out")
    parser.add_argument("--step", action="store_true")
    args = parser.parse_args()

    torch.set_num_threads(args.threads)
    release = tuple(int(n) for n in re.match(r"(\d+)\.(\d+)", torch.__version__).groups())
    fused = release >= (2, 1)  # the first release whose scaled_dot_product_attention takes a scale
    model = models.load(args.model, fused_attention=fused)
    with open(args.input) as f:
        records = [[int(t) for t in line.split()] for line in f]
    batches = list(models.padded_batches(records, args.tokens, model.config.pad))

    def embed():
        pooled = np.empty((len(records), model.config.hidden), np.float32)
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=args.dtype == "bf16"):
            for rows, ids, mask in batches:
                pooled[rows] = model.pool(model(ids, mask).float(), mask).numpy()
        return pooled

    pooled = embed()
    if args.out:
        pooled.astype("<f4").tofile(args.out)

    seconds = []

    def measure():
        start = time.perf_counter()
        embed()
        seconds.append(time.perf_counter() - start)

    if args.step:
        print("ready", flush=True)
        for _ in sys.stdin:
            measure()
            print(f"round {seconds[-1]:.3f}", flush=True)
    else:
        for _ in range(args.rounds):
            measure()

    count = sum(len(r) for r in records)
    summary = {
        "runner": "PyTorch",
        "dtype": args.dtype,
        "version": torch.__version__,
        "how": "scaled_dot_product_attention" if fused else "eager attention",
        "model": args.model, "threads": args.threads, "records": len(records), "tokens": count,
        "padded": sum(ids.numel() for _, ids, _ in batches), "dim": model.config.hidden, "seconds": seconds,
    }
    if seconds:
        summary["best"], summary["median"] = count / min(seconds), count / statistics.median(seconds)
    if args.out:
        summary["embeddings"] = args.out
    print(json.dumps(summary), flush=True)


if __name__ == "__main__":
    main()
