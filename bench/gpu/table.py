#!/usr/bin/env python3
"""Prints the measurements of visit.sh as Markdown: table.py bench.jsonl...

A line of the kind "machine" says where the lines below it were measured. A model's floating-point operations are
those of transformer.Config.FLOPs: matrix products and attention of real tokens. For a peer, the operations per token
are those that embed has counted over the same records. If a rate is above the card's peak, the program exits with 1,
after it has printed everything.
"""
import json
import sys

PEAK = 989e12  # FLOP/s of dense bf16 products on an H100 or H200 (SXM), from NVIDIA's data sheet

impossible = []  # rates above the peak, which indicate an error in the counts


def read(paths):
    for path in paths:
        with open(path) as f:
            for line in f:
                yield json.loads(line)


def runner(l):
    if l["kind"] == "forward":
        return ", ".join(["embed", *filter(None, [l.get("variant")])])
    parts = [f"PyTorch {l['torch']}", l["how"], l["attention"], l["mode"], l.get("compiled")]
    return ", ".join(filter(None, [*parts, l.get("instead_of_transformers")]))


def row(*cells):
    print("| " + " | ".join(str(c).replace("|", "/").replace("\n", " ") for c in cells) + " |")


def share(x, of):
    return f"{100 * x / of:.1f}%" if x and of else "-"


def share_of_peak(rate, of_what):
    if rate > PEAK:
        impossible.append(f"{of_what} at {tera(rate)} TFLOP/s, {share(rate, PEAK)} of the peak")
    return share(rate, PEAK)


def tera(rate):
    return f"{rate / 1e12:.1f}" if rate else "-"


def timed(lines):
    measured = [l for l in lines if "tokens_per_second" in l]
    if not measured:
        return
    # FLOPs per token. Models of a family read the same records, so a digest alone does not identify a model.
    flops = {(l["model"], l["digest"]): l["flops"] / l["tokens"] for l in lines if l["kind"] == "forward"}
    ceiling = max((l["tflops"] * 1e12 for l in lines if l["kind"] == "ceiling" and "tflops" in l), default=0)
    print()
    row("model", "runner", "type", "batch", "records", "padding", "tokens/s", "TFLOP/s", "of 989",
        "of this card's product", "passes, s: median, least, most")
    row(*["---"] * 11)
    for l in measured:
        rate = flops.get((l["model"], l["digest"]), 0) * l["tokens_per_second"]
        padding = (l["padded"] - l["tokens"]) / l["padded"] if l.get("padded") else 0
        row(l["model"], runner(l), l["dtype"], l["budget"], l["records"], f"{100 * padding:.1f}%",
            f"{l['tokens_per_second']:.0f}", tera(rate), share_of_peak(rate, f"{l['model']}, {runner(l)},"), share(rate, ceiling),
            f"{len(l['seconds'])}: {l['median']:.4g}, {l['min']:.4g}, {l['max']:.4g}")


def profiles(lines):
    for l in lines:
        if not l.get("profile"):
            continue
        print(f"\n{l['model']}, {runner(l)}, batches of {l['budget']} tokens, by operation. {l['device']}\n")
        row("operation", "calls", "ms", "time", "TFLOP/s", "of 989")
        row(*["---"] * 6)
        rest = l["profile_seconds"]
        for o in l["profile"]:
            rest -= o["seconds"]
            rate = o["flops"] / o["seconds"] if o["seconds"] else 0
            row(o["op"], o["calls"], f"{1e3 * o['seconds']:.2f}", share(o["seconds"], l["profile_seconds"]),
                tera(rate), share_of_peak(rate, f"{l['model']}, {runner(l)}, {o['op']}"))
        row("between operations", "", f"{1e3 * rest:.2f}", share(rest, l["profile_seconds"]), "", "")


def visit(machine, lines):
    known = lambda name: machine.get(name) or f"unknown {name}"
    print(f"\n## {known('card')}, driver {known('driver')}, commit {known('commit')[:12]}, {known('script')}, "
          f"{known('date')}")
    timed(lines)
    print()
    for l in lines:
        if l["kind"] == "ceiling" and "tflops" in l:
            print(f"- bf16 product of {l['size']}-square random matrices: {l['tflops']:.0f} TFLOP/s, "
                  f"{share(l['tflops'] * 1e12, PEAK)} of 989")
        elif l["kind"] == "ceiling":
            print(f"- device-to-device copy, bytes read and written: {l['terabytes']:.2f} TB/s")
        elif l["kind"] == "file":
            seconds = l["seconds"] - l["loading"]
            print(f"- {l['model']} from FASTA to file: {l['tokens']} tokens of {l['records']} records in "
                  f"{seconds:.2f} s, {l['tokens'] / seconds:.0f} tokens/s, and {l['loading']:.2f} s of loading")
        elif l.get("error"):
            print(f"- {l['model']}, {l['mode']}: {l['error']}")
        elif "relative_l2" in l:
            print(f"- {l['model']}, {l['how']}, {l['dtype']}: {l['relative_l2']:.2g} from {l['against']} "
                  f"(relative L2 over {l['records']} records, the bar is {l['bar']:g})")
    profiles(lines)


def main():
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    visits = []
    for line in read(sys.argv[1:]):
        if line["kind"] == "machine" or not visits:
            visits.append(({}, []))
        if line["kind"] == "machine":
            visits[-1] = (line, [])
        else:
            visits[-1][1].append(line)
    print("# embed on a GPU\n")
    print("Forward passes take token ids in the host's memory to mean embeddings there. Medians, of real tokens.")
    for machine, lines in visits:
        visit(machine, lines)
    if impossible:
        sys.exit("table.py: faster than the card can be: " + "; ".join(impossible))


if __name__ == "__main__":
    main()
