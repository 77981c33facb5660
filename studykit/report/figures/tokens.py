"""The token strip: the tokens of one sample as boxes, coloured by the fusion weights of a layer.

The colour shows the weight of one member (from pale for 0 to dark for 1), or the member with the largest weight, the
winner: then the box has the winner's colour, paler the closer its weight is to uniform, and the winner's number under
the token, for grey print. Underlined tokens are those whose state predicts the completion. Token text is untrusted:
white space is made visible, characters that cannot be printed are replaced, and nothing is read as markup or
mathematics.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from matplotlib.typing import ColorType

from studykit.attention.record import COMPLETION, FusionRecord
from studykit.errors import UserError
from studykit.report.figures.fusion import own_weight
from studykit.report.figures.style import SEQUENTIAL, category_style, colour_bar, ink_on, new_figure, styled

VISIBLE = str.maketrans({" ": "\u00b7", "\n": "\u21b5", "\t": "\u2192", "\r": "\u240d"})
COLUMNS = 100  # characters per line
FONT_SIZE = 8.4  # points; a monospace character is 0.6 em wide, so a line is about 7 inches
LINE = 0.28  # inches per line of tokens


def visible(token: str) -> str:
    """Returns a token as it is drawn: white space as signs, control and half characters as U+FFFD, "" as U+2205."""
    text = token.translate(VISIBLE)
    return "".join(sign if sign.isprintable() else "\ufffd" for sign in text) or "\u2205"


def wrap(tokens: Sequence[str], columns: int = COLUMNS) -> list[tuple[int, int, int]]:
    """Returns the position of each token: (line, first column, width), in characters; a token fills at most a line."""
    positions, line, column = [], 0, 0
    for token in tokens:
        width = min(len(token), columns)
        if column + width > columns:
            line, column = line + 1, 0
        positions.append((line, column, width))
        column += width
    return positions


@styled
def token_strip(
    record: FusionRecord,
    sample: int = 0,
    layers: Sequence[int] | int | None = None,
    *,
    member: str | None = None,
    weighted: bool = False,
    limit: int = 400,
) -> tuple[Figure, str, str]:
    """Draws the tokens of one sample that is kept in full, a block per layer.

    Args:
        sample: index into `record.samples`.
        layers: indices into `record.layers`; by default the first, the middle and the last.
        member: colour by this member's weight; None: by the winner.
        weighted: use norm-weighted shares instead of weights.
        limit: maximum number of tokens, from the start; the caption gives it where it applies.

    Raises UserError for a sample, layer or member that the record does not hold.
    """
    if not -len(record.samples) <= sample < len(record.samples):
        raise UserError(f"sample={sample} is not kept in the record; accepted are 0 to {len(record.samples) - 1}")
    if member is not None and member not in record.members:
        raise UserError(f"member={member!r} is not in the record; accepted are {', '.join(record.members)}")
    depth = len(record.layers)
    chosen = sorted({0, depth // 2, depth - 1}) if layers is None else list(np.atleast_1d(layers))
    if any(not -depth <= layer < depth for layer in chosen):
        raise UserError(f"layers={layers!r} is not in the record; accepted are 0 to {depth - 1}")
    shown = record.samples[sample]
    tokens = [visible(token)[:COLUMNS] for token in shown.tokens[:limit]]
    values = (shown.shares if weighted else shown.weights).astype(float)  # (L, T, A)
    positions = wrap(tokens)
    lines = positions[-1][0] + 1
    figure, axes = new_figure(len(chosen), 1, height=0.75 + len(chosen) * (0.3 + LINE * lines))
    for panel, layer in zip(axes[:, 0], chosen, strict=True):
        _block(panel, tokens, positions, values[layer], shown.marks, record, member)
        panel.set(xlim=(-0.3, COLUMNS + 0.3), ylim=(lines, 0))
        panel.set_title(record.layers[layer], loc="left", fontsize=8.5, fontweight="bold", pad=2)
        panel.axis("off")
    quantity = "norm-weighted share" if weighted else "fusion weight"
    if member is None:
        _winner_legend(figure, record)
        how = f"the member with the largest {quantity}, paler towards uniform; the number is the member's"
    else:
        scale = mpl.cm.ScalarMappable(mpl.colors.Normalize(0, 100), SEQUENTIAL)
        label = f"{quantity} of {member} (%)"
        colour_bar(figure, scale, axes, label=label, location="top", shrink=0.5, aspect=40)
        how = f"the {quantity} of {member}"
    cut = f", the first {limit} tokens" if len(shown.tokens) > limit else f", {len(tokens)} tokens"
    where = ", ".join(record.layers[layer] for layer in chosen)
    of = record.title + (f", seed {record.seed}" if record.seed is not None else "")
    means = values[chosen][:, shown.marks == COMPLETION].mean(1)  # (L, A)
    own = own_weight(means, record.members, record.target)
    alt = (
        f"Tokens of sample {shown.id}, {of}, coloured by {how}, in {where}; n = 1 sample{cut}. The target "
        f"{record.target} has a mean {quantity.removeprefix('fusion ')} of {own:.1%} at the tokens that predict the "
        f"completion there."
    )
    caption = (
        f"{record.target} has {own:.0%} of the {quantity} at the tokens that predict the completion. "
        f"Sample {shown.id}, {of}, {where}: each token coloured by {how}. Underlined tokens predict the "
        f"completion. n = 1 sample{cut}."
    )
    return figure, alt, caption


def _block(
    axes: Axes, tokens, positions, values: np.ndarray, marks: np.ndarray, record: FusionRecord, member: str | None
) -> None:
    """Draws boxes and texts of one layer; values (T, A)."""
    uniform = 1 / record.active_member_count
    for i, (token, (line, column, width)) in enumerate(zip(tokens, positions, strict=True)):
        colour: ColorType
        if member is None:
            best = int(values[i].argmax())
            strength = np.clip((values[i, best] - uniform) / max(1 - uniform, 1e-9), 0, 1)
            colour = _blend(category_style(best)["color"], 0.15 + 0.7 * strength)
        else:
            colour = SEQUENTIAL(values[i, record.members.index(member)])
        ink = ink_on(colour)
        axes.add_patch(
            Rectangle(
                (column, line + 0.06), width, 0.88, facecolor=colour, edgecolor="white", linewidth=0.6, clip_on=False
            )
        )
        text: dict[str, Any] = {"ha": "center", "va": "center", "color": ink, "parse_math": False}
        middle = line + (0.5 if member else 0.38)
        axes.text(column + width / 2, middle, token, fontfamily="monospace", fontsize=FONT_SIZE, **text)
        if member is None:
            axes.text(column + width / 2, line + 0.75, str(best + 1), fontsize=4.5, **text)
        if marks[i] == COMPLETION:
            ends = (column + 0.12, column + width - 0.12)
            axes.plot(ends, (line + 0.97, line + 0.97), color="black", linewidth=1.0, clip_on=False)


def _blend(colour: str, amount: float) -> tuple[float, float, float]:
    """Returns the colour in this opacity on white."""
    red, green, blue = (1 - amount * (1 - channel) for channel in mpl.colors.to_rgb(colour))
    return red, green, blue


def _winner_legend(figure: Figure, record: FusionRecord) -> None:
    names = [f"{i + 1} {name}{' (target)' * (name == record.target)}" for i, name in enumerate(record.members)]
    patches = [Patch(color=_blend(category_style(i)["color"], 0.85), label=name) for i, name in enumerate(names)]
    figure.legend(handles=patches, loc="outside upper center", ncols=min(6, len(patches)), labelcolor="black")
