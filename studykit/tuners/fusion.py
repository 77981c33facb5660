"""AdapterFusion and AdvFusion: attention over the outputs of frozen adapters, computed in rank space.

AdapterFusion (Pfeiffer et al. 2021, arXiv 2005.00247, eq. 6-8). With u_n the output of member n without its residual:

    q = W_q x + b_q,   k_n = W_k u_n + b_k,   v_n = W_v u_n,   alpha = softmax_n(q . k_n / T),   sum_n alpha_n v_n

There is one head and no 1/sqrt(d). AdvFusion (Saberi et al., arXiv 2307.07854) trains the same weights in two phases:
first with the target's member masked, then with it restored. A mask here is a flag; no weight is ever destroyed.

Nothing of shape (N, d) per token is formed. Members are u_n = U_n z_n + c_n with z_n in the bottleneck, so that

    q . k_n = z_n . (U_n^T W_k^T W_q x + ..) + c_n . W_k^T q + q . b_k
    sum_n alpha_n v_n = W_v (sum_n U_n (alpha_n z_n) + sum_n alpha_n c_n)

so each score is a product in the r dimensions of a member, and what remains is in which order to multiply the chains
[U^T; C] W_k^T W_q x and W_v [U | C^T] (alpha z): towards the token, W_k, W_q and W_v cost 3 d^2 per token and U is
thin; towards the members, they cost R d^2 per step, R = sum of the r_n, and no d^2 per token. `cheapest` counts. All
orders are the same function, and all gradients are autograd's. The constant q . b_k cancels in the softmax; it stays,
so that b_k's gradient is zero and not missing.

`average` and `scalar_mix` compose the same members without looking at the token: what the attention has to beat.
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
    outputs: Tensor  # (R + N, d_out): U^T over the biases, one row per code and one per member; scaling folded in
    widths: list[int]  # r_n
    activations: list[str]

    @classmethod
    def of(cls, members: list[Bottleneck]) -> MemberStack:
        def bias(layer: nn.Module) -> Tensor:
            return layer.weight.new_zeros(layer.weight.shape[0]) if layer.bias is None else layer.bias

        codes = [m.scaling * m.up.weight.T for m in members]
        slots = [m.scaling * bias(m.up)[None] for m in members]
        return cls(
            down=torch.cat([m.down.weight for m in members]),
            down_bias=torch.cat([bias(m.down) for m in members]),
            outputs=torch.cat(codes + slots),
            widths=[m.down.weight.shape[0] for m in members],
            activations=[m.activation for m in members],
        )

    def encode(self, x: Tensor) -> Tensor:  # (B, T, d_in) -> (B, T, R)
        return activate(F.linear(x, self.down, self.down_bias), self.widths, self.activations)

    @property
    def up(self) -> Tensor:  # (d_out, R)
        return self.outputs[: sum(self.widths)].T

    @property
    def up_bias(self) -> Tensor:  # (N, d_out)
        return self.outputs[sum(self.widths) :]

    def weigh(self, z: Tensor, weight: Tensor) -> Tensor:
        """(B, T, R + N) of codes z (B, T, R) and weights (B, T, N): coefficients of the rows of `outputs`, which they
        turn into sum_n weight_n u_n."""
        return torch.cat([scale_per_member(z, weight, self.widths), weight], dim=-1)


def activate(z: Tensor, widths: list[int], activations: list[str]) -> Tensor:  # (B, T, R) -> (B, T, R)
    if len(set(activations)) == 1:
        return ACTIVATIONS[activations[0]](z)
    parts = z.split(widths, dim=-1)
    return torch.cat([ACTIVATIONS[a](part) for a, part in zip(activations, parts, strict=True)], dim=-1)


def sum_per_member(x: Tensor, widths: list[int]) -> Tensor:  # (B, T, R) -> (B, T, N)
    if len(set(widths)) == 1:
        return x.unflatten(-1, (len(widths), -1)).sum(-1)
    return torch.stack([part.sum(-1) for part in x.split(widths, dim=-1)], dim=-1)


def scale_per_member(z: Tensor, weight: Tensor, widths: list[int]) -> Tensor:  # (B, T, R), (B, T, N) -> (B, T, R)
    if len(set(widths)) == 1:
        return (z.unflatten(-1, (len(widths), -1)) * weight[..., None]).flatten(-2)
    parts = zip(z.split(widths, dim=-1), weight.split(1, dim=-1), strict=True)
    return torch.cat([part * w for part, w in parts], dim=-1)


def cheapest(orders: dict[str, int]) -> str:
    """The order of products with the fewest multiply-adds; the first of equals."""
    return min(orders, key=orders.__getitem__)


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
        heard, slots, constant = self.listen(x, stack)
        scores = sum_per_member(heard * z, stack.widths) + slots  # (B, T, N)
        if masked:
            flags = is_masked(masked, len(stack.widths), x.device)
            scores = scores.masked_fill(flags, 0.0)
        scores = F.dropout(scores + constant, self.dropout, self.training) / self.temperature
        if masked and mode == "exclude":
            scores = scores.masked_fill(flags, float("-inf"))
        alpha = scores.softmax(-1)  # (B, T, N)
        weights = stack.weigh(z, alpha.masked_fill(flags, 0.0) if masked else alpha)  # (B, T, R + N)
        return self.answer(weights, stack), alpha, z

    def listen(self, x: Tensor, stack: MemberStack) -> tuple[Tensor, Tensor, Tensor]:
        """How the token's query meets each code, U^T W_k^T q (B, T, R), each member's bias (B, T, N), and b_k
        (B, T, 1)."""
        order = cheapest(self.query_orders(x, stack))
        sizes = [sum(stack.widths), len(stack.widths)]
        if order == "token":
            q = self.query(x)  # (B, T, a)
            heard, slots = F.linear(F.linear(q, self.key.weight.T), stack.outputs).split(sizes, dim=-1)
            return heard, slots, F.linear(q, self.key.bias[None])
        keys = torch.cat([stack.outputs @ self.key.weight.T, self.key.bias[None]])  # (R + N + 1, a)
        if order == "key":
            met = F.linear(self.query(x), keys)
        else:
            met = F.linear(x, keys @ self.query.weight, keys @ self.query.bias)
        return met.split([*sizes, 1], dim=-1)

    def answer(self, weights: Tensor, stack: MemberStack) -> Tensor:  # (B, T, R + N) -> (B, T, d_out)
        """W_v sum_n alpha_n u_n."""
        if isinstance(self.value, nn.Linear) and cheapest(self.value_orders(weights, stack)) == "member":
            return weights @ (stack.outputs @ self.value.weight.T)
        context = weights @ stack.outputs
        return context if self.value is None else self.value(context)

    def query_orders(self, x: Tensor, stack: MemberStack) -> dict[str, int]:
        """Multiply-adds, forward and backward, of [U^T; C] W_k^T W_q x: multiplied from the right, in the middle, from
        the left. A product costs as much again for each factor that needs a gradient; the members need none."""
        tokens, d_in, d_out, a = x.shape[:-1].numel(), x.shape[-1], *self.key.weight.T.shape
        R = len(stack.outputs)
        one, both = (2, 3) if torch.is_grad_enabled() else (1, 1)
        keys = one * R * d_out * a
        return {
            "token": tokens * (both * (d_in * a + a * d_out) + one * d_out * R),
            "key": keys + both * tokens * (d_in * a + a * R),
            "member": keys + both * R * (a * d_in + tokens * d_in),
        }

    def value_orders(self, weights: Tensor, stack: MemberStack) -> dict[str, int]:
        """As `query_orders`, of W_v [U | C^T] (alpha z)."""
        tokens, (R, d) = weights.shape[:-1].numel(), stack.outputs.shape
        one, both = (2, 3) if torch.is_grad_enabled() else (1, 1)
        return {
            "token": tokens * (one * R * d + both * d * d),
            "member": one * R * d * d + both * tokens * R * d,
        }


class ScalarMix(nn.Module):
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
        return stack.weigh(z, alpha.masked_fill(flags, 0.0)) @ stack.outputs, alpha, z


@torch.no_grad()
def member_norms(fusion: nn.Module, stack: MemberStack, z: Tensor, masked: tuple[int, ...] = ()) -> Tensor:
    """What each member would add on its own, ||W_v u_n||: (B, T, N); 0 for masked members. For inspection."""
    norms = []
    for n, (codes, up) in enumerate(zip(z.split(stack.widths, -1), stack.up.split(stack.widths, -1), strict=True)):
        u = F.linear(codes, up, stack.up_bias[n])  # (B, T, d_out)
        norms.append((u if fusion.value is None else fusion.value(u)).norm(dim=-1) * (n not in masked))
    return torch.stack(norms, dim=-1)
