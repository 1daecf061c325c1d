"""The models as PyTorch users run them: transformers' EsmModel over padded batches, and both models in plain PyTorch,
over padded batches and over packed ones.

DNABERT-S's own code fuses its attention with a Triton kernel of an old release or falls back to plain attention. The
model here passes the ALiBi bias and the mask to scaled_dot_product_attention instead. Over packed batches, ESM-2 uses
torch.nn.attention.varlen, and DNABERT-S uses flex_attention, which supports its bias.
"""
import math
import types
from typing import Any, Callable, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from models import slopes

FUSED = hasattr(F, "scaled_dot_product_attention")
try:
    from torch.nn.attention.varlen import varlen_attn
except ImportError:
    varlen_attn = None
try:
    from torch.nn.attention.flex_attention import BlockMask, flex_attention

    compiled_flex = torch.compile(flex_attention, dynamic=False)  # uncompiled, it stores all scores
except ImportError:
    flex_attention = None

BLOCK = 128  # tokens in a block of flex_attention


class Varlen(NamedTuple):
    """Packed sequences: cu_seqlens, int32, and the length of the longest sequence."""

    cu: torch.Tensor
    longest: int


class Flex(NamedTuple):
    """Packed sequences for flex_attention: the blocks of keys for each block of queries, and functions for the keys of
    each query (mask) and for the bias (score)."""

    kv_num_blocks: torch.Tensor  # [1, 1, T/BLOCK], the number of key blocks for each query block
    kv_indices: torch.Tensor  # [1, 1, T/BLOCK, T/BLOCK], the first kv_num_blocks in a row are valid
    mask: Callable
    score: Callable
    block_mask: Any  # BlockMask of the fields above, or None if PyTorch has no flex_attention


def attend(q, k, v, where, scale):
    """Returns the attention [B, L, heads·d] of q, k and v, each [B, L, heads, d].

    where is the bias of padded sequences, [B or 1, heads or 1, L, L]. For packed sequences it is a Varlen or a Flex,
    and B is 1.
    """
    if isinstance(where, Varlen):
        if varlen_attn is not None and q.is_cuda and q.dtype != torch.float32:
            # The default scale of varlen_attn is 1/sqrt(d), like ours.
            x = varlen_attn(q[0], k[0], v[0], where.cu, where.cu, where.longest, where.longest)
        else:
            x = plain_varlen(q[0], k[0], v[0], where.cu, scale)
        return x.reshape(1, x.shape[0], -1)
    q, k, v = (part.transpose(1, 2) for part in (q, k, v))
    if isinstance(where, Flex):
        if where.block_mask is not None and q.is_cuda:
            x = compiled_flex(q, k, v, score_mod=where.score, block_mask=where.block_mask, scale=scale)
        else:
            x = plain_flex(q, k, v, where, scale)
    elif FUSED:
        # Before PyTorch 2.1 the function has no parameter for the scale, so q is scaled.
        x = F.scaled_dot_product_attention(q * (scale * math.sqrt(q.shape[-1])), k, v, attn_mask=where)
    else:
        x = torch.matmul(torch.softmax(torch.matmul(q * scale, k.transpose(-1, -2)) + where, -1), v)
    return x.transpose(1, 2).reshape(x.shape[0], x.shape[2], -1)


def plain_varlen(q, k, v, cu, scale):
    """Computes the same as varlen_attn, slowly, one sequence after the other: [T, heads, d]."""
    out = torch.empty_like(q)
    borders = cu.tolist()
    for first, last in zip(borders, borders[1:]):
        if first < last:
            scores = torch.einsum("qhd,khd->hqk", q[first:last] * scale, k[first:last])
            out[first:last] = torch.einsum("hqk,khd->qhd", torch.softmax(scores, -1), v[first:last])
    return out


