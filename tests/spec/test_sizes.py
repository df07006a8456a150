"""Do size strings, closed-form counts and the dial say what they claim? (Built models: test_models.py.)"""

import subprocess
import sys
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from gaplaw.errors import SpecError
from gaplaw.spec import ModelSpec, sizes
from gaplaw.spec.sizes import count_params, forward_flops_per_token, model_for, parse_size, pruned_shape, size_name


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("190M", 190_000_000),
        ("7B", 7 * 10**9),
        ("1.5k", 1500),
        ("1.5K", 1500),
        ("812", 812),
        ("0.07b", 7 * 10**7),
        (42, 42),
    ],
)
def test_size_strings_are_read(text, count):
    assert parse_size(text) == count


@pytest.mark.parametrize(
    "text", ["", "seven", "7Q", "-3B", "1.5", "0", "1e9", "7 B params", None, True, 0, 1.5, "0.0001k"]
)
def test_an_unreadable_size_is_refused_by_value(text):
    with pytest.raises(SpecError, match="size = ") as refusal:
        parse_size(text)
    assert repr(text) in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("count", "name"),
    [
        (1536, "1.5k"),
        (812, "812"),
        (124_439_808, "124M"),
        (190_000_000, "190M"),
        (6_738_415_616, "6.7B"),
        (13_015_864_320, "13B"),
        (7 * 10**9, "7B"),
        (999_950, "1M"),
        (9_960, "10k"),
        (14_123, "14k"),
    ],
)
def test_size_names(count, name):
    assert size_name(count) == name


@pytest.mark.parametrize(("digits", "error"), [(2, 0.051), (3, 0.0051)])
def test_names_read_back_within_their_digits(digits, error):
    for count in np.geomspace(100, 9e12, 400).astype(int).tolist():
        assert parse_size(size_name(count, digits)) == pytest.approx(count, rel=error)


@pytest.mark.parametrize(
    ("count", "name"), [(1536, "1.54k"), (2e9, "2B"), (9_994, "9.99k"), (99_960, "100k"), (99_940, "99.9k")]
)
def test_an_estimate_has_three_digits(count, name):
    assert size_name(count, digits=3) == name


@pytest.mark.parametrize(
    ("model", "published"),
    [
        (sizes.GPT2_SMALL, 124_439_808),
        (sizes.GPT2_MEDIUM, 354_823_168),
        (sizes.GPT2_LARGE, 774_030_080),
        (sizes.GPT2_XL, 1_557_611_200),
        (sizes.LLAMA2_7B, 6_738_415_616),
        (sizes.LLAMA2_13B, 13_015_864_320),
        (sizes.LLAMA2_70B, 68_976_648_192),
    ],
)
def test_published_totals(model, published):
    counts = count_params(model)
    assert counts.total == counts.unique == counts.active == counts.embedding + counts.non_embedding == published


def test_flops_of_gpt2_by_hand():
    """One GPT-2 layer holds 12·768² matrix weights; the head is 50257·768; attention is 2 products of 768·context."""
    expected = 2 * 12 * 12 * 768**2 + 2 * 50257 * 768 + 12 * 2 * 2 * 768 * 1024
    assert forward_flops_per_token(sizes.GPT2_SMALL, 1024) == expected


def test_skipped_halves_cost_nothing():
    model = model_for("14k", vocab_size=256, max_length=64)
    heads = count_params(model).non_embedding - count_params(replace(model, heads=0)).non_embedding
    neurons = count_params(model).non_embedding - count_params(replace(model, hidden=0)).non_embedding
    assert count_params(replace(model, heads=0, hidden=0)).non_embedding == model.width  # the final norm
    assert heads + neurons + model.width == count_params(model).non_embedding
    assert forward_flops_per_token(replace(model, heads=0, hidden=0), 64) == 2 * 256 * model.width


def test_plain_accounting_gives_the_published_compute_of_minima_3b():
    """methods §1.5: 126B tokens, 7B teacher, 24 layers of width 3072: 3.9e21 FLOPs as 6·S·D + 2·T·D."""
    student = replace(sizes.LLAMA2_7B, width=3072, depth=24, heads=24, hidden=8192)
    flops = sizes.train_flops(student, 126 * 10**9) + sizes.teacher_flops(sizes.LLAMA2_7B, 126 * 10**9)
    assert flops == pytest.approx(3.9e21, rel=0.01)


@pytest.mark.parametrize("block", ["llama", "gpt2"])
@pytest.mark.parametrize("count", ["non_embedding", "total"])
def test_the_dial_is_close_and_monotone(block, count):
    vocab_size = 256
    # total: below a few thousand parameters the byte table alone is most of the model
    targets = np.geomspace(300 if count == "non_embedding" else 5000, 1e11, 160).astype(int).tolist()
    models = [model_for(n, vocab_size=vocab_size, max_length=64, block=block, count=count) for n in targets]
    counts = [getattr(count_params(model), count) for model in models]
    assert max(abs(found / target - 1) for found, target in zip(counts, targets, strict=True)) < 0.05
    assert all(a <= b for a, b in pairwise(counts))
    assert all(a.width <= b.width and a.depth <= b.depth for a, b in pairwise(models))
    assert all(
        1 <= model.hidden / model.width <= 8 and model.heads * model.head_size == model.width for model in models
    )


def test_the_dial_passes_through_the_shapes_it_was_fitted_to():
    llama = model_for(count_params(sizes.LLAMA2_7B).non_embedding, vocab_size=32000, max_length=4096, tied=False)
    assert llama == sizes.LLAMA2_7B
    small = count_params(sizes.GPT2_SMALL).total
    assert model_for(small, vocab_size=50257, max_length=1024, block="gpt2", count="total") == sizes.GPT2_SMALL


def test_a_size_below_every_shape_is_refused():
    with pytest.raises(SpecError, match=r"size = 100: no llama shape .* nearest is \d+"):
        model_for(100, vocab_size=256, max_length=64)
    with pytest.raises(SpecError, match="total"):
        model_for("100k", vocab_size=50257, max_length=64, count="total")


@pytest.mark.parametrize("block", ["llama", "gpt2"])
def test_pruned_shapes_keep_depth_and_meet_their_size(block):
    for teacher_size in ("6k", "98k", "10M", "7B"):
        teacher = model_for(teacher_size, vocab_size=256, max_length=64, block=block)
        for fraction in (0.1, 0.3, 0.5, 0.7, 0.9):
            target = int(fraction * count_params(teacher).non_embedding)
            shape = pruned_shape(teacher, target)
            assert shape.depth == teacher.depth
            assert shape.width <= teacher.width and shape.heads <= teacher.heads and shape.hidden <= teacher.hidden
            assert count_params(shape).non_embedding == pytest.approx(target, rel=0.05)


def test_pruned_shapes_keep_whole_key_value_groups():
    teacher = ModelSpec(vocab_size=256, width=64, depth=2, heads=8, head_size=8, hidden=160, max_length=64, kv_group=4)
    assert pruned_shape(teacher, 20_000).heads in (4, 8)


def test_a_target_at_or_above_the_teacher_is_refused():
    teacher = model_for("6k", vocab_size=256, max_length=64)
    with pytest.raises(SpecError, match="target_params"):
        pruned_shape(teacher, count_params(teacher).non_embedding)


def test_no_jax_is_imported():
    probe = "import sys, gaplaw, gaplaw.spec.sizes, gaplaw.spec.sweep; print('jax' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
