#!/usr/bin/env python3
"""Checks a model of models.py against a golden file and writes it as ONNX with dynamic batch and length.

    export.py MODEL FILE.onnx [--goldens FOLDER]

MODEL is synthetic:NAME[@SEED] or a folder with config.json and model.safetensors.
"""
import argparse
import inspect
import os
import sys

import numpy as np
import torch

import models

GOLDENS = {
    "synthetic:esm2-tiny": "esm2_tiny", "synthetic:esm2-hd128": "esm2_hd128", "synthetic:esm2-8m": "esm2_t6_8M",
    "synthetic:esm2-35m": "esm2_t12_35M", "synthetic:esm2-150m": "esm2_t30_150M", "synthetic:esm2-650m": "esm2_t33_650M",
    "synthetic:dnabert-s-2l": "dnabert_s_2layers", "synthetic:dnabert-s": "dnabert_s",
}
BAR = 1e-5  # largest permitted relative L2 error of an embedding


def check(model, path, tokens=4096):
    """Returns the largest relative L2 error of the golden file's records, run as padded batches, and their number."""
    golden = models.read_safetensors(path)
    names = [n[: -len("/ids")] for n in golden if n.endswith("/ids")]
    records = [golden[n + "/ids"] for n in names]
    worst = 0.0
    for rows, ids, mask in models.padded_batches(records, tokens, model.config.pad):
        with torch.inference_mode():
            pooled = model.pool(model(ids, mask), mask).numpy().astype(np.float64)
        for row, i in enumerate(rows):
            want = golden[names[i] + "/mean"].astype(np.float64)
            error = np.linalg.norm(pooled[row] - want) / np.linalg.norm(want)
            worst = max(worst, error if np.isfinite(error) else np.inf)
    return worst, len(records)


def main():
    here = os.path.dirname(os.path.abspath(__file__))
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("onnx", help="the file to write; '-' writes none and only checks")
    parser.add_argument("--goldens", default=os.path.join(here, "../../../shared/goldens/synthetic"))
    args = parser.parse_args()

    model = models.load(args.model)
    golden = os.path.join(args.goldens, GOLDENS.get(args.model, "") + ".safetensors")
    if os.path.isfile(golden):
        worst, count = check(model, golden)
        print(f"{args.model}: {count} golden records, largest relative L2 {worst:.2e} (bar {BAR:.0e})", file=sys.stderr)
        if not worst <= BAR:
            sys.exit(f"{args.model}: {golden} is not reproduced; nothing is exported")
    else:
        print(f"{args.model}: no golden file, the model is not checked", file=sys.stderr)
    if args.onnx == "-":
        return

    ids = torch.full((2, 7), 5, dtype=torch.int64)
    mask = torch.ones_like(ids)
    mask[1, 5:] = 0
    options = {}
    if "dynamo" in inspect.signature(torch.onnx.export).parameters:
        options["dynamo"] = False  # the tracing exporter, which every PyTorch from 1.13 on has
    axes = {0: "batch", 1: "length"}
    partial = args.onnx + ".part"
    torch.onnx.export(model, (ids, mask), partial, input_names=["ids", "mask"], output_names=["states"], opset_version=17,
                      dynamic_axes={"ids": axes, "mask": axes, "states": axes}, **options)
    os.replace(partial, args.onnx)


if __name__ == "__main__":
    main()
