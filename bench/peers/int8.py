#!/usr/bin/env python3
"""Quantizes the products with weights of an exported model to int8, as dynamic quantization does.

    int8.py FILE.onnx OUT.onnx [--bits 8]

Weights have a scale for each column, without a zero point. Activations are quantized to uint8 when the model runs, with
one scale for the whole batch. ONNX Runtime fuses the four operations of a product into one. With --bits 7 weights lie
between -63 and 63: processors without VNNI add two products of 8 bits in 16 bits, which would otherwise saturate.
"""
import argparse
import os

import numpy as np
import onnx
from onnx import helper, numpy_helper


def quantize(weights, bits):
    """Returns weights [inner, columns] as int8, and the scale of each column."""
    most = 2 ** (bits - 1) - 1
    scales = np.abs(weights).max(0) / most
    scales[scales == 0] = 1
    return np.rint(weights / scales).astype(np.int8), scales.astype(np.float32)


def product(node, weight, bits, quantized):
    """Returns the nodes and constants that replace node, a MatMul with a constant weight.

    quantized maps each activation that is quantized already to the names of its values, its scale and its zero point.
    """
    x, name, nodes = node.input[0], node.output[0], []
    if x not in quantized:  # the products for queries, keys and values have the same activation as input
        quantized[x] = [x + "/uint8", x + "/scale", x + "/zero"]
        nodes.append(helper.make_node("DynamicQuantizeLinear", [x], quantized[x]))
    values, scale, zero = quantized[x]
    integers, scales = quantize(weight, bits)
    constants = [numpy_helper.from_array(integers, name + "/weight"), numpy_helper.from_array(scales, name + "/scales")]
    nodes += [
        helper.make_node("MatMulInteger", [values, name + "/weight", zero], [name + "/int32"]),
        helper.make_node("Cast", [name + "/int32"], [name + "/float"], to=onnx.TensorProto.FLOAT),
        helper.make_node("Mul", [scale, name + "/scales"], [name + "/factor"]),
        helper.make_node("Mul", [name + "/float", name + "/factor"], [name]),
    ]
    return nodes, constants


def rewrite(graph, bits):
    """Quantizes every product with a constant matrix, and returns the number of these matrices."""
    weights = {t.name: t for t in graph.initializer}
    nodes, constants, replaced, quantized = [], [], set(), {}
    for node in graph.node:
        weight = weights.get(node.input[1]) if node.op_type == "MatMul" else None
        if weight is None or len(weight.dims) != 2:
            nodes.append(node)
            continue
        new, values = product(node, numpy_helper.to_array(weight), bits, quantized)
        nodes += new
        constants += values
        replaced.add(weight.name)
    kept = [t for t in graph.initializer if t.name not in replaced] + constants
    for field, values in ((graph.node, nodes), (graph.initializer, kept)):
        del field[:]
        field.extend(values)
    return len(replaced)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("onnx")
    parser.add_argument("out")
    parser.add_argument("--bits", type=int, choices=(7, 8), default=8)
    args = parser.parse_args()
    model = onnx.load(args.onnx)
    if rewrite(model.graph, args.bits) == 0:
        raise SystemExit(f"{args.onnx}: no product with a constant matrix is left to quantize")
    onnx.checker.check_model(model)
    partial = args.out + ".part"
    onnx.save(model, partial)
    os.replace(partial, args.out)


if __name__ == "__main__":
    main()
