"""ESM-2 and DNABERT-S in PyTorch over padded batches with an attention mask, as their users run them.

Weights are those of a synthetic checkpoint (synthetic:NAME[@SEED], computed from the tensors' names) or of a folder
with config.json and model.safetensors. The names of the tensors are the ones that the checkpoints use.
"""
import json
import math
import os
import re

import numpy as np
import torch
import torch.nn.functional as F

# Number of layers, hidden size and number of heads of the ESM-2 models that have a name.
ESM2_SIZES = {
    "esm2-tiny": (3, 64, 4), "esm2-hd128": (2, 512, 4), "esm2-8m": (6, 320, 20), "esm2-35m": (12, 480, 20),
    "esm2-150m": (30, 640, 20), "esm2-650m": (33, 1280, 20), "esm2-3b": (36, 2560, 40), "esm2-15b": (48, 5120, 40),
}
DNABERT_S_LAYERS = {"dnabert-s": 12, "dnabert-s-2l": 2}
LEAST = torch.finfo(torch.float32).min  # added to the attention scores of padding, whose exponential is then 0


class Config:
    """The shape of a model, as config.json gives it."""

    def __init__(self, kind, layers, hidden, heads, intermediate, vocabulary, eps, token_dropout=True):
        self.kind, self.layers, self.hidden, self.heads = kind, layers, hidden, heads
        self.intermediate, self.vocabulary, self.eps, self.token_dropout = intermediate, vocabulary, eps, token_dropout

    @property
    def pad(self):
        return 1 if self.kind == "esm2" else 3

    @classmethod
    def known(cls, name):
        if name in ESM2_SIZES:
            layers, hidden, heads = ESM2_SIZES[name]
            return cls("esm2", layers, hidden, heads, 4 * hidden, 33, 1e-5)
        if name in DNABERT_S_LAYERS:
            return cls("dnabert-s", DNABERT_S_LAYERS[name], 768, 12, 3072, 4096, 1e-12)
        raise ValueError(f"no synthetic model is called {name}")

    @classmethod
    def read(cls, path):
        with open(path) as f:
            c = json.load(f)
        esm = c["model_type"] == "esm"
        return cls("esm2" if esm else "dnabert-s", c["num_hidden_layers"], c["hidden_size"], c["num_attention_heads"],
                   c["intermediate_size"], c["vocab_size"], c["layer_norm_eps"], c.get("token_dropout", False))

    def tensors(self):
        """Yields the name and the shape of every tensor that the model reads."""
        h, f = self.hidden, self.intermediate
        linear = lambda name, out, width: [(name + ".weight", (out, width)), (name + ".bias", (out,))]
        norm = lambda name: [(name + ".weight", (h,)), (name + ".bias", (h,))]
        yield "embeddings.word_embeddings.weight", (self.vocabulary, h)
        if self.kind == "dnabert-s":
            yield "embeddings.token_type_embeddings.weight", (2, h)
            yield from norm("embeddings.LayerNorm")
        for i in range(self.layers):
            block = f"encoder.layer.{i}."
            if self.kind == "esm2":
                for part in ("query", "key", "value"):
                    yield from linear(block + "attention.self." + part, h, h)
                yield from linear(block + "attention.output.dense", h, h)
                yield from norm(block + "attention.LayerNorm")
                yield from linear(block + "intermediate.dense", f, h)
                yield from linear(block + "output.dense", h, f)
                yield from norm(block + "LayerNorm")
            else:
                yield from linear(block + "attention.self.Wqkv", 3 * h, h)
                yield from linear(block + "attention.output.dense", h, h)
                yield from norm(block + "attention.output.LayerNorm")
                yield block + "mlp.gated_layers.weight", (2 * f, h)
                yield from linear(block + "mlp.wo", h, f)
                yield from norm(block + "mlp.layernorm")
        if self.kind == "esm2":
            yield from norm("encoder.emb_layer_norm_after")


