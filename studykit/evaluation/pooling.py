"""Many estimates of one difference, pooled: a random-effects model with REML, and its regression on a covariate.

Study i estimates its own true difference theta_i with a known variance v_i, and the true differences vary between
studies with a variance tau2 around a line in the covariates x_i (a constant alone, for the plain mean):

    y_i = theta_i + e_i,   theta_i = x_i b + u_i,   var(e_i) = v_i,   var(u_i) = tau2

tau2 maximises the restricted likelihood (REML; Viechtbauer 2005, "Bias and efficiency of meta-analytic variance
estimators in the random-effects model"). The weights are 1 / (v_i + tau2). The error of b is that of Knapp and Hartung
(2003), "Improved tests for a random effects meta-regression with a single covariate": the spread of the studies around
the line estimates it, with Student's t of (studies - coefficients) degrees of freedom. It is never taken smaller than
the weights alone say (Roever, Knapp and Friede 2015), so that a few studies that agree by chance are not overrated.

    pooled = fit([0.9, 1.4, 0.2, 1.1], [0.10, 0.12, 0.15, 0.11])
    pooled.coefficients[0], pooled.errors[0].value, pooled.tau2
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from studykit.errors import UserError
from studykit.evaluation.student import StandardError, student_t

LEAST_VARIANCE = 1e-12  # of a study, relative to the largest
STEPS = 200  # of Fisher's scoring
HALVINGS = 30  # of a step that would lower the likelihood


@dataclass(frozen=True)
class Fit:
    """A random-effects model of k studies and p coefficients."""

    coefficients: list[float]  # p: the mean, or the constant and the slopes
    errors: list[StandardError]  # p: of the coefficients, with k - p degrees of freedom; none where k = p
    tau2: float  # variance of the true differences between studies, beyond the covariates
    i2: float  # share of the variance between the studies' results that is not their own error, 0 to 1
    weights: list[float]  # k: of the studies in a plain mean, which add up to 1

    def prediction(self, confidence: float) -> tuple[float, float] | None:
        """Returns the interval of the true difference of another such study; None below three studies.

        mean +- t sqrt(tau2 + error^2), t of (studies - 2) degrees of freedom (Higgins, Thompson and Spiegelhalter 2009,
        "A re-evaluation of random-effects meta-analysis"). It is that of a plain mean.
        """
        df = len(self.weights) - 2
        if df < 1 or not self.errors:
            return None
        half = student_t(0.5 + confidence / 2, df) * math.hypot(math.sqrt(self.tau2), self.errors[0].value)
        return self.coefficients[0] - half, self.coefficients[0] + half


def fit(values: Sequence[float], variances: Sequence[float], covariate: Sequence[float] | None = None) -> Fit:
    """Fits the mean of the studies, or their line on a covariate: then the second coefficient is the slope.

    Args:
        values: (k,) the estimates of the studies.
        variances: (k,) their squared standard errors.
        covariate: (k,) one number per study.

    Raises UserError for fewer studies than coefficients, negative variances, or a covariate that does not vary.
    """
    y, v = np.asarray(values, dtype=float), np.asarray(variances, dtype=float)
    columns = [np.ones(len(y))] if covariate is None else [np.ones(len(y)), np.asarray(covariate, dtype=float)]
    if not len(y) >= len(columns):
        raise UserError(f"{len(y)} studies: {len(columns)} coefficients need at least as many.")
    if len(v) != len(y) or v.min() < 0:
        raise UserError("Every study needs one variance, which is not negative.")
    if covariate is not None and np.ptp(columns[1]) == 0:
        raise UserError("The covariate has one value in all studies; a slope needs at least two.")
    v = np.maximum(v, LEAST_VARIANCE * max(v.max(), 1e-30))
    x, (k, p) = np.stack(columns, axis=1), (len(y), len(columns))
    tau2 = _restricted_maximum(y, v, x)
    w = 1 / (v + tau2)
    inverse = np.linalg.inv(x.T @ (w[:, None] * x))  # (p, p) covariance of the coefficients, if tau2 were known
    b = inverse @ x.T @ (w * y)
    scale = float(w @ (y - x @ b) ** 2) / (k - p) if k > p else math.nan
    spread = [math.sqrt(max(1.0, scale) * variance) for variance in np.diag(inverse)] if k > p else []
    return Fit(
        coefficients=[float(value) for value in b],
        errors=[StandardError(error, k - p) for error in spread],
        tau2=tau2,
        i2=_share_between(v, x, tau2),
        weights=[float(share) for share in w / w.sum()],
    )


def _projection(w: np.ndarray, x: np.ndarray) -> np.ndarray:
    """W - W X (X' W X)^-1 X' W, (k, k): weighted residuals, of which the restricted likelihood is a function."""
    wx = w[:, None] * x
    return np.diag(w) - wx @ np.linalg.inv(x.T @ wx) @ wx.T


def _restricted_maximum(y: np.ndarray, v: np.ndarray, x: np.ndarray) -> float:
    """tau2 by Fisher's scoring, at least 0."""
    if len(y) == x.shape[1]:
        return 0.0  # nothing is left to estimate it from

    def likelihood(tau2: float) -> float:
        w = 1 / (v + tau2)
        _, determinant = np.linalg.slogdet(x.T @ (w[:, None] * x))
        return float(0.5 * (np.log(w).sum() - determinant - y @ _projection(w, x) @ y))

    tau2 = max(0.0, float(np.var(y - x @ np.linalg.lstsq(x, y, rcond=None)[0]) - v.mean()))
    for _ in range(STEPS):
        p = _projection(1 / (v + tau2), x)
        py = p @ y
        step = float((py @ py - np.trace(p)) / (p * p).sum())
        before, new = likelihood(tau2), max(0.0, tau2 + step)
        for _ in range(HALVINGS):
            if likelihood(new) >= before:
                break
            new = (tau2 + new) / 2
        if abs(new - tau2) <= 1e-9 * (tau2 + v.mean()):
            return new
        tau2 = new
    return tau2


def _share_between(v: np.ndarray, x: np.ndarray, tau2: float) -> float:
    """I^2: tau2 beside the typical variance of a study (Higgins and Thompson 2002; their s^2, with covariates)."""
    k, p = x.shape
    return 0.0 if k == p else tau2 / (tau2 + (k - p) / float(np.trace(_projection(1 / v, x))))
