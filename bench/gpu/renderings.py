"""The models as PyTorch users run them, over padded batches: transformers' EsmModel, and both models in plain PyTorch.

DNABERT-S's own code fuses its attention with a Triton kernel of an old release or falls back to plain attention; the
rendering here gives scaled_dot_product_attention the ALiBi bias and the mask instead.
"""
import math
import types

import torch
import torch.nn.functional as F
from torch import nn

from models import slopes

FUSED = hasattr(F, "scaled_dot_product_attention")


def attend(q, k, v, bias, scale):
    """softmax(scale·q·kᵀ + bias)·v over [B, heads, L, d], heads joined again: [B, L, h]."""
    if FUSED:
        # Before PyTorch 2.1 the function takes no scale.
        x = F.scaled_dot_product_attention(q * (scale * math.sqrt(q.shape[-1])), k, v, attn_mask=bias)
    else:
        x = torch.matmul(torch.softmax(torch.matmul(q * scale, k.transpose(-1, -2)) + bias, -1), v)
    return x.transpose(1, 2).reshape(x.shape[0], x.shape[2], -1)


def heads(x, n):
    return x.view(x.shape[0], x.shape[1], n, -1).transpose(1, 2)


class DNABERTSBlock(nn.Module):
    NAMES = {
        "qkv": "attention.self.Wqkv", "out": "attention.output.dense", "norm1": "attention.output.LayerNorm",
        "gated": "mlp.gated_layers", "down": "mlp.wo", "norm2": "mlp.layernorm",
    }

    def __init__(self, c):
        super().__init__()
        self.heads = c.heads
        self.qkv, self.out = nn.Linear(c.hidden, 3 * c.hidden), nn.Linear(c.hidden, c.hidden)
        self.gated, self.down = nn.Linear(c.hidden, 2 * c.intermediate, bias=False), nn.Linear(c.intermediate, c.hidden)
        self.norm1, self.norm2 = nn.LayerNorm(c.hidden, c.eps), nn.LayerNorm(c.hidden, c.eps)

    def forward(self, x, bias):
        q, k, v = (heads(part, self.heads) for part in self.qkv(x).chunk(3, -1))
        x = self.norm1(self.out(attend(q, k, v, bias, q.shape[-1] ** -0.5)) + x)
        g, u = self.gated(x).chunk(2, -1)
        return self.norm2(self.down(F.gelu(g) * u) + x)


class DNABERTS(nn.Module):
    NAMES = {"words": "embeddings.word_embeddings", "types": "embeddings.token_type_embeddings", "norm": "embeddings.LayerNorm"}

    def __init__(self, c):
        super().__init__()
        self.words, self.types = nn.Embedding(c.vocabulary, c.hidden), nn.Embedding(2, c.hidden)
        self.norm = nn.LayerNorm(c.hidden, c.eps)
        self.blocks = nn.ModuleList([DNABERTSBlock(c) for _ in range(c.layers)])
        self.register_buffer("slopes", slopes(c.heads).view(-1, 1, 1), persistent=False)

    def forward(self, ids, mask):
        x = self.norm(self.words(ids) + self.types.weight[0])
        position = torch.arange(ids.shape[1], device=ids.device)
        distance = (position.unsqueeze(0) - position.unsqueeze(1)).abs()
        alibi = (-self.slopes * distance).to(x.dtype)
        padding = torch.zeros(mask.shape, dtype=x.dtype, device=x.device).masked_fill(mask == 0, torch.finfo(x.dtype).min)
        # The sum of two negative numbers must not leave the type's range.
        bias = torch.minimum(alibi, padding[:, None, None, :])
        for block in self.blocks:
            x = block(x, bias)
        return x


class ESM2Block(nn.Module):
    NAMES = {
        "query": "attention.self.query", "key": "attention.self.key", "value": "attention.self.value",
        "out": "attention.output.dense", "norm1": "attention.LayerNorm", "norm2": "LayerNorm",
        "up": "intermediate.dense", "down": "output.dense",
    }

    def __init__(self, c):
        super().__init__()
        h = c.hidden
        self.heads = c.heads
        self.query, self.key, self.value, self.out = (nn.Linear(h, h) for _ in range(4))
        self.up, self.down = nn.Linear(h, c.intermediate), nn.Linear(c.intermediate, h)
        self.norm1, self.norm2 = nn.LayerNorm(h, c.eps), nn.LayerNorm(h, c.eps)

    def forward(self, x, bias, cos, sin):
        y = self.norm1(x)
        q, k, v = (heads(project(y), self.heads) for project in (self.query, self.key, self.value))
        y = attend(rotate(q, cos, sin), rotate(k, cos, sin), v, bias, q.shape[-1] ** -0.5)
        x = x + self.out(y)
        return x + self.down(F.gelu(self.up(self.norm2(x))))


def rotate(z, cos, sin):
    a, b = z.chunk(2, -1)
    return z * cos + torch.cat((-b, a), -1) * sin


