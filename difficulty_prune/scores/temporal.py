"""Scores of how an example's predictions change over time: TDDS, dynamic uncertainty and DUAL."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict, dataclass
from typing import Any, Final

import torch
from torch import Tensor

from ..ops.checks import check_temporal
from ..ops.layout import temporal_width
from ..ops.reference import dual_of_window, log_probabilities, spread

TEMPORAL: Final = ("tdds", "dyn_unc", "dual")
"""The scores of this file."""


@dataclass(frozen=True)
class TemporalOptions:
    """How TDDS, dynamic uncertainty and DUAL look at an example's presentations.

    Attributes:
        window: presentations that are looked at together, at least 3: two hold a single change, which cannot deviate
            from its own mean. An example that was presented less often has no score.
        decay: weight of the newest window in the moving average of TDDS, in (0, 1]; the others have none.

    Raises:
        ValueError: a window or a decay outside these.

    >>> TemporalOptions().bytes_per_example(("dyn_unc",), classes=10)
    48
    >>> TemporalOptions().bytes_per_example(("tdds", "dyn_unc"), classes=10)
    128
    """

    window: int = 10
    decay: float = 0.9

    def __post_init__(self) -> None:
        check_temporal(self.window, self.decay)

    @property
    def definition(self) -> dict[str, Any]:
        """The options that change the numbers: all."""
        return asdict(self)

    def bytes_per_example(self, names: Collection[str], classes: int) -> int:
        """Memory of one example: 4 (window + 2), or 4 (2 window + classes + 2) with "tdds"; 4 more for "dual"."""
        width = temporal_width(self.window, classes if "tdds" in names else None) + ("dual" in names)
        return width * torch.float32.itemsize


def tdds(logits: Tensor, window: int = 10, decay: float = 0.9) -> Tensor:
    """TDDS (Zhang et al. 2024, arXiv 2311.13613) of trajectories in memory.

    The change from one presentation to the next is `sum_c p_t |log p_t - log p_(t-1)|`. A window of presentations
    holds one change less; the score is the moving average over windows, the newest weighing `decay`, of the Euclidean
    norm of the changes' deviations from their mean. (The authors' script measures the first window at every step; here
    the window moves on, as the paper says.) A log-probability below -1e16, as of a class masked by -inf, counts as
    -1e16.

    Args:
        logits: [T, N, C] floating point, T presentations of N examples in order.
        window: presentations in a window, at least 3.
        decay: weight of the newest window, in (0, 1].

    Returns:
        [N] float32; NaN where T < window.

    Raises:
        TypeError, ValueError: wrong type, dtype, shape, window or decay, or logits without a softmax: NaN or +inf, or
            all -inf.

    >>> tdds(torch.zeros(4, 2, 3), window=3)
    tensor([0., 0.])
    """
    check_temporal(window, decay)
    _check_trajectory(logits, "logits", "[T, N, C]", 3)
    if logits.shape[2] == 0:
        raise ValueError(f"logits: got shape {tuple(logits.shape)}, expected at least one class")
    log_p = log_probabilities(logits)
    if log_p.isnan().any():
        raise ValueError(
            f"logits: got {int(log_p.isnan().any(2).sum())} presentations without a softmax, expected none with NaN or "
            "+inf or with all classes at -inf; did training diverge?"
        )
    changes = (log_p[1:].exp() * (log_p[1:] - log_p[:-1]).abs()).sum(2)
    if len(logits) < window:
        return changes.new_full(logits.shape[1:2], torch.nan)
    average = torch.zeros_like(changes[0])
    for deviation in spread(changes.unfold(0, window - 1, 1)):
        average = (1 - decay) * average + decay * deviation
    return average


def dyn_unc(p_label: Tensor, window: int = 10) -> Tensor:
    """Dynamic uncertainty (He et al. 2024, arXiv 2306.05175) of trajectories in memory.

    The mean over all T - window + 1 windows of the standard deviation (ddof 1) of the label's probability.

    Args:
        p_label: [T, N] floating point, the probability of the label at T presentations of N examples in order.
        window: presentations in a window, at least 3.

    Returns:
        [N] float32; NaN where T < window.

    Raises:
        TypeError, ValueError: wrong type, dtype, shape or window, or a value outside 0..1.

    >>> dyn_unc(torch.tensor([[0.5], [1.0], [0.0], [0.5]]), window=3)
    tensor([0.5000])
    """
    windows = _windows_of_p(p_label, window)
    if windows is None:
        return p_label.new_full(p_label.shape[1:], torch.nan, dtype=torch.float32)
    deviations: Tensor = spread(windows) / (window - 1) ** 0.5
    return deviations.mean(0)


def dual(p_label: Tensor, window: int = 10) -> Tensor:
    """DUAL, difficulty times uncertainty (Cho et al. 2025, arXiv 2502.06905), of trajectories in memory.

    The mean over all T - window + 1 windows of `(1 - m) s`, where m is the mean and s the standard deviation (ddof 1)
    of the label's probability in the window. It is meant for the first part of a training: its authors take 30 epochs
    of 200. (Their script has 10 s in place of s, which ranks alike.)

    Args:
        p_label: [T, N] floating point, the probability of the label at T presentations of N examples in order.
        window: presentations in a window, at least 3.

    Returns:
        [N] float32; NaN where T < window.

    Raises:
        TypeError, ValueError: as for `dyn_unc`.

    >>> dual(torch.tensor([[0.5], [1.0], [0.0], [0.5]]), window=3)
    tensor([0.2500])
    """
    windows = _windows_of_p(p_label, window)
    if windows is None:
        return p_label.new_full(p_label.shape[1:], torch.nan, dtype=torch.float32)
    return dual_of_window(windows).mean(0)


def _windows_of_p(p_label: Tensor, window: int) -> Tensor | None:
    """[T - window + 1, N, window] float32; None if there is none."""
    check_temporal(window, decay=1)
    _check_trajectory(p_label, "p_label", "[T, N]", 2)
    if not p_label.isfinite().all():
        raise ValueError(f"p_label: got {int((~p_label.isfinite()).sum())} values that are not finite, expected none")
    if p_label.numel() and not (p_label.min() >= 0 and p_label.max() <= 1):
        got = f"{p_label.min():g} to {p_label.max():g}"
        raise ValueError(f"p_label: got values from {got}, expected probabilities (the softmax of the logits)")
    return None if len(p_label) < window else p_label.float().unfold(0, window, 1)


def _check_trajectory(values: Tensor, name: str, shape: str, dims: int) -> None:
    if not isinstance(values, Tensor):
        raise TypeError(f"{name}: got {type(values).__name__}, expected a torch.Tensor")
    if not values.dtype.is_floating_point:
        raise TypeError(f"{name}: got {values.dtype}, expected a floating-point dtype")
    if values.dim() != dims:
        raise ValueError(f"{name}: got shape {tuple(values.shape)}, expected {shape}, presentations first")
