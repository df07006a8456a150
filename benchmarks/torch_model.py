"""What would one write in PyTorch? The Llama block of `gaplaw.models` and one distillation step, in the plain way."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from gaplaw.spec import ModelSpec, ObjectiveSpec, TrainSpec


class Norm(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(width))

    def forward(self, x):
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5) * self.scale


def rotate(x, cos, sin):
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)


class Block(nn.Module):
    def __init__(self, spec: ModelSpec):
        super().__init__()
        inner = spec.heads * spec.head_size
        self.heads, self.attention_norm, self.feed_norm = spec.heads, Norm(spec.width), Norm(spec.width)
        self.qkv = nn.Linear(spec.width, 3 * inner, bias=False)
        self.out = nn.Linear(inner, spec.width, bias=False)
        self.gate, self.up = (nn.Linear(spec.width, spec.hidden, bias=False) for _ in range(2))
        self.down = nn.Linear(spec.hidden, spec.width, bias=False)

    def forward(self, x, cos, sin):
        batch, length, _ = x.shape
        query, key, value = (
            self.qkv(self.attention_norm(x)).view(batch, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        )
        mixed = F.scaled_dot_product_attention(rotate(query, cos, sin), rotate(key, cos, sin), value, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).reshape(batch, length, -1))
        normed = self.feed_norm(x)
        return x + self.down(F.silu(self.gate(normed)) * self.up(normed))


class Llama(nn.Module):
    """Logits [B, L, V] of the llama block."""

    def __init__(self, spec: ModelSpec):
        super().__init__()
        assert spec.block == "llama" and spec.kv_group == 1 and spec.uniform
        self.embedding = nn.Embedding(spec.vocab_size, spec.width)
        nn.init.normal_(self.embedding.weight, std=spec.width**-0.5)
        self.head = nn.Linear(spec.width, spec.vocab_size, bias=False)
        if spec.tied:
            self.head.weight = self.embedding.weight
        self.blocks = nn.ModuleList(Block(spec) for _ in range(spec.depth))
        self.norm = Norm(spec.width)
        half = spec.head_size // 2
        angle = torch.arange(spec.max_length)[:, None] * 10_000.0 ** (-torch.arange(half) / half)
        self.register_buffer("cos", angle.cos())
        self.register_buffer("sin", angle.sin())

    def forward(self, tokens):
        x, length = self.embedding(tokens), tokens.shape[1]
        for block in self.blocks:
            x = block(x, self.cos[:length], self.sin[:length])
        return self.head(self.norm(x))


def optimizer_for(model: nn.Module, train: TrainSpec) -> torch.optim.Optimizer:
    return torch.optim.AdamW(
        model.parameters(),
        lr=train.learning_rate,
        betas=(train.beta1, train.beta2),
        eps=train.epsilon,
        weight_decay=train.weight_decay,
        fused=True,
    )


def distillation_loss(logits, teacher_logits, labels, soft: ObjectiveSpec):
    """Mean loss in nats per token, softmax and sums in float32 (the logits' own type is autocast's choice)."""
    loss = 0.0
    if soft.soft_weight > 0:
        heat = soft.temperature
        log_q = F.log_softmax(logits / heat, dim=-1)
        kl = (
            F.kl_div(log_q, F.log_softmax(teacher_logits / heat, dim=-1), reduction="none", log_target=True)
            .sum(-1)
            .mean()
        )
        loss = soft.soft_scale * kl
    if soft.soft_weight < 1:
        loss = loss + (1 - soft.soft_weight) * F.cross_entropy(logits.flatten(0, 1), labels.flatten())
    return loss


def student_step(
    student, optimizer, soft: ObjectiveSpec, clip_norm, inputs, labels, teacher_logits, loss_of=distillation_loss
):
    """One optimizer step of one student on given teacher logits. Returns the loss tensor, unread."""
    loss = loss_of(student(inputs), teacher_logits, labels, soft)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_(student.parameters(), clip_norm)
    optimizer.step()
    return loss.detach()
