"""How big is a model, what does a token cost, and which shape has a given size?

After model in the walk: arithmetic on `ModelSpec`, no JAX. Three parts: size strings ("190M"), counts
and FLOPs in closed form (equal to the built model, a test), and the one dial, `model_for`, from a size to a shape.
"""

from __future__ import annotations

import bisect
import math
import re
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

from gaplaw.canonical import refuse_unless
from gaplaw.spec.model import Block, ModelSpec

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "b": 10**9, "t": 10**12}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmbt]?)", re.IGNORECASE)


def parse_size(size: str | int) -> int:
    """Parameters (or tokens) that a size string names: "190M" → 190_000_000, "1.5k" → 1500; an int is itself.

    Raises: SpecError unless the size is a positive whole number, or digits followed by k, M, B or T.
    """
    if isinstance(size, int) and not isinstance(size, bool):
        refuse_unless(size > 0, "size", size, "must be positive")
        return size
    found = _SIZE.fullmatch(size.strip()) if isinstance(size, str) else None
    rule = "must be a number with an optional k, M, B or T, like '1.5k' or '7B'"
    refuse_unless(found is not None, "size", size, rule)
    value = float(found[1]) * _UNITS[found[2].lower()]
    whole = value >= 0.5 and abs(value - round(value)) < 1e-6 * value
    refuse_unless(whole, "size", size, "must come to a positive whole number")
    return round(value)


def size_name(count: float, digits: int = 2) -> str:
    """A short name for a count: 1536 → "1.5k", 124_439_808 → "124M"; whole units are never rounded away.

    `digits`: significant digits; 2 in the names of cells, 3 for an estimate (1536 → "1.54k").
    """
    units = (("T", 10**12), ("B", 10**9), ("M", 10**6), ("k", 10**3), ("", 1))
    # 0.9995: a count that would be shown as 1000 of the smaller unit is shown as 1 of this one
    unit, scale = next(pair for pair in units if count >= 0.9995 * pair[1] or pair[1] == 1)
    value = count / scale
    before_point = 1 + sum(value >= 10**n - 0.5 * 10 ** (n - digits) for n in (1, 2))
    text = f"{value:.{max(digits - before_point, 0)}f}"
    return (text.rstrip("0").rstrip(".") if "." in text else text) + unit


@dataclass(frozen=True, kw_only=True, slots=True)
class ParamCounts:
    """Parameters by group; embedding + non_embedding = unique.

    embedding      token and position tables, and the output matrix where it is not tied.
    non_embedding  everything else: attention, feed-forward, norms (the N of scaling laws: Kaplan et al. 2020 §2.1).
    active         parameters that one token meets (fewer than total only in a mixture of experts).
    unique         stored numbers, each once: the size of the parameter tree.
    total          as published; a tied table counts once; above unique only where layers are re-used.
    """

    embedding: int
    non_embedding: int
    active: int
    unique: int
    total: int


def _layer_matmul_params(model: ModelSpec, heads: int, hidden: int) -> int:
    """Weights of one layer that multiply every token: query, key, value, output, two or three feed-forward matrices."""
    queries, key_values = heads * model.head_size, heads // model.kv_group * model.head_size
    feed_forward = (2 if model.block == "gpt2" else 3) * hidden
    return model.width * (2 * queries + 2 * key_values + feed_forward)


