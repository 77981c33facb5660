"""AdapterFusion and AdvFusion: attention over the outputs of frozen adapters, computed in rank space.

AdapterFusion (Pfeiffer et al. 2021, arXiv 2005.00247, eq. 6-8). With u_n the output of member n without its residual:

    q = W_q x + b_q,   k_n = W_k u_n + b_k,   v_n = W_v u_n,   alpha = softmax_n(q . k_n / T),   sum_n alpha_n v_n

There is one head and no 1/sqrt(d). Where x is large, as in the upper layers of a pretrained base, the softmax of an
untrained fusion is therefore nearly one-hot, and next to no gradient passes it. T and two variants of the scores
counter that: `scaled` divides by sqrt(a), with a the dimensions of q (Vaswani et al. 2017); `query_norm` divides x by
its root mean square before W_q (Zhang & Sennrich 2019, without weights).

AdvFusion (Saberi et al., arXiv 2307.07854) trains the same weights in two phases: first with the target's member
masked, then with it restored. A mask here is a flag; no weight is ever destroyed.

    stack = MemberStack.from_members([python, ruby])            # frozen bottlenecks of one site
    fusion = Fusion(inputs=768, outputs=768)
    context, alpha, z = fusion(x, stack, masked=(1,))           # phase 1 of AdvFusion for ruby
    hidden = hidden + context

No tensor of shape (N, d) per token is formed. Members are u_n = U_n z_n + c_n with the code z_n in the bottleneck, so

    q . k_n = z_n . (U_n^T W_k^T W_q x + ..) + c_n . W_k^T q + q . b_k
    sum_n alpha_n v_n = W_v (sum_n U_n (alpha_n z_n) + sum_n alpha_n c_n)

and each score is a product in the r dimensions of a member. The chains [U^T; C] W_k^T W_q x and
W_v [U | C^T] (alpha z) can be multiplied in several orders. Towards the token, W_k, W_q and W_v cost 3 d^2 per token
and U is thin; towards the members, they cost R d^2 per step, with R = sum of the r_n, and no d^2 per token. The
cheapest order is taken at every step, by its count of multiply-adds. All orders are the same function, and all
gradients are autograd's. The constant q . b_k cancels in the softmax; it is computed so that the gradient of b_k is
zero, not None.

`average` and `scalar_mix` compose the same members without looking at the token: the attention has to do better.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from studykit.tuners.bottleneck import ACTIVATIONS, Bottleneck
from studykit.tuners.phm import PHMLinear

MASK_MODES = ("zero", "exclude")
SCORES = ("dot", "scaled", "query_norm")  # the published product, and its variants


@dataclass
class MemberStack:
    """The frozen members of one site side by side. R = sum of the members' widths r_n."""

    down: Tensor  # (R, d_in)
    down_bias: Tensor  # (R,)
    outputs: Tensor  # (R + N, d_out): U^T over C, a row per code and a row per member's bias; scaling is folded in
    widths: list[int]  # r_n
    activations: list[str]  # a key of ACTIVATIONS per member

    @classmethod
    def from_members(cls, members: list[Bottleneck]) -> MemberStack:
        """Returns copies of the members' weights, joined."""

        def bias(layer: nn.Linear | PHMLinear) -> Tensor:
            return layer.weight.new_zeros(layer.weight.shape[0]) if layer.bias is None else layer.bias

        ups = [m.scaling * m.up.weight.T for m in members]
        up_biases = [m.scaling * bias(m.up)[None] for m in members]
        return cls(
            down=torch.cat([m.down.weight for m in members]),
            down_bias=torch.cat([bias(m.down) for m in members]),
            outputs=torch.cat(ups + up_biases),
            widths=[m.down.weight.shape[0] for m in members],
            activations=[m.activation for m in members],
        )

    def codes(self, x: Tensor) -> Tensor:  # (B, T, d_in) -> (B, T, R)
        """Returns the codes z of all members: their activations in the bottleneck."""
        return activate(F.linear(x, self.down, self.down_bias), self.widths, self.activations)

    @property
    def up(self) -> Tensor:  # (d_out, R)
        """Returns U, the up-projections side by side."""
        return self.outputs[: sum(self.widths)].T

    @property
    def up_bias(self) -> Tensor:  # (N, d_out)
        """Returns C, a row per member."""
        return self.outputs[sum(self.widths) :]

    def coefficients(self, z: Tensor, alpha: Tensor) -> Tensor:  # (B, T, R), (B, T, N) -> (B, T, R + N)
        """Returns the coefficients of the rows of `outputs`, whose sum with them is sum_n alpha_n u_n."""
        return torch.cat([scale_per_member(z, alpha, self.widths), alpha], dim=-1)


