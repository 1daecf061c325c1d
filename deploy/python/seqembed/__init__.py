"""Reads the outputs of the command ``embed``.

>>> import seqembed
>>> ids, x = seqembed.read("out/proteins.esm2-650m.npy")

``x`` is an array of one row a record. Arrays of .npy and .safetensors files are mapped from the disk, not copied; a
.parquet file is read, with one copy of the vectors.
"""

import json
import os
import struct

__all__ = ["read"]

_TYPES = {"F32": "<f4", "F16": "<f2"}


def read(path, column="embedding"):
    """Returns the ids, a list of strings, and the vectors, an array [records, dim], of an output of ``embed``.

    path: a .npy file beside its .ids.txt, a .safetensors file, or a .parquet file, which needs pyarrow.
    column: the column of a .parquet file, for example ``embedding_12`` with several layers; the tensor of a
    .safetensors file has that name with ``embeddings`` instead of ``embedding``.
    """
    path = os.fspath(path)
    for suffix, reader in ((".npy", _npy), (".safetensors", _safetensors), (".parquet", _parquet)):
        if path.endswith(suffix):
            return reader(path, column)
    raise ValueError(f"{path}: neither .npy nor .safetensors nor .parquet")


def _npy(path, _):
    import numpy

    with open(path[: -len(".npy")] + ".ids.txt", encoding="utf-8", newline="\n") as file:
        ids = file.read().split("\n")[:-1]
    return _checked(path, ids, numpy.load(path, mmap_mode="r"))


def _safetensors(path, column):
    import numpy

    with open(path, "rb") as file:
        (size,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(size))

    def tensor(name):
        if name not in header:
            raise ValueError(f"{path}: no tensor {name}; there are {', '.join(k for k in header if k != '__metadata__')}")
        t = header[name]
        start, end = t["data_offsets"]
        if start == end:  # an empty array cannot be mapped
            return numpy.empty(t["shape"], _types[t["dtype"]])
        return numpy.memmap(path, dtype=_types[t["dtype"]], mode="r", offset=8 + size + start, shape=tuple(t["shape"]))

    _types = {**_TYPES, "U8": "u1", "I64": "<i8"}
    if "ids" in header:
        text, ends = tensor("ids").tobytes(), tensor("ids_offsets").tolist()
        ids = [text[a:b].decode() for a, b in zip(ends, ends[1:])]
    else:
        ids = json.loads(header["__metadata__"]["ids"])
    return _checked(path, ids, tensor(column.replace("embedding", "embeddings", 1)))


def _parquet(path, column):
    import pyarrow.parquet

    table = pyarrow.parquet.read_table(path, columns=["id", column])
    ids = table["id"].to_pylist()
    values = table[column].combine_chunks()
    x = values.flatten().to_numpy(zero_copy_only=False)
    return _checked(path, ids, x.reshape(len(ids), -1))


def _checked(path, ids, x):
    if len(ids) != len(x):
        raise ValueError(f"{path}: {len(ids)} ids and {len(x)} vectors")
    return ids, x
