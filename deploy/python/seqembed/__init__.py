"""Reads the outputs of the command ``embed``.

>>> import seqembed
>>> ids, x = seqembed.read("out/proteins.esm2-650m.npy")

``x`` is an array with one row for each record. Arrays of .npy and .safetensors files are mapped from the disk, not
copied. A .parquet file is read into memory.
"""

import json
import os
import re
import struct
import urllib.parse

__all__ = ["read"]

_TYPES = {"F32": "<f4", "F16": "<f2", "U8": "u1", "I64": "<i8"}

# Matches an escaped control character in a list of ids, such as %09 for a tab. If an id itself contains the text %09,
# the list contains %2509 for it.
_ESCAPE = re.compile("%((?:25)*)([01][0-9A-F]|7F|C2%[89][0-9A-F]|E2%80%A[89])")

# Matches the part of an .npy file's name that gives a pooling or a layer. An output of several poolings or layers has
# one .npy file for each, and one list of ids without this part in its name.
_COLUMN = re.compile(r"\.(mean|max|cls|layer[0-9]+)$")


def read(path, column="embedding"):
    """Returns the ids, a list of strings, and the vectors, an array [records, dim], of an output of ``embed``.

    path: an .npy file beside its .ids.txt, a .safetensors file, or a .parquet file, which needs pyarrow. Each row must
    belong to a record or to a window of a record: files with a row for each residue or token cannot be read.
    column: the column of a .parquet file, for example ``embedding_12`` if there are several layers. The tensor in a
    .safetensors file has the same name, but with ``embeddings`` instead of ``embedding``. Ignored for .npy files.
    """
    path = os.fspath(path)
    for suffix, reader in ((".npy", _npy), (".safetensors", _safetensors), (".parquet", _parquet)):
        if path.endswith(suffix):
            return reader(path, column)
    raise ValueError(f"{path}: neither .npy nor .safetensors nor .parquet")


def _npy(path, _):
    import numpy

    stem = path[: -len(".npy")]
    while not os.path.exists(stem + ".ids.txt") and _COLUMN.search(stem):
        stem = _COLUMN.sub("", stem)
    with open(stem + ".ids.txt", encoding="utf-8", newline="\n") as file:
        ids = [_ESCAPE.sub(_unescaped, line) if "%" in line else line for line in file.read().split("\n")[:-1]]
    return _checked(path, ids, numpy.load(path, mmap_mode="r"))


def _unescaped(match):
    literal, escape = match.groups()
    return "%" + literal[2:] + escape if literal else urllib.parse.unquote("%" + escape)


def _safetensors(path, column):
    import numpy

    with open(path, "rb") as file:
        (size,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(size))
    metadata = header.pop("__metadata__", {})

    def tensor(name):
        if name not in header:
            raise ValueError(f"{path}: no tensor {name}; there are {', '.join(list(header)[:20])}")
        t = header[name]
        start, end = t["data_offsets"]
        if start == end:  # an empty array cannot be mapped
            return numpy.empty(t["shape"], _TYPES[t["dtype"]])
        return numpy.memmap(path, dtype=_TYPES[t["dtype"]], mode="r", offset=8 + size + start, shape=tuple(t["shape"]))

    x = tensor(column.replace("embedding", "embeddings", 1))
    if "ids" in metadata:
        ids = json.loads(metadata["ids"])
    else:
        text, offsets = tensor("ids").tobytes(), tensor("ids_offsets").tolist()
        ids = [text[a:b].decode() for a, b in zip(offsets, offsets[1:])]
    return _checked(path, ids, x)


def _parquet(path, column):
    import pyarrow.parquet

    table = pyarrow.parquet.read_table(path, columns=["id", column])
    ids = table["id"].to_pylist()
    values = table[column].combine_chunks()
    x = values.flatten().to_numpy(zero_copy_only=False)
    return _checked(path, ids, x.reshape(len(ids), len(x) // max(1, len(ids))))


def _checked(path, ids, x):
    if len(ids) != len(x):
        raise ValueError(f"{path}: {len(ids)} ids and {len(x)} vectors")
    return ids, x