def _layer_params(model: ModelSpec, heads: int, hidden: int) -> int:
    """All parameters of one layer; a half with no heads or no hidden neurons is absent with its norm."""
    halves = (heads > 0) + (hidden > 0)
    count = _layer_matmul_params(model, heads, hidden) + halves * model.width
    if model.block == "gpt2":  # biases: of the norms, of query, key, value and output, of both feed-forward matrices
        query_key_value = (heads + 2 * (heads // model.kv_group)) * model.head_size
        count += 2 * halves * model.width + query_key_value + hidden
    return count


@lru_cache(maxsize=10_000)
def count_params(model: ModelSpec) -> ParamCounts:
    """Parameters of a model in closed form, by group.

    Reference: equals the built tree and the published totals of GPT-2 (124,439,808 …) and Llama-2 (6,738,415,616 …).
    """
    table = model.vocab_size * model.width
    positions = model.max_length * model.width if model.block == "gpt2" else 0
    embedding = table * (1 if model.tied else 2) + positions
    final_norm = model.width * (2 if model.block == "gpt2" else 1)
    layers = zip(model.heads_by_layer, model.hidden_by_layer, strict=True)
    non_embedding = final_norm + sum(_layer_params(model, heads, hidden) for heads, hidden in layers)
    total = embedding + non_embedding
    return ParamCounts(embedding=embedding, non_embedding=non_embedding, active=total, unique=total, total=total)


@lru_cache(maxsize=10_000)
def forward_flops_per_token(model: ModelSpec, context_tokens: int) -> int:
    """Floating-point operations of one forward pass per token: every matrix product of the model, and nothing else.

    2·(layer weights) + Σ_layers 4·heads·head_size·context_tokens + 2·vocab_size·width. The middle term is queries
    × keys and weights × values over the whole context, as a masked product computes them (a causal kernel does half);
    the last is the output matrix. Embedding look-ups, norms, softmax and activations are not counted. Training costs
    three times this.

    Args: context_tokens: the sequence length L.
    Reference: Chowdhery et al. 2022 (PaLM, 2204.02311) appendix B, forward third.
    """
    layers = zip(model.heads_by_layer, model.hidden_by_layer, strict=True)
    weights = sum(_layer_matmul_params(model, heads, hidden) for heads, hidden in layers)
    attention = 4 * sum(model.heads_by_layer) * model.head_size * context_tokens
    return 2 * weights + attention + 2 * model.vocab_size * model.width


def train_flops(model: ModelSpec, tokens: int) -> int:
    """The law's plain accounting of training, 6·N·D, where N = active parameters and D = tokens.

    In a dense model active is total. Total, not non-embedding: that reproduces the compute column published for
    MiniMA-3B, 6·S·D + 2·T·D (Zhang et al. 2023, 2311.07052).
    """
    return 6 * count_params(model).active * tokens


def teacher_flops(model: ModelSpec, tokens: int) -> int:
    """The law's plain accounting of a teacher's forward passes over D student tokens, 2·N·D (N = active parameters)."""
    return 2 * count_params(model).active * tokens


# ---- published shapes ----


def _gpt2(width: int, depth: int, heads: int) -> ModelSpec:
    """Radford et al. 2019, as released: head size 64, hidden four times the width."""
    return ModelSpec(
        block="gpt2",
        vocab_size=50257,
        width=width,
        depth=depth,
        heads=heads,
        head_size=64,
        hidden=4 * width,
        max_length=1024,
    )


def _llama2(width: int, depth: int, hidden: int, kv_group: int = 1) -> ModelSpec:
    """Touvron et al. 2023 (2307.09288), as released: head size 128, untied, 32,000 symbols, 4,096 tokens."""
    return ModelSpec(
        vocab_size=32000,
        width=width,
        depth=depth,
        heads=width // 128,
        head_size=128,
        hidden=hidden,
        max_length=4096,
        kv_group=kv_group,
        tied=False,
    )


GPT2_SMALL = _gpt2(768, 12, 12)
GPT2_MEDIUM = _gpt2(1024, 24, 16)
GPT2_LARGE = _gpt2(1280, 36, 20)
GPT2_XL = _gpt2(1600, 48, 25)
LLAMA2_7B = _llama2(4096, 32, 11008)
LLAMA2_13B = _llama2(5120, 40, 13824)
LLAMA2_70B = _llama2(8192, 80, 28672, kv_group=8)


# ---- the dial ----

# Widths on offer: 4 to 16,384, each at most half (below 32) or a third above the last, and a multiple of its head size.
_WIDTHS = (4, 6, 8, 12, 16, 24, 32, 40, 48, 56)
_WIDTHS += tuple(base * step // 4 for base in (64, 128, 256, 512, 1024, 2048, 4096, 8192) for step in (4, 5, 6, 7))
_WIDTHS += (16384,)


def _depth(width: int) -> int:
    """Layers for a width: the power law through GPT-2 small (768, 12) and Llama-2 7B (4096, 32), and never below 2.

    Loss depends weakly on the aspect ratio (Kaplan et al. 2020 §3.1); for widths below 100, assumption, not studied.
    """
    exponent = math.log(32 / 12) / math.log(4096 / 768)
    return max(2, round(12 * (width / 768) ** exponent))


def _head_size(width: int) -> int:
    """64 and 128 as in GPT-2 and Llama-2; smaller models keep at least two to four heads (assumption, not studied)."""
    if width < 8:
        return width
    return next(
        size for bound, size in ((16, 4), (64, 8), (128, 16), (512, 32), (2048, 64), (10**9, 128)) if width < bound
    )


def _granule(width: int) -> int:
    """Hidden sizes are multiples of this, a power of two that keeps the count within a few percent."""
    return next(step for bound, step in ((64, 1), (128, 4), (512, 8), (2048, 64), (10**9, 256)) if width < bound)


def _round_to(value: float, step: int) -> int:
    return max(step, round(value / step) * step)


def model_for(
    size: str | int,
    *,
    vocab_size: int,
    max_length: int,
    block: Block = "llama",
    count: Literal["non_embedding", "total"] = "non_embedding",
    tied: bool = True,
) -> ModelSpec:
    """The one dial: the shape of a given size, within a few percent and never smaller for a larger size.

    Every width on offer has a nominal shape: depth by `_depth`, hidden = 4·width (gpt2) or 8/3·width (llama; Shazeer
    2020, 2002.05202). The width whose nominal count is nearest in ratio is taken, then hidden is set so that the count
    meets the size. Each width serves only counts between the geometric means with its neighbours: so it is monotone.

    Args: size: "190M" or a parameter count; count: whether it means non-embedding or all parameters.
    Returns: a uniform `ModelSpec`, about 300 parameters to 100 billion.
    Raises: SpecError when the size string cannot be read or no shape comes within 10 %.
    """
    target = parse_size(size)
    refuse_unless(count in ("non_embedding", "total"), "count", count, "must be non_embedding or total")

    def nominal(width: int) -> ModelSpec:
        hidden = _round_to(width * (4 if block == "gpt2" else 8 / 3), _granule(width))
        head_size = _head_size(width)
        return ModelSpec(
            block=block,
            vocab_size=vocab_size,
            width=width,
            depth=_depth(width),
            heads=width // head_size,
            head_size=head_size,
            hidden=hidden,
            max_length=max_length,
            tied=tied,
        )

    def counted(model: ModelSpec) -> int:
        return getattr(count_params(model), count)

    shapes = [nominal(width) for width in _WIDTHS]
    counts = [counted(shape) for shape in shapes]
    at = min(range(len(shapes)), key=lambda i: abs(math.log(counts[i] / target)))
    low = math.sqrt(counts[at - 1] * counts[at]) if at else 0
    high = math.sqrt(counts[at] * counts[at + 1]) if at + 1 < len(shapes) else math.inf
    shape, step = shapes[at], _granule(shapes[at].width)
    # hidden between one and eight widths; the nominal one lies inside [low, high], so the list is never empty
    options = [
        replace(shape, hidden=hidden) for hidden in range(_round_to(shape.width, step), 8 * shape.width + 1, step)
    ]
    inside = [option for option in options if low <= counted(option) <= high]
    best = min(inside, key=lambda option: abs(counted(option) - target))
    refuse_unless(
        abs(counted(best) / target - 1) <= 0.1,
        "size",
        size,
        f"no {block} shape with vocab_size = {vocab_size} has that many {count} parameters; nearest is {counted(best)}",
    )
    return best


def pruned_shape(teacher: ModelSpec, target_params: int) -> ModelSpec:
    """The even shape of a student cut from a teacher: its depth, width, heads and hidden shrunk alike, for the plan.

    All three axes keep the fraction 1 − p' = sqrt(target/teacher), since hidden × head and hidden × neuron sparsities
    multiply (methods §1.4); then hidden is set so that the count comes nearest to the target. The importance ranking of
    the real pruning decides the uneven shape that is run; it meets the same target.

    Args: target_params: non-embedding parameters.
    Raises: SpecError unless 0 < target_params < the teacher's non-embedding parameters.
    """
    size = count_params(teacher).non_embedding
    refuse_unless(
        0 < target_params < size, "target_params", target_params, f"must be above 0 and below the teacher's {size}"
    )
    keep = math.sqrt(target_params / size)
    width = min(teacher.width, _round_to(keep * teacher.width, 8 if teacher.width >= 64 else 2))
    groups = keep * sum(teacher.heads_by_layer) / teacher.depth / teacher.kv_group
    heads = max(1, round(groups)) * teacher.kv_group if groups else 0
    most = max(teacher.hidden_by_layer)
    shape = replace(teacher, width=width, heads=heads)

    def count(hidden: int) -> int:
        return count_params(replace(shape, hidden=hidden)).non_embedding

    over = bisect.bisect_left(range(most), target_params, lo=min(1, most), key=count)  # the count grows with hidden
    hidden = min({max(min(1, most), over - 1), over}, key=lambda hidden: abs(count(hidden) - target_params))
    return replace(shape, hidden=hidden)
