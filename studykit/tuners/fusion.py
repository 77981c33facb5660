"""AdapterFusion and AdvFusion: attention over the outputs of frozen adapters, computed in rank space.

AdapterFusion (Pfeiffer et al. 2021, arXiv 2005.00247, eq. 6-8). With u_n the output of member n without its residual:

    q = W_q x + b_q,   k_n = W_k u_n + b_k,   v_n = W_v u_n,   alpha = softmax_n(q . k_n / T),   sum_n alpha_n v_n

There is one head and no 1/sqrt(d). AdvFusion (Saberi et al., arXiv 2307.07854) trains the same weights in two phases:
first with the target's member masked, then with it restored. A mask here is a flag; no weight is ever destroyed.

Nothing of shape (N, d) per token is formed. Because members are u_n = U_n z_n + c_n with z_n in the bottleneck,

    q . k_n = <U_n^T g, z_n> + g . c_n + q . b_k   with   g = W_k^T q
    sum_n alpha_n v_n = W_v (sum_n U_n (alpha_n z_n) + sum_n alpha_n c_n)

so W_k and W_v are applied once per token instead of once per member: 3 d^2 + 3 N r d multiply-adds instead of
(1 + 2N) d^2. The constant q . b_k cancels in the softmax; it stays, so that b_k's gradient is zero and not missing.

`average` and `weights` compose the same members without looking at the token: what the attention has to beat.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from studykit.tuners.bottleneck import ACTIVATIONS, Bottleneck

MASK_MODES = ("zero", "exclude")


@dataclass
class MemberStack:
    """The frozen members of one site side by side. R = sum of the members' widths r_n."""

    down: Tensor  # (R, d_in)
    down_bias: Tensor  # (R,)
    up: Tensor  # (d_out, R), scaling folded in
    up_bias: Tensor  # (N, d_out), scaling folded in
    widths: list[int]  # r_n
    activations: list[str]

    @classmethod
    def of(cls, members: list[Bottleneck]) -> MemberStack:
        def bias(layer: nn.Module) -> Tensor:
            return layer.weight.new_zeros(layer.weight.shape[0]) if layer.bias is None else layer.bias

        return cls(
            down=torch.cat([m.down.weight for m in members]),
            down_bias=torch.cat([bias(m.down) for m in members]),
            up=torch.cat([m.scaling * m.up.weight for m in members], dim=1),
            up_bias=torch.stack([m.scaling * bias(m.up) for m in members]),
            widths=[m.down.weight.shape[0] for m in members],
            activations=[m.activation for m in members],
        )

    def encode(self, x: Tensor) -> Tensor:  # (B, T, d_in) -> (B, T, R)
        return activate(F.linear(x, self.down, self.down_bias), self.widths, self.activations)

    def decode(self, z: Tensor, weight: Tensor) -> Tensor:
        """sum_n weight_n u_n, (B, T, d_out), of codes z (B, T, R) and weights (B, T, N)."""
        return F.linear(repeat_per_member(weight, self.widths) * z, self.up) + weight @ self.up_bias


def activate(z: Tensor, widths: list[int], activations: list[str]) -> Tensor:  # (B, T, R) -> (B, T, R)
    if len(set(activations)) == 1:
        return ACTIVATIONS[activations[0]](z)
    parts = z.split(widths, dim=-1)
    return torch.cat([ACTIVATIONS[a](part) for a, part in zip(activations, parts, strict=True)], dim=-1)


def sum_per_member(x: Tensor, widths: list[int]) -> Tensor:  # (B, T, R) -> (B, T, N)
    if len(set(widths)) == 1:
        return x.unflatten(-1, (len(widths), -1)).sum(-1)
    return torch.stack([part.sum(-1) for part in x.split(widths, dim=-1)], dim=-1)


def repeat_per_member(x: Tensor, widths: list[int]) -> Tensor:  # (B, T, N) -> (B, T, R)
    if len(set(widths)) == 1:
        return x.repeat_interleave(widths[0], dim=-1)
    return x.repeat_interleave(torch.tensor(widths, device=x.device), dim=-1, output_size=sum(widths))


def is_masked(masked: tuple[int, ...], members: int, device: torch.device) -> Tensor:  # (N,) bool
    flags = torch.zeros(members, dtype=torch.bool, device=device)
    flags[list(masked)] = True
    return flags


class LowRankValue(nn.Module):
    """W_v = I + B A with A (rank, d), B (d, rank); B starts at zero, so W_v starts exactly at the identity."""

    def __init__(self, width: int, rank: int):
        super().__init__()
        self.down, self.up = nn.Linear(width, rank, bias=False), nn.Linear(rank, width, bias=False)
        nn.init.normal_(self.down.weight, std=0.02)
        nn.init.zeros_(self.up.weight)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.up(self.down(x))

    @property
    def weight(self) -> Tensor:  # (d, d)
        product = self.up.weight @ self.down.weight
        return product + torch.eye(len(product), device=product.device, dtype=product.dtype)

    def penalty(self) -> Tensor:
        """||B A||_F^2 = <B^T B, A A^T>."""
        return ((self.up.weight.T @ self.up.weight) * (self.down.weight @ self.down.weight.T)).sum()


