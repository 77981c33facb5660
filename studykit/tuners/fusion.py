"""AdapterFusion and AdvFusion: attention over the outputs of frozen adapters, computed in rank space.

AdapterFusion (Pfeiffer et al. 2021, arXiv 2005.00247, eq. 6-8). With u_n the output of member n without its residual:

    q = W_q x + b_q,   k_n = W_k u_n + b_k,   v_n = W_v u_n,   alpha = softmax_n(q . k_n),   y = x + sum_n alpha_n v_n

There is one head and no 1/sqrt(d). AdvFusion (Saberi et al., arXiv 2307.07854) trains the same weights in two phases:
first with the target's member masked, then with it restored. A mask here is a flag; no weight is ever destroyed.

Nothing of shape (N, d) per token is formed. Because members are u_n = U_n z_n + c_n with z_n in the bottleneck,

    q . k_n = <U_n^T g, z_n> + g . c_n + q . b_k   with   g = W_k^T q
    sum_n alpha_n v_n = W_v (sum_n U_n (alpha_n z_n) + sum_n alpha_n c_n)

so W_k and W_v are applied once per token instead of once per member: 3 d^2 + 3 N r d multiply-adds instead of
(1 + 2N) d^2. The constant q . b_k cancels in the softmax; it stays, so that b_k's gradient is zero and not missing.
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
    """The frozen members of one layer side by side. R = sum of the members' widths r_n."""

    down: Tensor  # (R, d)
    down_bias: Tensor  # (R,)
    up: Tensor  # (d, R), scaling folded in
    up_bias: Tensor  # (N, d), scaling folded in
    widths: list[int]  # r_n
    activations: list[str]

    @classmethod
    def of(cls, members: list[Bottleneck]) -> MemberStack:
        return cls(
            down=torch.cat([m.down.weight for m in members]),
            down_bias=torch.cat([m.down.bias for m in members]),
            up=torch.cat([m.scaling * m.up.weight for m in members], dim=1),
            up_bias=torch.stack([m.scaling * m.up.bias for m in members]),
            widths=[m.down.weight.shape[0] for m in members],
            activations=[m.activation for m in members],
        )

    def encode(self, x: Tensor) -> Tensor:  # (B, T, d) -> (B, T, R)
        z = F.linear(x, self.down, self.down_bias)
        if len(set(self.activations)) == 1:
            return ACTIVATIONS[self.activations[0]](z)
        parts = z.split(self.widths, dim=-1)
        return torch.cat([ACTIVATIONS[a](part) for a, part in zip(self.activations, parts, strict=True)], dim=-1)

    def sum_per_member(self, x: Tensor) -> Tensor:  # (B, T, R) -> (B, T, N)
        if len(set(self.widths)) == 1:
            return x.unflatten(-1, (len(self.widths), -1)).sum(-1)
        return torch.stack([part.sum(-1) for part in x.split(self.widths, dim=-1)], dim=-1)

    def repeat_per_member(self, x: Tensor) -> Tensor:  # (B, T, N) -> (B, T, R)
        return x.repeat_interleave(torch.tensor(self.widths, device=x.device), dim=-1, output_size=sum(self.widths))


class Fusion(nn.Module):
    """Query, key and value of the attention over members in one layer; fp32, whatever the base.

    Args:
        hidden_size: d.
        value: False gives the reference's "static" fusion, which has no value matrix.
    """

    def __init__(self, hidden_size: int, value: bool = True):
        super().__init__()
        self.query = nn.Linear(hidden_size, hidden_size)
        self.key = nn.Linear(hidden_size, hidden_size)
        for layer in (self.query, self.key):
            nn.init.normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)
        self.value = nn.Linear(hidden_size, hidden_size, bias=False) if value else None
        if value:
            with torch.no_grad():
                self.value.weight.fill_(1e-6).fill_diagonal_(1.0)

    def value_penalty(self) -> Tensor:
        """Squared Frobenius norm of W_v - I, a scalar; 0 for a static fusion."""
        if self.value is None:
            return self.query.weight.new_zeros(())
        weight = self.value.weight
        return (weight - torch.eye(len(weight), device=weight.device, dtype=weight.dtype)).square().sum()

    def forward(
        self, x: Tensor, stack: MemberStack, masked: tuple[int, ...] = (), mode: str = "zero"
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The context sum_n alpha_n v_n, to be added to x.

        Args:
            x: output of the decoder layer, (B, T, d).
            masked: indices of masked members.
            mode: `zero` keeps a masked member in the softmax with output 0 (the authors' zeroing); `exclude` takes it
                out, so that the others share all of the attention.

        Returns: context (B, T, d), attention alpha (B, T, N), codes z (B, T, R).
        """
        z = stack.encode(x)  # (B, T, R)
        q = self.query(x)  # (B, T, d)
        g = F.linear(q, self.key.weight.T)  # (B, T, d): W_k^T q
        scores = stack.sum_per_member(F.linear(g, stack.up.T) * z) + F.linear(g, stack.up_bias)  # (B, T, N)
        if masked:
            is_masked = torch.zeros(len(stack.widths), dtype=torch.bool, device=x.device)
            is_masked[list(masked)] = True
            scores = scores.masked_fill(is_masked, 0.0 if mode == "zero" else float("-inf"))
        scores = scores + F.linear(q, self.key.bias[None])  # (B, T, 1), the same for every member
        alpha = scores.softmax(-1)  # (B, T, N)
        weight = alpha.masked_fill(is_masked, 0.0) if masked else alpha
        context = F.linear(stack.repeat_per_member(weight) * z, stack.up) + weight @ stack.up_bias
        return context if self.value is None else self.value(context), alpha, z

    @torch.no_grad()
    def member_norms(self, stack: MemberStack, z: Tensor, masked: tuple[int, ...] = ()) -> Tensor:
        """What each member would add on its own, ||W_v u_n||: (B, T, N); 0 for masked members. For inspection."""
        norms = []
        for n, (codes, up) in enumerate(
            zip(z.split(stack.widths, -1), stack.up.split(stack.widths, -1), strict=True)
        ):
            u = F.linear(codes, up, stack.up_bias[n])  # (B, T, d)
            norms.append((u if self.value is None else self.value(u)).norm(dim=-1) * (n not in masked))
        return torch.stack(norms, dim=-1)