def activate(z: Tensor, widths: list[int], activations: list[str]) -> Tensor:  # (B, T, R) -> (B, T, R)
    """Applies each member's activation to its part of the last axis."""
    if len(set(activations)) == 1:
        return ACTIVATIONS[activations[0]](z)
    parts = z.split(widths, dim=-1)
    return torch.cat([ACTIVATIONS[a](part) for a, part in zip(activations, parts, strict=True)], dim=-1)


def sum_per_member(x: Tensor, widths: list[int]) -> Tensor:  # (B, T, R) -> (B, T, N)
    """Sums each member's part of the last axis."""
    if len(set(widths)) == 1:
        return x.unflatten(-1, (len(widths), -1)).sum(-1)
    return torch.stack([part.sum(-1) for part in x.split(widths, dim=-1)], dim=-1)


def attention_weights(scores: Tensor) -> Tensor:  # (..., N) -> (..., N)
    """Returns the softmax over the members, in fp32 under autocast on a CPU, too, which leaves it in bf16 there."""
    return (scores.float() if torch.is_autocast_enabled(scores.device.type) else scores).softmax(-1)


def scale_per_member(z: Tensor, alpha: Tensor, widths: list[int]) -> Tensor:  # (B, T, R), (B, T, N) -> (B, T, R)
    """Multiplies each member's part of the last axis by the member's weight."""
    if len(set(widths)) == 1:
        return (z.unflatten(-1, (len(widths), -1)) * alpha[..., None]).flatten(-2)
    parts = zip(z.split(widths, dim=-1), alpha.split(1, dim=-1), strict=True)
    return torch.cat([part * weight for part, weight in parts], dim=-1)


def root_mean_square(x: Tensor) -> Tensor:  # (..., d) -> (..., 1)
    """Returns the root mean square of vectors, which is never quite 0."""
    return x.square().mean(-1, keepdim=True).add(1e-6).sqrt()


def cheapest_order(costs: dict[str, int]) -> str:
    """Returns the order of products with the fewest multiply-adds; of equal ones the first."""
    return min(costs, key=costs.__getitem__)


def mask_flags(masked: tuple[int, ...], members: int, device: torch.device) -> Tensor:  # (N,) bool
    """Returns a flag per member, true for those whose indices are masked."""
    flags = torch.zeros(members, dtype=torch.bool, device=device)
    flags[list(masked)] = True
    return flags


class LowRankValue(nn.Module):
    """The value matrix W_v = I + B A with A (rank, d) and B (d, rank).

    B starts at zero, so W_v starts exactly at the identity.
    """

    def __init__(self, width: int, rank: int):
        super().__init__()
        self.down, self.up = nn.Linear(width, rank, bias=False), nn.Linear(rank, width, bias=False)
        nn.init.normal_(self.down.weight, std=0.02)
        nn.init.zeros_(self.up.weight)

    def forward(self, x: Tensor) -> Tensor:  # (..., d) -> (..., d)
        return x + self.up(self.down(x))

    @property
    def weight(self) -> Tensor:  # (d, d)
        """Returns W_v as a dense matrix."""
        product = self.up.weight @ self.down.weight
        return product + torch.eye(len(product), device=product.device, dtype=product.dtype)

    def deviation(self) -> Tensor:
        """Returns ||W_v - I||_F^2 = ||B A||_F^2 = <B^T B, A A^T>, a scalar."""
        return ((self.up.weight.T @ self.up.weight) * (self.down.weight @ self.down.weight.T)).sum()