class Fusion(nn.Module):
    """Query, key and value of the attention over members at one site; fp32, whatever the base.

    Args:
        inputs, outputs: d_in and d_out of the members.
        value: False gives the reference's "static" fusion, which has no value matrix.
        rank: None for full matrices. Otherwise queries and keys have so many dimensions: scores see W_q and W_k only as
            W_q^T W_k, which then has this rank; and W_v is the identity plus a matrix of this rank.
        temperature: divides the scores.
        dropout: of the scores, before the softmax, in training.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        value: bool = True,
        rank: int | None = None,
        temperature: float = 1.0,
        dropout: float = 0.0,
    ):
        super().__init__()
        self.temperature, self.dropout = temperature, dropout
        self.query, self.key = nn.Linear(inputs, rank or outputs), nn.Linear(outputs, rank or outputs)
        for layer in (self.query, self.key):
            nn.init.normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)
        self.value: nn.Module | None = None
        if value and rank:
            self.value = LowRankValue(outputs, rank)
        elif value:
            self.value = nn.Linear(outputs, outputs, bias=False)
            with torch.no_grad():
                self.value.weight.fill_(1e-6).fill_diagonal_(1.0)

    def value_penalty(self) -> Tensor:
        """Squared Frobenius norm of W_v - I, a scalar; 0 for a static fusion."""
        if self.value is None:
            return self.query.weight.new_zeros(())
        if isinstance(self.value, LowRankValue):
            return self.value.penalty()
        weight = self.value.weight
        return (weight - torch.eye(len(weight), device=weight.device, dtype=weight.dtype)).square().sum()

    def forward(
        self, x: Tensor, stack: MemberStack, masked: tuple[int, ...] = (), mode: str = "zero"
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The context sum_n alpha_n v_n.

        Args:
            x: what the members read, (B, T, d_in).
            masked: indices of masked members.
            mode: `zero` keeps a masked member in the softmax with output 0 (the authors' zeroing); `exclude` takes it
                out, so that the others share all of the attention.

        Returns: context (B, T, d_out), attention alpha (B, T, N), codes z (B, T, R).
        """
        z = stack.encode(x)  # (B, T, R)
        q = self.query(x)  # (B, T, a), a = rank or d_out
        g = F.linear(q, self.key.weight.T)  # (B, T, d_out): W_k^T q
        scores = sum_per_member(F.linear(g, stack.up.T) * z, stack.widths) + F.linear(g, stack.up_bias)  # (B, T, N)
        if masked:
            flags = is_masked(masked, len(stack.widths), x.device)
            scores = scores.masked_fill(flags, 0.0)
        scores = scores + F.linear(q, self.key.bias[None])  # (B, T, 1), the same for every member
        scores = F.dropout(scores, self.dropout, self.training) / self.temperature
        if masked and mode == "exclude":
            scores = scores.masked_fill(flags, float("-inf"))
        alpha = scores.softmax(-1)  # (B, T, N)
        context = stack.decode(z, alpha.masked_fill(flags, 0.0) if masked else alpha)
        return context if self.value is None else self.value(context), alpha, z


class Weights(nn.Module):
    """One weight per member and site, the same for every token: alpha = softmax(w), or 1/N if nothing is learned."""

    value = None

    def __init__(self, members: int, learned: bool = True):
        super().__init__()
        self.learned = learned
        if learned:
            self.weight = nn.Parameter(torch.zeros(members))

    def value_penalty(self) -> Tensor:
        return self.weight.new_zeros(()) if self.learned else torch.zeros(())

    def forward(
        self, x: Tensor, stack: MemberStack, masked: tuple[int, ...] = (), mode: str = "zero"
    ) -> tuple[Tensor, Tensor, Tensor]:
        """As `Fusion.forward`. A masked slot keeps its share in `zero`; in `exclude` the others share it."""
        z = stack.encode(x)
        scores = self.weight if self.learned else x.new_zeros(len(stack.widths))
        flags = is_masked(masked, len(stack.widths), x.device)
        scores = scores.masked_fill(flags, 0.0 if mode == "zero" else float("-inf"))
        alpha = scores.softmax(-1).expand(*x.shape[:-1], -1)  # (B, T, N)
        return stack.decode(z, alpha.masked_fill(flags, 0.0)), alpha, z


@torch.no_grad()
def member_norms(fusion: nn.Module, stack: MemberStack, z: Tensor, masked: tuple[int, ...] = ()) -> Tensor:
    """What each member would add on its own, ||W_v u_n||: (B, T, N); 0 for masked members. For inspection."""
    norms = []
    for n, (codes, up) in enumerate(zip(z.split(stack.widths, -1), stack.up.split(stack.widths, -1), strict=True)):
        u = F.linear(codes, up, stack.up_bias[n])  # (B, T, d_out)
        norms.append((u if fusion.value is None else fusion.value(u)).norm(dim=-1) * (n not in masked))
    return torch.stack(norms, dim=-1)