def plain_flex(q, k, v, where, scale):
    """Computes the same as flex_attention, slowly, by storing all scores: [1, heads, T, d]."""
    heads, tokens = q.shape[1], q.shape[2]
    h, row, column = torch.arange(heads).view(-1, 1, 1), torch.arange(tokens).view(-1, 1), torch.arange(tokens)
    scores = where.score((torch.matmul(q[0], k[0].transpose(-1, -2)) * scale).float(), 0, h, row, column)
    reached = torch.zeros(tokens // BLOCK, tokens // BLOCK, dtype=torch.bool)
    for i, n in enumerate(where.kv_num_blocks[0, 0].tolist()):
        reached[i, where.kv_indices[0, 0, i, :n].long()] = True
    reached = reached.repeat_interleave(BLOCK, 0).repeat_interleave(BLOCK, 1)
    scores = scores.masked_fill(~(where.mask(0, h, row, column) & reached), -math.inf)
    return torch.matmul(torch.softmax(scores, -1).to(v.dtype), v[0]).unsqueeze(0)


def heads(x, n):
    return x.view(x.shape[0], x.shape[1], n, -1)


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

    def forward(self, x, where):
        q, k, v = (heads(part, self.heads) for part in self.qkv(x).chunk(3, -1))
        x = self.norm1(self.out(attend(q, k, v, where, q.shape[-1] ** -0.5)) + x)
        g, u = self.gated(x).chunk(2, -1)
        return self.norm2(self.down(F.gelu(g) * u) + x)


class DNABERTS(nn.Module):
    NAMES = {
        "words": "embeddings.word_embeddings", "types": "embeddings.token_type_embeddings",
        "norm": "embeddings.LayerNorm",
    }
    PACKED = "flex_attention" if flex_attention else "plain attention with a score function"

    def __init__(self, c):
        super().__init__()
        self.words, self.types = nn.Embedding(c.vocabulary, c.hidden), nn.Embedding(2, c.hidden)
        self.norm = nn.LayerNorm(c.hidden, c.eps)
        self.blocks = nn.ModuleList([DNABERTSBlock(c) for _ in range(c.layers)])
        self.register_buffer("slopes", slopes(c.heads).view(-1, 1, 1), persistent=False)

    def embeddings(self, ids):
        return self.norm(self.words(ids) + self.types.weight[0])

    def forward(self, ids, mask):
        x = self.embeddings(ids)
        position = torch.arange(ids.shape[1], device=ids.device)
        distance = (position.unsqueeze(0) - position.unsqueeze(1)).abs()
        alibi = (-self.slopes * distance).to(x.dtype)
        padding = torch.zeros(mask.shape, dtype=x.dtype, device=x.device)
        padding = padding.masked_fill(mask == 0, torch.finfo(x.dtype).min)
        # The minimum, because the sum of two negative numbers may leave the type's range.
        bias = torch.minimum(alibi, padding[:, None, None, :])
        for block in self.blocks:
            x = block(x, bias)
        return x

    def packed(self, ids, position, sequence, where):
        x = self.embeddings(ids.unsqueeze(0))
        for block in self.blocks:
            x = block(x, where)
        return x[0]


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

    def forward(self, x, where, cos, sin):
        y = self.norm1(x)
        q, k, v = (heads(project(y), self.heads) for project in (self.query, self.key, self.value))
        y = attend(rotate(q, cos, sin), rotate(k, cos, sin), v, where, q.shape[-1] ** -0.5)
        x = x + self.out(y)
        return x + self.down(F.gelu(self.up(self.norm2(x))))


def rotate(z, cos, sin):
    a, b = z.chunk(2, -1)
    return z * cos + torch.cat((-b, a), -1) * sin


class ESM2(nn.Module):
    NAMES = {"words": "embeddings.word_embeddings", "norm": "encoder.emb_layer_norm_after"}
    PACKED = "varlen_attn" if varlen_attn else "plain attention, sequence by sequence"
    MASK_TOKEN = 32

    def __init__(self, c):
        super().__init__()
        d = c.hidden // c.heads
        self.words, self.norm = nn.Embedding(c.vocabulary, c.hidden), nn.LayerNorm(c.hidden, c.eps)
        self.blocks = nn.ModuleList([ESM2Block(c) for _ in range(c.layers)])
        self.pairs, self.step = d // 2, 2 / d

    def rotary(self, position, dtype):
        """Returns tables of cosines and sines, of the shape [1, L, 1, d]."""
        frequencies = 10000.0 ** -(torch.arange(self.pairs, device=position.device).float() * self.step)
        angles = position[:, None] * frequencies
        angles = torch.cat((angles, angles), -1)[None, :, None, :]
        return angles.cos().to(dtype), angles.sin().to(dtype)

    def forward(self, ids, mask):
        masked = ids == self.MASK_TOKEN
        x = self.words(ids)
        scale = 0.88 / (1 - masked.sum(-1).float() / mask.sum(-1))
        x = x * (scale[:, None] * (mask - masked.to(mask.dtype)))[:, :, None].to(x.dtype)
        bias = torch.zeros(mask.shape, dtype=x.dtype, device=x.device).masked_fill(mask == 0, torch.finfo(x.dtype).min)
        bias = bias[:, None, None, :].expand(-1, -1, ids.shape[1], -1)
        cos, sin = self.rotary(torch.arange(ids.shape[1], device=ids.device), x.dtype)
        for block in self.blocks:
            x = block(x, bias, cos, sin)
        return self.norm(x)

    def packed(self, ids, position, sequence, where):
        masked = (ids == self.MASK_TOKEN).float()
        count = torch.zeros(2, where.cu.shape[0], device=ids.device)
        count[0].index_add_(0, sequence, masked)
        count[1].index_add_(0, sequence, torch.ones_like(masked))
        scale = 0.88 / (1 - count[0] / count[1].clamp(min=1))
        x = self.words(ids)
        x = (x * (scale[sequence] * (1 - masked))[:, None].to(x.dtype)).unsqueeze(0)
        cos, sin = self.rotary(position, x.dtype)
        for block in self.blocks:
            x = block(x, where, cos, sin)
        return self.norm(x)[0]


class Packing:
    """Packed batches with equal numbers of tokens. The end of a batch is filled with sequences of padding, so that
    nothing is compiled twice."""

    def __init__(self, model, config, records, batches, device):
        """batches are lists of indices of records."""
        self.device, self.batches = device, []
        tokens = max(sum(len(records[i]) for i in rows) for rows in batches)
        self.tokens = -(-tokens // BLOCK) * BLOCK
        longest = max(len(records[i]) for rows in batches for i in rows)
        lengths = []
        for rows in batches:
            lengths.append([len(records[i]) for i in rows])
            missing = self.tokens - sum(lengths[-1])
            while missing > 0:
                lengths[-1].append(min(missing, longest))
                missing -= lengths[-1][-1]
        sequences = max(map(len, lengths))
        self.flex = isinstance(model, DNABERTS)
        if self.flex:  # all batches share mask and score; where() copies a batch's sequence indices here
            self.sequence = torch.zeros(self.tokens, dtype=torch.int64, device=device)
            sequence, slope = self.sequence, slopes(config.heads).to(device)
            self.mask = lambda b, h, row, column: sequence[row] == sequence[column]
            self.score = lambda score, b, h, row, column: score - slope[h] * (row - column).abs()
        for rows, n in zip(batches, lengths):
            self.batches.append(self.batch([records[i] for i in rows], rows, n, sequences, longest, config))

    def batch(self, records, rows, lengths, sequences, longest, config):
        tokens = self.tokens
        ids = torch.full((tokens,), config.pad, dtype=torch.int64)
        ids[: sum(map(len, records))] = torch.as_tensor([t for r in records for t in r], dtype=torch.int64)
        n = torch.as_tensor(lengths)
        cu = torch.full((sequences + 1,), tokens, dtype=torch.int32)
        cu[0] = 0
        cu[1 : len(lengths) + 1] = n.cumsum(0)
        sequence = torch.repeat_interleave(torch.arange(len(lengths)), n)
        position = torch.arange(tokens) - cu[sequence].long()
        weight = torch.zeros(tokens)
        used = sum(map(len, records))
        weight[:used] = 1
        if config.kind == "esm2":  # the mean leaves out the first and the last token
            weight[cu[: len(records)].long()] = 0
            weight[cu[1 : len(records) + 1].long() - 1] = 0
        host = {"ids": ids, "position": position, "sequence": sequence, "weight": weight, "cu": cu}
        if self.flex:
            blocks = tokens // BLOCK
            first = cu[sequence[::BLOCK]].long() // BLOCK
            last = (cu[sequence[BLOCK - 1 :: BLOCK] + 1].long() - 1) // BLOCK
            host["kv_num_blocks"] = (last - first + 1).to(torch.int32).view(1, 1, blocks)
            indices = first[:, None] + torch.arange(blocks)
            indices = torch.where(indices < blocks, indices, torch.zeros_like(indices))
            host["kv_indices"] = indices.to(torch.int32).view(1, 1, blocks, blocks)
        if torch.device(self.device).type == "cuda":
            host = {name: t.pin_memory() for name, t in host.items()}
        return {"rows": rows, "longest": longest, "host": host}

    def where(self, batch, t):
        """Returns the argument where of attend for a batch whose tensors on the device are t."""
        if not self.flex:
            return Varlen(t["cu"], batch["longest"])
        self.sequence.copy_(t["sequence"])
        block_mask = None
        if flex_attention:
            block_mask = BlockMask.from_kv_blocks(
                t["kv_num_blocks"], t["kv_indices"], BLOCK_SIZE=BLOCK, mask_mod=self.mask)
        return Flex(t["kv_num_blocks"], t["kv_indices"], self.mask, self.score, block_mask)


class Transformers(nn.Module):
    """transformers' EsmModel with the methods of the plain PyTorch models above."""

    def __init__(self, c, attention):
        super().__init__()
        from transformers import EsmConfig, EsmModel

        config = EsmConfig(
            vocab_size=c.vocabulary, hidden_size=c.hidden, num_hidden_layers=c.layers, num_attention_heads=c.heads,
            intermediate_size=c.intermediate, layer_norm_eps=c.eps, position_embedding_type="rotary",
            token_dropout=True, mask_token_id=ESM2.MASK_TOKEN, pad_token_id=c.pad, max_position_embeddings=1026,
            emb_layer_norm_before=False, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
        self.model = EsmModel._from_config(config, attn_implementation=attention, add_pooling_layer=False)

    @property
    def blocks(self):
        return self.model.encoder.layer

    def forward(self, ids, mask):
        return self.model(input_ids=ids, attention_mask=mask, return_dict=True).last_hidden_state


def stateless_rotary(model):
    """Makes rotary tables depend only on the length; returns whether there were any to change.

    EsmModel keeps the last length in its modules, which the compiler takes for a constant: every new length of a batch
    would compile the model again. Later releases of transformers keep no length.
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


def rendering(c, device):
    return on(device, lambda: {"esm2": ESM2, "dnabert-s": DNABERTS}[c.kind](c))


def build(c, device):
    """Returns a model with random weights, its name, its attention, and the reason if it is not from transformers."""
    attention = "scaled_dot_product_attention" if FUSED else "plain attention"
    if c.kind == "dnabert-s":
        return rendering(c, device), "rendering in PyTorch", attention, None
    try:
        import transformers
    except ImportError as e:
        return rendering(c, device), "rendering in PyTorch", attention, f"transformers is not installed: {e}"
    name = f"transformers {transformers.__version__} EsmModel"
    reasons = []
    for implementation in ("sdpa", "eager"):
        try:
            model = on(device, lambda: Transformers(c, implementation))
            with torch.inference_mode():  # some versions of transformers fail only when the model runs
                ids = torch.tensor([[0, 5, 6, 7, 2], [0, 5, 6, 2, c.pad]], device=device)
                model(ids, (ids != c.pad).long())
            len(model.blocks)
        except torch.cuda.OutOfMemoryError:
            raise
        except Exception as e:
            reasons.append(f"{implementation}: {e}"[:300])
            continue
        attention = getattr(model.model.config, "_attn_implementation", implementation)
        if reasons:
            attention += f" ({'; '.join(reasons)})"
        return model, name, attention, None
    return rendering(c, device), "rendering in PyTorch", attention, f"{name} does not run: " + "; ".join(reasons)


def on(device, make):
    """Creates a model on its device, because filling billions of weights on the host takes minutes."""
    if hasattr(torch.device, "__enter__"):  # PyTorch 2.0 and later
        with torch.device(device):
            model = make()
    else:
        model = make()
    return model.to(device).eval().requires_grad_(False)


def set_weights(model, c, weights):
    """Loads the tensors weights(name, shape), by their names in a checkpoint, into the model."""
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
