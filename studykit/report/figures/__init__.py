"""Figures for notebooks, reports and papers, one call each; `show` displays one with alternative text and caption.

All are safe for colour-blind readers, legible in grey print, and pure vectors. The package offers them under one name:
`training` draws losses and lengths, `forest` all methods of a comparison, `questions` the differences that answer a
study's questions, `comparison` scores and costs, `side_by_side` and `gathered` many studies, `preferences` what people
preferred, `heatmaps` and `fusion` weights by layer and member, `worth` members with what muting them costs, `tokens`
the weights of single tokens, `tuning` trials; `style` holds colours and markers, and turns a figure into SVG and HTML.
"""

from studykit.report.figures.comparison import cost, member_worth, own_weight_slopes, scores
from studykit.report.figures.forest import forest
from studykit.report.figures.fusion import (
    attention_by_phase,
    entropy_per_layer,
    saturation_per_layer,
    stacked_bars,
    target_share_per_layer,
)
from studykit.report.figures.gathered import forest_of_studies, slope
from studykit.report.figures.heatmaps import (
    change_panels,
    fusion_heatmap,
    fusion_panels,
    phase_comparison,
    transfer_matrix,
)
from studykit.report.figures.preferences import preferences
from studykit.report.figures.questions import question_grid, question_parts
from studykit.report.figures.side_by_side import pooled_differences, scores_by_study
from studykit.report.figures.style import figure_html, method_looks, save, show, svg
from studykit.report.figures.tokens import token_strip
from studykit.report.figures.training import attention_curves, length_histograms, loss_curves, stability_curves
from studykit.report.figures.tuning import expected_losses
from studykit.report.figures.worth import weight_against_worth, weight_and_worth

__all__ = [
    "attention_by_phase",
    "attention_curves",
    "change_panels",
    "cost",
    "entropy_per_layer",
    "expected_losses",
    "figure_html",
    "forest",
    "forest_of_studies",
    "fusion_heatmap",
    "fusion_panels",
    "length_histograms",
    "loss_curves",
    "member_worth",
    "method_looks",
    "own_weight_slopes",
    "phase_comparison",
    "pooled_differences",
    "preferences",
    "question_grid",
    "question_parts",
    "saturation_per_layer",
    "save",
    "scores",
    "scores_by_study",
    "show",
    "slope",
    "stability_curves",
    "stacked_bars",
    "svg",
    "target_share_per_layer",
    "token_strip",
    "transfer_matrix",
    "weight_against_worth",
    "weight_and_worth",
]