class Fusion(nn.Module):
    """Query, key and value of the attention over the members of one site; fp32, whatever the base.

    Args:
        inputs, outputs: d_in and d_out of the members.
        value: False gives the reference's "static" fusion, which has no value matrix.
        rank: None for full matrices. Otherwise queries and keys have this many dimensions, since the scores depend on
            W_q and W_k only by the product W_q^T W_k, which then has this rank; and W_v is the identity plus a matrix
            of this rank.
        temperature: T, which divides the scores.
        dropout: its probability on the scores, before the softmax, in training.
        scores: one of SCORES.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        value: bool = True,
        rank: int | None = None,
        temperature: float = 1.0,
        dropout: float = 0.0,
        scores: str = "dot",
    ):
        super().__init__()
        self.temperature, self.dropout, self.scores = temperature, dropout, scores
        self.query, self.key = nn.Linear(inputs, rank or outputs), nn.Linear(outputs, rank or outputs)
        self.value: nn.Module | None = None
        self.reset_fusion_parameters()
        if value and rank:
            self.value = LowRankValue(outputs, rank)
        elif value:
            self.value = nn.Linear(outputs, outputs, bias=False)
            with torch.no_grad():  # the reference's start: the identity, with 1e-6 off the diagonal
                self.value.weight.fill_(1e-6).fill_diagonal_(1.0)

    def reset_fusion_parameters(self) -> None:
        """Draws query and key again, as the reference does: N(0, 0.02), with biases at 0."""
        for layer in (self.query, self.key):
            nn.init.normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)

    @property
    def divisor(self) -> float:
        """Returns what the products of queries and keys are divided by: T, or T sqrt(a)."""
        return self.temperature * (self.query.out_features**0.5 if self.scores == "scaled" else 1.0)

    def value_deviation(self) -> Tensor:
        """Returns the squared Frobenius norm of W_v - I, a scalar; 0 for a static fusion."""
        if self.value is None:
            return self.query.weight.new_zeros(())
        if isinstance(self.value, LowRankValue):
            return self.value.deviation()
        weight: Any = self.value.weight
        return (weight - torch.eye(len(weight), device=weight.device, dtype=weight.dtype)).square().sum()

    def forward(
        self, x: Tensor, stack: MemberStack, masked: tuple[int, ...] = (), mode: str = "zero"
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Returns the context sum_n alpha_n v_n, with the attention and the codes that it is made of.

        Args:
            x: the input of the members, (B, T, d_in).
            masked: indices of masked members.
            mode: `zero` keeps a masked member in the softmax with output 0, as the authors do by zeroing its weights;
                `exclude` takes it out, so that the others share all of the attention.

        Returns: context (B, T, d_out), attention alpha (B, T, N), codes z (B, T, R).
        """
        z = stack.codes(x)  # (B, T, R)
        read = x / root_mean_square(x) if self.scores == "query_norm" else x
        code_scores, bias_scores, constant = self.key_scores(read, stack)
        scores = sum_per_member(code_scores * z, stack.widths) + bias_scores  # (B, T, N)
        if masked:
            flags = mask_flags(masked, len(stack.widths), x.device)
            scores = scores.masked_fill(flags, 0.0)
        scores = F.dropout(scores + constant, self.dropout, self.training) / self.divisor
        if masked and mode == "exclude":
            scores = scores.masked_fill(flags, float("-inf"))
        alpha = attention_weights(scores)  # (B, T, N)
        counted = alpha.masked_fill(flags, 0.0) if masked else alpha
        return self.project_values(stack.coefficients(z, counted), stack), alpha, z

    def key_scores(self, x: Tensor, stack: MemberStack) -> tuple[Tensor, Tensor, Tensor]:
        """Returns the products of the token's query with the parts of the keys.

        The parts are U^T W_k^T q, one per code (B, T, R); C W_k^T q, one per member's bias (B, T, N); and q . b_k
        (B, T, 1).
        """
        order = cheapest_order(self.query_costs(x, stack))
        sizes = [sum(stack.widths), len(stack.widths)]
        if order == "token":
            q = self.query(x)  # (B, T, a)
            scores = F.linear(F.linear(q, self.key.weight.T), stack.outputs)  # (B, T, R + N)
            return *scores.split(sizes, dim=-1), F.linear(q, self.key.bias[None])
        keys = torch.cat([stack.outputs @ self.key.weight.T, self.key.bias[None]])  # (R + N + 1, a)
        if order == "key":
            scores = F.linear(self.query(x), keys)
        else:
            scores = F.linear(x, keys @ self.query.weight, keys @ self.query.bias)
        return scores.split([*sizes, 1], dim=-1)

    def project_values(self, coefficients: Tensor, stack: MemberStack) -> Tensor:  # (B, T, R + N) -> (B, T, d_out)
        """Returns W_v sum_n alpha_n u_n."""
        if isinstance(self.value, nn.Linear):
            if cheapest_order(self.value_costs(coefficients, stack)) == "member":
                return coefficients @ (stack.outputs @ self.value.weight.T)
        context = coefficients @ stack.outputs
        return context if self.value is None else self.value(context)

    def query_costs(self, x: Tensor, stack: MemberStack) -> dict[str, int]:
        """Counts the multiply-adds, forward and backward, of [U^T; C] W_k^T W_q x in each order of its products.

        The chain is multiplied from the right (`token`), from the middle (`key`) or from the left (`member`). A product
        costs as much again for each factor that needs a gradient; the members need none.
        """
        tokens, d_in, d_out, a = x.shape[:-1].numel(), x.shape[-1], *self.key.weight.T.shape
        R = len(stack.outputs)
        one, both = (2, 3) if torch.is_grad_enabled() else (1, 1)  # one factor, or both, need a gradient
        keys = one * R * d_out * a
        return {
            "token": tokens * (both * (d_in * a + a * d_out) + one * d_out * R),
            "key": keys + both * tokens * (d_in * a + a * R),
            "member": keys + both * R * (a * d_in + tokens * d_in),
        }

    def value_costs(self, coefficients: Tensor, stack: MemberStack) -> dict[str, int]:
        """Counts the multiply-adds of W_v [U | C^T] (alpha z), as `query_costs` does."""
        tokens, (R, d) = coefficients.shape[:-1].numel(), stack.outputs.shape
        one, both = (2, 3) if torch.is_grad_enabled() else (1, 1)
        return {
            "token": tokens * (one * R * d + both * d * d),
            "member": one * R * d * d + both * tokens * R * d,
        }


