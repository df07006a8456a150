"""How does a gradient become a step? AdamW with warm-up and cosine decay, as one optax chain per recipe."""

from __future__ import annotations

import jax
import optax

from gaplaw.spec import TrainSpec


def schedule(spec: TrainSpec, steps: int) -> optax.Schedule:
    """Learning rate by step: linear from 0 over the warm-up, then a half cosine down to final_fraction of the peak."""
    warmup = min(max(1, round(spec.warmup_fraction * steps)), max(1, steps - 1))
    return optax.warmup_cosine_decay_schedule(
        init_value=0.0,
        peak_value=spec.learning_rate,
        warmup_steps=warmup,
        decay_steps=max(steps, warmup + 1),
        end_value=spec.learning_rate * spec.final_fraction,
    )


def optimizer(spec: TrainSpec, steps: int) -> optax.GradientTransformation:
    """Clip by global norm, Adam, decoupled weight decay on matrices (not on norms and biases), scheduled rate."""
    return optax.chain(
        optax.clip_by_global_norm(spec.clip_norm),
        optax.scale_by_adam(b1=spec.beta1, b2=spec.beta2, eps=spec.epsilon),
        optax.add_decayed_weights(spec.weight_decay, mask=lambda params: jax.tree.map(lambda p: p.ndim >= 2, params)),
        optax.scale_by_learning_rate(schedule(spec, steps)),
    )
