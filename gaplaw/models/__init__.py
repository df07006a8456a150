"""Models as pure functions on plain parameter dicts: attention → transformer → prune. Nothing outside knows Flax."""

from gaplaw.models.attention import Kernel, attend
from gaplaw.models.transformer import (
    Masks,
    apply,
    apply_hidden,
    init,
    output_matrix,
    stack_layers,
    unstack_layers,
)

__all__ = [
    "Kernel",
    "Masks",
    "apply",
    "apply_hidden",
    "attend",
    "init",
    "output_matrix",
    "stack_layers",
    "unstack_layers",
]
