"""How does a gradient become a step? AdamW with warm-up and cosine decay, as one optax chain per recipe."""

from __future__ import annotations

import jax
import optax

from gaplaw.spec import TrainSpec


def decays(path) -> bool:
    """Whether weight decay applies to the parameter at a key path: to matrices, not to norms and biases.

    By name, because biases of heads have two dimensions, and scanned layers give every parameter one more.
    """
    last = path[-1]
    return getattr(last, "key", getattr(last, "name", "")) in ("kernel", "embedding", "decayed_P")


def schedule(spec: TrainSpec, steps: int) -> optax.Schedule:
    """Learning rate by step: linear from 0 over the warm-up, then a half cosine down to final_fraction of the peak.

    The cosine would reach its end one step after the last, so that no step is wasted there.
    """
    warmup = spec.warmup_steps(steps)
    return optax.warmup_cosine_decay_schedule(
        init_value=0.0,
        peak_value=spec.learning_rate,
        warmup_steps=warmup,
        decay_steps=max(steps, warmup + 1),
        end_value=spec.learning_rate * spec.final_fraction,
    )


def optimizer(spec: TrainSpec, steps: int) -> optax.GradientTransformation:
    """Clip by global norm, Adam, decoupled weight decay where `decays` says, scheduled rate."""

    def mask(params):
        return jax.tree_util.tree_map_with_path(lambda path, _: decays(path), params)

    return optax.chain(
        optax.clip_by_global_norm(spec.clip_norm),
        optax.scale_by_adam(b1=spec.beta1, b2=spec.beta2, eps=spec.epsilon),
        optax.add_decayed_weights(spec.weight_decay, mask=mask),
        optax.scale_by_learning_rate(schedule(spec, steps)),
    )