class ESM2(nn.Module):
    NAMES = {"words": "embeddings.word_embeddings", "norm": "encoder.emb_layer_norm_after"}
    MASK_TOKEN = 32

    def __init__(self, c):
        super().__init__()
        d = c.hidden // c.heads
        self.words, self.norm = nn.Embedding(c.vocabulary, c.hidden), nn.LayerNorm(c.hidden, c.eps)
        self.blocks = nn.ModuleList([ESM2Block(c) for _ in range(c.layers)])
        self.pairs, self.step = d // 2, 2 / d

    def forward(self, ids, mask):
        masked = ids == self.MASK_TOKEN
        x = self.words(ids)
        scale = 0.88 / (1 - masked.sum(-1).float() / mask.sum(-1))
        x = x * (scale[:, None] * (mask - masked.to(mask.dtype)))[:, :, None].to(x.dtype)
        bias = torch.zeros(mask.shape, dtype=x.dtype, device=x.device).masked_fill(mask == 0, torch.finfo(x.dtype).min)
        bias = bias[:, None, None, :].expand(-1, -1, ids.shape[1], -1)
        frequencies = 10000.0 ** -(torch.arange(self.pairs, device=x.device).float() * self.step)
        angles = torch.arange(ids.shape[1], device=x.device)[:, None] * frequencies
        angles = torch.cat((angles, angles), -1)
        cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
        for block in self.blocks:
            x = block(x, bias, cos, sin)
        return self.norm(x)


class Transformers(nn.Module):
    """transformers' EsmModel with the calls of the renderings."""

    def __init__(self, c, attention):
        super().__init__()
        from transformers import EsmConfig, EsmModel

        config = EsmConfig(
            vocab_size=c.vocabulary, hidden_size=c.hidden, num_hidden_layers=c.layers, num_attention_heads=c.heads,
            intermediate_size=c.intermediate, layer_norm_eps=c.eps, position_embedding_type="rotary", token_dropout=True,
            mask_token_id=ESM2.MASK_TOKEN, pad_token_id=c.pad, max_position_embeddings=1026, emb_layer_norm_before=False,
            hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
        self.model = EsmModel._from_config(config, attn_implementation=attention, add_pooling_layer=False)

    @property
    def blocks(self):
        return self.model.encoder.layer

    def forward(self, ids, mask):
        return self.model(input_ids=ids, attention_mask=mask, return_dict=True).last_hidden_state


def stateless_rotary(model):
    """Makes rotary tables a function of the length alone; says whether there were any to change.

    EsmModel keeps the last length in its modules, which the compiler takes for a constant: every new length of a batch
    would compile the model again.
    """

    def tables(self, x, seq_dimension=2):
        t = torch.arange(x.shape[seq_dimension], device=x.device).type_as(self.inv_freq)
        angles = torch.outer(t, self.inv_freq)
        angles = torch.cat((angles, angles), -1)
        return angles.cos()[None, None], angles.sin()[None, None]

    found = [m for m in model.modules() if hasattr(m, "_update_cos_sin_tables")]
    for m in found:
        m._update_cos_sin_tables = types.MethodType(tables, m)
    return bool(found)


def build(c, device):
    """A model of the config with random weights, what it is, how it attends, and why it is not transformers' own."""
    attention = "scaled_dot_product_attention" if FUSED else "plain attention"
    if c.kind == "dnabert-s":
        return on(device, lambda: DNABERTS(c)), "rendering in PyTorch", attention, None
    try:
        import transformers
    except ImportError as e:
        return on(device, lambda: ESM2(c)), "rendering in PyTorch", attention, f"transformers is not installed: {e}"
    name = f"transformers {transformers.__version__} EsmModel"
    reasons = []
    for implementation in ("sdpa", "eager"):
        try:
            model = on(device, lambda: Transformers(c, implementation))
            with torch.inference_mode():  # what a version refuses may show only when it runs
                ids = torch.tensor([[0, 5, 6, 7, 2], [0, 5, 6, 2, c.pad]], device=device)
                model(ids, (ids != c.pad).long())
        except torch.cuda.OutOfMemoryError:
            raise
        except Exception as e:
            reasons.append(f"{implementation}: {e}"[:300])
            continue
        attention = getattr(model.model.config, "_attn_implementation", implementation)
        if reasons:
            attention += f" ({'; '.join(reasons)})"
        return model, name, attention, None
    return on(device, lambda: ESM2(c)), "rendering in PyTorch", attention, f"{name} does not run: " + "; ".join(reasons)


def on(device, make):
    """Makes a model where it will run: filling billions of weights on the host takes minutes."""
    if hasattr(torch.device, "__enter__"):  # from PyTorch 2.0 on
        with torch.device(device):
            model = make()
    else:
        model = make()
    return model.to(device).eval().requires_grad_(False)


def set_weights(model, c, weights):
    """Gives the model the tensors that weights(name, shape) computes under a checkpoint's names."""
    if isinstance(model, Transformers):
        state = {name: torch.from_numpy(weights(name, shape)) for name, shape in c.tensors()}
        unknown = model.model.load_state_dict(state, strict=False).unexpected_keys
        if unknown:
            raise ValueError(f"EsmModel has no {', '.join(unknown[:3])}")
        return
    state = {}
    for own, shape in ((k, tuple(v.shape)) for k, v in model.state_dict().items()):
        parts, table, prefix = own.split("."), model.NAMES, ""
        if parts[0] == "blocks":
            table, prefix, parts = model.blocks[0].NAMES, f"encoder.layer.{parts[1]}.", parts[2:]
        state[own] = torch.from_numpy(weights(f"{prefix}{table[parts[0]]}.{parts[1]}", shape))
    model.load_state_dict(state)