class Model(torch.nn.Module):
    """Computes the last hidden states [B, L, h] from ids and mask [B, L]. mask is 1 on tokens and 0 on padding."""

    def __init__(self, config, weights, fused_attention=False):
        super().__init__()
        self.config, self.fused_attention = config, fused_attention
        for name, shape in config.tensors():
            values = torch.from_numpy(weights(name, shape))
            if tuple(values.shape) != shape:
                raise ValueError(f"{name} has shape {tuple(values.shape)}, {shape} is needed")
            # PyTorch allows no dot in the name of a parameter.
            self.register_parameter(name.replace(".", "/"), torch.nn.Parameter(values, requires_grad=False))

    def weight(self, name):
        return getattr(self, name.replace(".", "/"))

    def linear(self, x, name):
        return F.linear(x, self.weight(name + ".weight"), self.weight(name + ".bias"))

    def norm(self, x, name):
        return F.layer_norm(x, (self.config.hidden,), self.weight(name + ".weight"), self.weight(name + ".bias"), self.config.eps)

    def split_heads(self, x):
        b, n, _ = x.shape
        return x.view(b, n, self.config.heads, -1).transpose(1, 2)

    def attention(self, q, k, v, bias):
        """Returns softmax(q·kᵀ + bias)·v. q is already scaled, and bias is added to every head's scores."""
        if self.fused_attention:
            x = F.scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=1.0)
        else:
            x = torch.matmul(torch.softmax(torch.matmul(q, k.transpose(-1, -2)) + bias, -1), v)
        x = x.transpose(1, 2)
        return x.reshape(x.shape[0], x.shape[1], self.config.hidden)

    def pool(self, states, mask):
        """Returns the mean state of each sequence: over the residues for ESM-2, over all tokens for DNABERT-S."""
        weights = mask.to(states.dtype)
        if self.config.kind == "esm2":
            weights = weights.clone()
            weights[:, 0] = 0
            weights[torch.arange(len(mask)), mask.sum(1) - 1] = 0
        return torch.einsum("bl,blh->bh", weights, states) / weights.sum(1, keepdim=True)


