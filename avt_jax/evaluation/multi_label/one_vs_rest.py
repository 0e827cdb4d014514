"""Logistic regressions of one class against the rest, of all classes at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from avt_jax.evaluation.multi_label.intervals import mean_average_precision

Score = Callable[[np.ndarray], np.ndarray]

# Of so many labels one fold says enough.
_MANY = 500_000


def fit(
    inputs_nd: np.ndarray,
    is_ny: np.ndarray,
    *,
    strength: float,
    max_iter: int = 100,
    tol: float = 1e-5,
) -> Score:
    """Fits a regression for each class.

    The classes do not know of each other, so their losses are added up and minimised together:
    a few hundred products of matrices take the place of as many fits as there are classes.

    Args:
      inputs_nd: [n, d] float.
      is_ny: [n, y] of 0 and 1.
      strength: of the data beside the regularisation, scikit-learn's C.
      max_iter: of L-BFGS.
      tol: of the largest gradient, each class's loss being divided by `strength` times n.

    Returns:
      [m, d] -> [m, y] float32 probabilities, of each class those of scikit-learn's
      `LogisticRegression(C=strength)`. A class that all or none of the clips have gets 1 or 0.
    """
    from scipy.optimize import minimize
    from scipy.special import expit

    target_ny = np.asarray(is_ny, np.float64)
    share_y = target_ny.mean(axis=0)
    varies_y = (share_y > 0) & (share_y < 1)
    target_ny = target_ny[:, varies_y]
    inputs_ne = np.append(np.asarray(inputs_nd, np.float64), np.ones((len(inputs_nd), 1)), axis=1)
    shape = (inputs_ne.shape[1], int(varies_y.sum()))
    weight_ey = np.zeros(shape)
    if shape[1]:
        # The constant starts at the share of the class and is not regularised.
        weight_ey[-1] = np.log(share_y[varies_y] / (1 - share_y[varies_y]))
        scale = strength * len(inputs_ne)

        def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
            now_ey = flat.reshape(shape)
            logit_ny = inputs_ne @ now_ey
            slopes_ey = now_ey.copy()
            slopes_ey[-1] = 0
            data = np.logaddexp(0, logit_ny).sum() - (target_ny * logit_ny).sum()
            gradient = strength * (inputs_ne.T @ (expit(logit_ny) - target_ny)) + slopes_ey
            return (strength * data + 0.5 * np.sum(slopes_ey**2)) / scale, gradient.ravel() / scale

        options = {"maxiter": max_iter, "gtol": tol, "ftol": 0.0}
        found = minimize(loss, weight_ey.ravel(), jac=True, method="L-BFGS-B", options=options)
        weight_ey = found.x.reshape(shape)

    def score(new_nd: np.ndarray) -> np.ndarray:
        made = np.tile(share_y.astype(np.float32), (len(new_nd), 1))
        made[:, varies_y] = expit(np.asarray(new_nd, np.float64) @ weight_ey[:-1] + weight_ey[-1])
        return made

    return score


def fit_best(
    inputs_nd: np.ndarray,
    is_ny: np.ndarray,
    group_n: np.ndarray,
    *,
    strengths: Sequence[float],
    folds: int,
) -> Score:
    """The same with that of several strengths whose mAP on left-out sources is highest.

    Args:
      inputs_nd, is_ny: as for `fit`.
      group_n: [n] equal = of the same source.
      strengths: to choose from; with fewer sources than `folds` the first.
      folds: of the cross-validation; of many clips and classes one is judged.
    """
    from sklearn.model_selection import GroupKFold

    best = strengths[0]
    if len(np.unique(group_n)) >= folds:
        parts = list(GroupKFold(folds).split(inputs_nd, groups=group_n))
        if is_ny.size > _MANY:
            parts = parts[:1]
        judged_n = np.concatenate([left_out_n for _, left_out_n in parts])

        def validated(strength: float) -> float:
            scores_ny = np.zeros(is_ny.shape, np.float32)
            for fit_n, left_out_n in parts:
                # Loosely: only the order of the strengths matters.
                trial = fit(
                    inputs_nd[fit_n], is_ny[fit_n], strength=strength, max_iter=20, tol=1e-4
                )
                scores_ny[left_out_n] = trial(inputs_nd[left_out_n])
            return mean_average_precision(scores_ny[judged_n], is_ny[judged_n]) or 0.0

        best = max(strengths, key=validated)
    return fit(inputs_nd, is_ny, strength=best)
