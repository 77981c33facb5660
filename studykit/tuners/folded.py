"""A fusion folded with its members for inference: the same function, computed only in the members' ranks.

At inference nothing in a fusion changes, so products of weights can be computed once. With the members' codes
z_n = act(D_n x + b_n), outputs u_n = U_n z_n + c_n, and the matrix C with a row c_n per member:

    scores:   s_n = z_n . (S_n x + t_n) + C' x + t'      S = U^T W_k^T W_q,  t = U^T W_k^T b_q,
                                                         C' = C W_k^T W_q,   t' = C W_k^T b_q
    output:   W_v sum_n alpha_n u_n = sum_n V_n (alpha_n z_n) + alpha E,   V = W_v U,  E = C W_v^T

The product q . b_k shifts all scores alike and is left out. One product with [D; S; C'] and one with [V | E] remain:
(2R + N) d_in + (R + N) d_out multiply-adds, R = sum of the r_n, and no d^2. The weights take as much memory: less than
the 3 d^2 of a fusion while R < d.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from studykit.tuners.fusion import (
    Fusion,
    MemberStack,
    activate,
    attention_weights,
    mask_flags,
    root_mean_square,
    scale_per_member,
    sum_per_member,
)


class FoldedFusion(nn.Module):
    """An attention fusion and its members at one site, frozen. Masks act as in `Fusion`.

    Args:
        inputs, outputs: d_in and d_out of the members.
        widths, activations: r_n and the activation of each member.
        temperature: what divides the scores.
        query_norm: whether the query reads x divided by its root mean square.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        widths: list[int],
        activations: list[str],
        temperature: float = 1.0,
        query_norm: bool = False,
    ):
        super().__init__()
        self.widths, self.activations = list(widths), list(activations)
        self.temperature, self.query_norm = temperature, query_norm
        R, N = sum(widths), len(widths)
        self.input_projection = nn.Linear(inputs, 2 * R + N)  # [D; S; C']
        # [V | E]^T: transposed, so that the product with one token reads memory in long rows.
        self.output_projection = nn.Parameter(torch.zeros(R + N, outputs))
        self.requires_grad_(False)

    @classmethod
    @torch.no_grad()
    def from_fusion(cls, fusion: Fusion, stack: MemberStack) -> FoldedFusion:
        """Returns the folded form of a fusion over these members, in the dtype and on the device of the members."""
        sizes = stack.down.shape[1], stack.outputs.shape[1]
        folded = cls(*sizes, stack.widths, stack.activations, fusion.divisor, fusion.scores == "query_norm")
        folded.to(stack.down)
        double: Any = {"dtype": torch.float64}  # products of three matrices are rounded once, at the end
        query, query_bias = fusion.query.weight.to(**double), fusion.query.bias.to(**double)
        key = fusion.key.weight.to(**double)
        outputs = stack.outputs.to(**double)  # (R + N, d_out)
        keys = outputs @ key.T  # (R + N, a)
        value: Any = fusion.value
        values = outputs if value is None else outputs @ value.weight.to(**double).T
        folded.input_projection.weight.copy_(torch.cat([stack.down.to(**double), keys @ query]))
        folded.input_projection.bias.copy_(torch.cat([stack.down_bias.to(**double), keys @ query_bias]))
        folded.output_projection.copy_(values)
        return folded.eval()

    def forward(
        self, x: Tensor, masked: tuple[int, ...] = (), mode: str = "zero"
    ) -> tuple[Tensor, Tensor]:  # (B, T, d_in) -> (B, T, d_out), (B, T, N)
        """Returns the context and the attention, as `Fusion.forward` does."""
        R, N = sum(self.widths), len(self.widths)
        if self.query_norm:
            codes, products = F.linear(x, self.input_projection.weight).split([R, R + N], dim=-1)
            projected = torch.cat([codes, products / root_mean_square(x)], dim=-1) + self.input_projection.bias
        else:
            projected = self.input_projection(x)
        codes, code_scores, bias_scores = projected.split([R, R, N], dim=-1)
        z = activate(codes, self.widths, self.activations)
        scores = bias_scores + sum_per_member(code_scores * z, self.widths)
        if self.temperature != 1:
            scores = scores / self.temperature
        if masked:
            flags = mask_flags(masked, N, x.device)
            scores = scores.masked_fill(flags, 0.0 if mode == "zero" else float("-inf"))
        alpha = attention_weights(scores)
        counted = alpha.masked_fill(flags, 0.0) if masked else alpha
        coefficients = torch.cat([scale_per_member(z, counted, self.widths), counted], dim=-1)
        return coefficients @ self.output_projection, alpha

    @torch.no_grad()
    def member_norms(self, x: Tensor, masked: tuple[int, ...] = ()) -> Tensor:
        """Returns ||W_v u_n|| per token and member, (B, T, N), as `fusion.member_norms` does."""
        R = sum(self.widths)
        codes = F.linear(x, self.input_projection.weight[:R], self.input_projection.bias[:R])
        z = activate(codes, self.widths, self.activations)
        values, bias_values = self.output_projection.split([R, len(self.widths)])
        parts = zip(z.split(self.widths, -1), values.split(self.widths), strict=True)
        norms = [
            (codes @ value + bias_values[n]).norm(dim=-1) * (n not in masked) for n, (codes, value) in enumerate(parts)
        ]
        return torch.stack(norms, dim=-1)
