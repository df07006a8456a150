"""Both transformer blocks written once more, in float64 NumPy, straight from their definitions."""

import math

import jax
import numpy as np


def numpy_logits(params, tokens, spec):
    params = jax.tree.map(lambda part: np.asarray(part, np.float64), params)

    def norm(x, part):
        if spec.block == "gpt2":
            return (x - x.mean()) / np.sqrt(x.var() + 1e-5) * part["scale"] + part["bias"]
        return x / np.sqrt((x**2).mean() + 1e-5) * part["scale"]

    def turn(vector, position):
        half = len(vector) // 2
        pairs = vector[:half] + 1j * vector[half:]
        pairs = pairs * np.exp(1j * position * 10000.0 ** (-np.arange(half) / half))
        return np.concatenate([pairs.real, pairs.imag])

    def attention(rows, part, heads):
        writes = np.zeros_like(rows)
        for head in range(heads):
            group = head // spec.kv_group
            sides = {}
            for name, index in (("query", head), ("key", group), ("value", group)):
                sides[name] = rows @ part[name]["kernel"][:, index]
                if spec.block == "gpt2":
                    sides[name] = sides[name] + part[name]["bias"][index]
                elif name != "value":
                    sides[name] = np.stack([turn(row, at) for at, row in enumerate(sides[name])])
            for at in range(len(rows)):
                scores = sides["key"][: at + 1] @ sides["query"][at] / math.sqrt(spec.head_size)
                weights = np.exp(scores) / np.exp(scores).sum()
                writes[at] += weights @ sides["value"][: at + 1] @ part["output"]["kernel"][head]
        return writes + (part["output"]["bias"] if spec.block == "gpt2" else 0)

    def feed_forward(rows, part):
        if spec.block == "gpt2":
            up = rows @ part["up"]["kernel"] + part["up"]["bias"]
            inner = 0.5 * up * (1 + np.tanh(math.sqrt(2 / math.pi) * (up + 0.044715 * up**3)))
            return inner @ part["down"]["kernel"] + part["down"]["bias"]
        gate = rows @ part["gate"]["kernel"]
        return gate / (1 + np.exp(-gate)) * (rows @ part["up"]["kernel"]) @ part["down"]["kernel"]

    table = params["token_embedding"]["embedding"]
    out = table.T if spec.tied else params["output"]["kernel"]
    logits = []
    for sequence in np.asarray(tokens):
        rows = table[sequence]
        if spec.block == "gpt2":
            rows = rows + params["position_embedding"]["embedding"][: len(rows)]
        for index in range(spec.depth):
            layer = params.get(f"layers_{index}", {})
            if spec.heads_by_layer[index]:
                normed = np.stack([norm(row, layer["attention_norm"]) for row in rows])
                rows = rows + attention(normed, layer["attention"], spec.heads_by_layer[index])
            if spec.hidden_by_layer[index]:
                normed = np.stack([norm(row, layer["feed_forward_norm"]) for row in rows])
                rows = rows + feed_forward(normed, layer["feed_forward"])
        logits.append(np.stack([norm(row, params["final_norm"]) for row in rows]) @ out)
    return np.stack(logits)