class ESM2(Model):
    MASK_TOKEN = 32
    inv_freq = None

    def rotary(self, n):
        d = self.config.hidden // self.config.heads
        inv_freq = self.inv_freq
        if inv_freq is None:
            inv_freq = 1.0 / (10000.0 ** (torch.arange(0, d, 2, dtype=torch.int64).float() / d))
        angles = torch.arange(n).float().unsqueeze(1) * inv_freq.unsqueeze(0)
        angles = torch.cat((angles, angles), -1)
        return angles.cos(), angles.sin()

    @staticmethod
    def rotate(z, cos, sin):
        half = z.shape[-1] // 2
        return z * cos + torch.cat((-z[..., half:], z[..., :half]), -1) * sin

    def forward(self, ids, mask):
        c = self.config
        present = mask.float()
        x = F.embedding(ids, self.weight("embeddings.word_embeddings.weight"))
        if c.token_dropout:
            masked = (ids == self.MASK_TOKEN).float() * present
            share = masked.sum(-1) / present.sum(-1)
            x = x * (1 - masked).unsqueeze(-1) * ((1 - 0.15 * 0.8) / (1 - share)).view(-1, 1, 1)
        x = x * present.unsqueeze(-1)
        bias = ((1 - present) * LEAST).unsqueeze(1).unsqueeze(1)
        cos, sin = self.rotary(ids.shape[1])
        scale = (c.hidden // c.heads) ** -0.5
        for i in range(c.layers):
            block = f"encoder.layer.{i}."
            y = self.norm(x, block + "attention.LayerNorm")
            q = self.split_heads(self.linear(y, block + "attention.self.query") * scale)
            k = self.split_heads(self.linear(y, block + "attention.self.key"))
            v = self.split_heads(self.linear(y, block + "attention.self.value"))
            y = self.attention(self.rotate(q, cos, sin), self.rotate(k, cos, sin), v, bias)
            x = x + self.linear(y, block + "attention.output.dense")
            y = F.gelu(self.linear(self.norm(x, block + "LayerNorm"), block + "intermediate.dense"))
            x = x + self.linear(y, block + "output.dense")
        return self.norm(x, "encoder.emb_layer_norm_after")


def slopes(heads):
    """Returns ALiBi's slopes: those for the largest power of two that is not above heads, and if these are not enough,
    every other slope for twice that power."""
    power = 2 ** int(math.log2(heads))
    first = [2.0 ** (-8.0 * i / power) for i in range(1, power + 1)]
    rest = [2.0 ** (-8.0 * (2 * j - 1) / (2 * power)) for j in range(1, heads - power + 1)]
    return torch.tensor(first + rest)


class DNABERTS(Model):
    def __init__(self, config, weights, fused_attention=False):
        super().__init__(config, weights, fused_attention)
        self.register_buffer("slopes", slopes(config.heads), persistent=False)

    def forward(self, ids, mask):
        c = self.config
        x = F.embedding(ids, self.weight("embeddings.word_embeddings.weight"))
        x = self.norm(x + self.weight("embeddings.token_type_embeddings.weight")[0], "embeddings.LayerNorm")
        position = torch.arange(ids.shape[1]).float()
        distance = (position.unsqueeze(0) - position.unsqueeze(1)).abs()
        alibi = -self.slopes.view(-1, 1, 1) * distance
        bias = ((1 - mask.float()) * LEAST).unsqueeze(1).unsqueeze(1) + alibi
        scale = (c.hidden // c.heads) ** -0.5
        for i in range(c.layers):
            block = f"encoder.layer.{i}."
            q, k, v = self.linear(x, block + "attention.self.Wqkv").split(c.hidden, -1)
            y = self.attention(self.split_heads(q) * scale, self.split_heads(k), self.split_heads(v), bias)
            x = self.norm(self.linear(y, block + "attention.output.dense") + x, block + "attention.output.LayerNorm")
            g, u = F.linear(x, self.weight(block + "mlp.gated_layers.weight")).split(c.intermediate, -1)
            x = self.norm(self.linear(F.gelu(g) * u, block + "mlp.wo") + x, block + "mlp.layernorm")
        return x


def synthetic_tensor(name, shape, seed):
    """Returns the float32 tensor called name of a synthetic checkpoint: SplitMix64 from the name's FNV-1a hash."""
    golden, mask64 = 0x9E3779B97F4A7C15, (1 << 64) - 1
    start = 0xCBF29CE484222325
    for byte in name.encode():
        start = ((start ^ byte) * 0x100000001B3) & mask64
    start = (start + seed * golden) & mask64
    with np.errstate(over="ignore"):
        z = np.arange(1, math.prod(shape) + 1, dtype=np.uint64)
        z *= np.uint64(golden)
        z += np.uint64(start)
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            z ^= z >> np.uint64(shift)
            z *= np.uint64(factor)
        z ^= z >> np.uint64(31)
    values = (z >> np.uint64(40)).astype(np.float64) * 2.0**-23 - 1.0
    lower = name.lower()
    if "layernorm" in lower or "layer_norm" in lower:
        values = values * 0.1 + (1.0 if name.endswith("weight") else 0.0)
    elif "embeddings.weight" in lower:
        pass
    elif name.endswith("bias"):
        values *= 0.1
    else:
        gain = 1.5 if any(part in lower for part in ("query", "key", "wqkv")) else 1.0
        values *= gain * math.sqrt(3.0 / shape[1])
    return values.astype(np.float32).reshape(shape)


def read_safetensors(path):
    """Returns every tensor of a safetensors file as a NumPy array. bfloat16 and float16 become float32."""
    with open(path, "rb") as f:
        header = json.loads(f.read(int.from_bytes(f.read(8), "little")))
        start = f.tell()
    raw = np.memmap(path, np.uint8, "r", start)
    tensors = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        first, last = entry["data_offsets"]
        piece = raw[first:last]
        if entry["dtype"] == "BF16":
            values = (piece.view("<u2").astype(np.uint32) << 16).view(np.float32)
        elif entry["dtype"] in ("F32", "F16", "I32", "I64"):
            values = piece.view({"F32": "<f4", "F16": "<f2", "I32": "<i4", "I64": "<i8"}[entry["dtype"]])
            values = values.astype(np.float32) if entry["dtype"] == "F16" else values
        else:
            raise ValueError(f"{path}: {name} is stored as {entry['dtype']}")
        tensors[name] = np.array(values).reshape(entry["shape"])
    return tensors


def load(name, fused_attention=False):
    """Returns the model called name: synthetic:NAME[@SEED], or a folder with config.json and model.safetensors."""
    inv_freq = None
    synthetic = re.fullmatch(r"synthetic:([^@]+)(?:@(\d+))?", name)
    if synthetic:
        config, seed = Config.known(synthetic.group(1)), int(synthetic.group(2) or 0)
        weights = lambda tensor, shape: synthetic_tensor(tensor, shape, seed)
    else:
        config = Config.read(os.path.join(name, "config.json"))
        stored = {re.sub(r"^(esm|bert)\.", "", k): v for k, v in read_safetensors(os.path.join(name, "model.safetensors")).items()}
        weights = lambda tensor, shape: stored[tensor].astype(np.float32)
        inv_freq = stored.get("encoder.layer.0.attention.self.rotary_embeddings.inv_freq")
    model = {"esm2": ESM2, "dnabert-s": DNABERTS}[config.kind](config, weights, fused_attention).eval()
    if inv_freq is not None:
        model.inv_freq = torch.from_numpy(inv_freq.astype(np.float32))
    return model


def padded_batches(records, tokens, pad):
    """Yields padded batches of records, sorted by length, as (indices of the records, ids, mask).

    A batch has at most the given number of tokens, including padding, or is a single longer record.
    """
    order = sorted(range(len(records)), key=lambda i: len(records[i]))
    batches, current = [], []
    for i in order:
        if current and (len(current) + 1) * len(records[i]) > tokens:
            batches.append(current)
            current = []
        current.append(i)
    if current:
        batches.append(current)
    for batch in batches:
        width = max(len(records[i]) for i in batch)
        ids = torch.full((len(batch), width), pad, dtype=torch.int64)
        mask = torch.zeros((len(batch), width), dtype=torch.int64)
        for row, i in enumerate(batch):
            ids[row, : len(records[i])] = torch.as_tensor(records[i], dtype=torch.int64)
            mask[row, : len(records[i])] = 1
        yield batch, ids, mask
