"""A fusion folded with its members for inference: the same function, computed in the members' ranks alone.

At inference nothing in a fusion changes, so products of weights can be made once. With the members' codes
z_n = act(D_n x + b_n), outputs u_n = U_n z_n + c_n, and one row n of C for each c_n:

    scores:   s_n = z_n . (S_n x + t_n) + C' x + t'      S = U^T W_k^T W_q,  t = U^T W_k^T b_q,
                                                         C' = C W_k^T W_q,   t' = C W_k^T b_q
    output:   W_v sum_n alpha_n u_n = sum_n V_n (alpha_n z_n) + alpha E,   V = W_v U,  E = C W_v^T

q . b_k shifts all scores alike and is left out. One product with [D; S; C'] and one with [V | E] remain:
(2R + N) d_in + (R + N) d_out multiply-adds, R = sum of the r_n, and no d^2. That is also the memory: less than a
fusion's 3 d^2 while R < d.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from studykit.tuners.fusion import Fusion, MemberStack, activate, is_masked, scale_per_member, sum_per_member


class FoldedFusion(nn.Module):
    """An attention fusion and its members at one site, frozen; masks work as in `Fusion`."""

    def __init__(self, inputs: int, outputs: int, widths: list[int], activations: list[str], temperature: float = 1.0):
        super().__init__()
        self.widths, self.activations, self.temperature = list(widths), list(activations), temperature
        R, N = sum(widths), len(widths)
        self.read = nn.Linear(inputs, 2 * R + N)  # [D; S; C']
        self.write = nn.Parameter(torch.zeros(R + N, outputs))  # [V | E]^T: so a token's product reads it in long rows
        self.requires_grad_(False)

    @classmethod
    @torch.no_grad()
    def of(cls, fusion: Fusion, stack: MemberStack) -> FoldedFusion:
        folded = cls(stack.down.shape[1], stack.outputs.shape[1], stack.widths, stack.activations, fusion.temperature)
        folded.to(stack.down)
        double = {"dtype": torch.float64}  # products of three matrices, rounded once
        query, query_bias = fusion.query.weight.to(**double), fusion.query.bias.to(**double)
        key = fusion.key.weight.to(**double)
        outputs = stack.outputs.to(**double)  # (R + N, d_out)
        heard = outputs @ key.T  # (R + N, a)
        value = outputs if fusion.value is None else outputs @ fusion.value.weight.to(**double).T
        folded.read.weight.copy_(torch.cat([stack.down.to(**double), heard @ query]))
        folded.read.bias.copy_(torch.cat([stack.down_bias.to(**double), heard @ query_bias]))
        folded.write.copy_(value)
        return folded.eval()

    def forward(
        self, x: Tensor, masked: tuple[int, ...] = (), mode: str = "zero"
    ) -> tuple[Tensor, Tensor]:  # (B, T, d_in) -> (B, T, d_out), (B, T, N)
        """The context and the attention."""
        R, N = sum(self.widths), len(self.widths)
        codes, heard, scores = self.read(x).split([R, R, N], dim=-1)
        z = activate(codes, self.widths, self.activations)
        scores = scores + sum_per_member(heard * z, self.widths)
        if self.temperature != 1:
            scores = scores / self.temperature
        if masked:
            flags = is_masked(masked, N, x.device)
            scores = scores.masked_fill(flags, 0.0 if mode == "zero" else float("-inf"))
        alpha = scores.softmax(-1)
        weight = alpha.masked_fill(flags, 0.0) if masked else alpha
        return torch.cat([scale_per_member(z, weight, self.widths), weight], dim=-1) @ self.write, alpha

    @torch.no_grad()
    def member_norms(self, x: Tensor, masked: tuple[int, ...] = ()) -> Tensor:
        """What each member would add on its own, ||W_v u_n||: (B, T, N); 0 for masked members. For inspection."""
        R = sum(self.widths)
        z = activate(F.linear(x, self.read.weight[:R], self.read.bias[:R]), self.widths, self.activations)
        values, slots = self.write.split([R, len(self.widths)])
        norms = [
            (codes @ value + slots[n]).norm(dim=-1) * (n not in masked)
            for n, (codes, value) in enumerate(zip(z.split(self.widths, -1), values.split(self.widths), strict=True))
        ]
        return torch.stack(norms, dim=-1)