class ScalarMix(nn.Module):
    """One weight per member and site, the same for every token: alpha = softmax(w), or 1/N if none is learned.

    With `heads`, x is cut into so many blocks with weights of their own: sum_n U_n D_n (alpha_n * x), for linear
    members (after Caccia et al. 2023, arXiv 2211.03831). It returns the means of the weights over the heads, and codes
    that are divided by them, so that a weight times a norm is what a member adds.
    """

    value = None

    def __init__(self, members: int, learned: bool = True, heads: int | None = None):
        super().__init__()
        self.learned, self.heads = learned, heads
        if learned:
            self.weight = nn.Parameter(torch.zeros(*([heads] if heads else []), members))

    def value_deviation(self) -> Tensor:
        """Returns 0: there is no value matrix."""
        return self.weight.new_zeros(()) if self.learned else torch.zeros(())

    def forward(
        self, x: Tensor, stack: MemberStack, masked: tuple[int, ...] = (), mode: str = "zero"
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Returns the same as `Fusion.forward`.

        A masked member keeps its share in `zero`; in `exclude` the others get it.
        """
        scores = self.weight if self.learned else x.new_zeros(len(stack.widths))
        flags = mask_flags(masked, len(stack.widths), x.device)
        scores = scores.masked_fill(flags, 0.0 if mode == "zero" else float("-inf"))
        alpha = scores.softmax(-1)  # (N,) or (H, N)
        counted = alpha.masked_fill(flags, 0.0)
        if self.heads:
            weights = zip(counted.T, stack.widths, strict=True)
            by_code = torch.cat([of_heads.expand(width, -1) for of_heads, width in weights])  # (R, H)
            down = stack.down.unflatten(1, (self.heads, -1)) * by_code[..., None]  # (R, H, d_in / H)
            z, alpha = F.linear(x, down.flatten(1)), alpha.mean(0).expand(*x.shape[:-1], -1)  # (B, T, R), (B, T, N)
            return z @ stack.up.T, alpha, scale_per_member(z, 1 / alpha.clamp_min(1e-30), stack.widths)
        z, shape = stack.codes(x), (*x.shape[:-1], -1)  # (B, T, R)
        return stack.coefficients(z, counted.expand(shape)) @ stack.outputs, alpha.expand(shape), z


@torch.no_grad()
def member_norms(fusion: Any, stack: MemberStack, z: Tensor, masked: tuple[int, ...] = ()) -> Tensor:
    """Returns the norm of what each member would add with all of the weight, ||W_v u_n||, (B, T, N).

    It is 0 for masked members. It serves inspection only.
    """
    norms = []
    for n, (codes, up) in enumerate(zip(z.split(stack.widths, -1), stack.up.split(stack.widths, -1), strict=True)):
        u = F.linear(codes, up, stack.up_bias[n])  # (B, T, d_out)
        norms.append((u if fusion.value is None else fusion.value(u)).norm(dim=-1) * (n not in masked))
    return torch.stack(norms, dim=-1)
