"""`make bench-calibrators`: every calibrator on every problem, and whether Auto holds.

Prints win rates in NLL and Brier score and the bars of Auto; exits with 1 if one of
them does not hold. probmetrics takes part where it is installed.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from benchmarks.calibrator_problems import Problem, problems

from core.calibrators import CALIBRATORS
from core.consensus import consensus
from core.softmax import softmax

Array = np.ndarray[Any, Any]
Predict = Callable[[Problem], Array]

AUTO, SAFE, RAW = "auto", "temperature", "uncalibrated"
THEIRS = "probmetrics logistic"
_FREE = "auto, free"
_TINY = 1e-15


def say(text: str) -> None:
    """Print a line at once."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def ours(method: str, **options: Any) -> Predict:
    """Return what fits one of ours and predicts the new rows."""

    def predict(problem: Problem) -> Array:
        made = CALIBRATORS[method](**options).fit(problem.z_fit, problem.y_fit)
        return np.asarray(made.predict_proba(problem.z_new))

    return predict


def theirs(make: Callable[[], Any]) -> Predict:
    """Return what fits one of probmetrics on probabilities."""

    def predict(problem: Problem) -> Array:
        made = make().fit(softmax(problem.z_fit), problem.y_fit)
        return np.asarray(made.predict_proba(softmax(problem.z_new)), np.float64)

    return predict


def contestants(names: Sequence[str]) -> dict[str, Predict]:
    """Return everyone that takes part, by name."""
    found: dict[str, Predict] = {
        method.id: ours(method.id)
        for method in CALIBRATORS.values()
        if method.requires == {"logits"} and (not names or method.id in names)
    }
    found[_FREE] = ours(AUTO, keep_predictions=False)
    try:
        from probmetrics import calibrators as peers
    except ImportError:
        say("probmetrics is not installed: the bar against it is not measured.")
        return found
    found[THEIRS] = theirs(lambda: peers.get_calibrator("logistic"))
    found["probmetrics quadratic/sms"] = theirs(peers.LogisticCalibrator)
    return found


def losses(problem: Problem, p: Array) -> tuple[Array, Array, Array]:
    """Return NLL and Brier score of each new row, and the NLL of its label.

    The first two are expected values where the truth is known.
    """
    p = np.clip(p, _TINY, 1.0)
    squares = (p**2).sum(axis=1)
    own = p[np.arange(len(p)), problem.y_new]
    if problem.truth is None:
        return -np.log(own), 1.0 - 2.0 * own + squares, -np.log(own)
    nll = -(problem.truth * np.log(p)).sum(axis=1)
    brier = 1.0 - 2.0 * (problem.truth * p).sum(axis=1) + squares
    return nll, brier, -np.log(own)


class Results:
    """What everyone came to on every problem.

    Parameters
    ----------
    names : sequence of str
        Of those that take part.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.titles: list[str] = []
        self.nll: dict[str, list[Array]] = {name: [] for name in names}
        self.brier: dict[str, list[Array]] = {name: [] for name in names}
        self.labelled: dict[str, list[Array]] = {name: [] for name in names}
        self.seconds = dict.fromkeys(names, 0.0)


def measure(names: Sequence[str], wanted: str) -> Results:
    """Fit everyone on every problem."""
    everyone = contestants(names)
    found = Results(list(everyone))
    for problem in problems():
        if wanted not in problem.name:
            continue
        found.titles.append(problem.name)
        for name, predict in everyone.items():
            start = time.perf_counter()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                p = predict(problem)
            found.seconds[name] += time.perf_counter() - start
            nll, brier, labelled = losses(problem, p)
            found.nll[name].append(nll)
            found.brier[name].append(brier)
            found.labelled[name].append(labelled)
        means = {name: float(rows[-1].mean()) for name, rows in found.nll.items()}
        best = min(means, key=lambda name: means[name])
        figures = "  ".join(
            f"{name} {means[name]:.4f}"
            for name in (RAW, SAFE, AUTO, _FREE, THEIRS)
            if name in means
        )
        say(f"{problem.name:<44} {figures}  best: {best}")
    return found


def win_rates(losses_of: dict[str, list[Array]]) -> dict[str, float]:
    """Return how often each one is ahead of another; ties count half."""
    means = np.array([[rows.mean() for rows in found] for found in losses_of.values()])
    ahead = means[:, None, :] < means[None, :, :]
    tied = means[:, None, :] == means[None, :, :]
    wins = ahead.sum(axis=(1, 2)) + (tied.sum(axis=(1, 2)) - means.shape[1]) / 2
    n_rivals = max(1, (len(means) - 1) * means.shape[1])
    return dict(zip(losses_of, wins / n_rivals, strict=True))


def report(found: Results) -> None:
    """Print a table of everyone, and the order that agrees best with all problems."""
    by_nll, by_brier = win_rates(found.nll), win_rates(found.brier)
    means = {name: [r.mean() for r in rows] for name, rows in found.nll.items()}
    agreed = consensus(list(means), list(means.values()))
    head = ("wins, NLL", "wins, Brier", "Auto wins", "mean NLL", "mean rank", "seconds")
    say(f"\n{len(found.titles)} problems, in the order of Kemeny's consensus by NLL")
    say(f"{'Method':<32}" + "".join(f"{cell:>13}" for cell in head))
    for name in agreed.order:
        pairs = zip(means[AUTO], means[name], strict=True)
        ahead = np.mean([(a < b) + (a == b) / 2 for a, b in pairs])
        say(
            f"{name:<32}{by_nll[name]:>13.3f}{by_brier[name]:>13.3f}{ahead:>13.3f}"
            f"{np.mean(means[name]):>13.4f}{agreed.mean_rank[name]:>13.2f}"
            f"{found.seconds[name]:>13.1f}"
        )


def bars(found: Results, auto: str) -> bool:
    """Print whether Auto keeps what it promises; return whether it does.

    Differences are expected values where the truth is known, so that no luck of
    labels counts; their standard errors are those of labelled rows.
    """
    is_kept = True
    say(f"\n{auto}")
    if THEIRS in found.nll:
        own, other = (
            float(np.mean([rows.mean() for rows in found.nll[name]]))
            for name in (auto, THEIRS)
        )
        is_right = own <= 1.001 * other
        is_kept &= is_right
        say(
            f"  mean NLL {own:.5f}, {THEIRS} {other:.5f}: "
            f"{100 * (own / other - 1):+.3f} % (at most +0.1 %): {_verdict(is_right)}"
        )
    for rival, most in ((SAFE, 2), (RAW, 0)):
        worse = []
        for place, title in enumerate(found.titles):
            step = float((found.nll[auto][place] - found.nll[rival][place]).mean())
            rows = found.labelled[auto][place] - found.labelled[rival][place]
            error = float(rows.std(ddof=1)) / np.sqrt(rows.size)
            if step > 2 * error and step > 1e-12:
                worse.append(f"{title} ({step:+.5f}, SE {error:.5f})")
        is_right = len(worse) <= most
        is_kept &= is_right
        say(
            f"  worse than {rival} by more than 2 paired SE on {len(worse)} of "
            f"{len(found.titles)} (at most {most}): {_verdict(is_right)}"
        )
        for line in worse:
            say(f"    {line}")
    return is_kept


def _verdict(is_right: bool) -> str:
    return "holds" if is_right else "DOES NOT HOLD"


def main() -> int:
    """Run the whole benchmark; 1 if a bar of Auto does not hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--methods", default="", help="ids, separated by commas")
    parser.add_argument("--problems", default="", help="part of their names")
    args = parser.parse_args()
    names = [name for name in args.methods.split(",") if name]
    if names:
        names = list(dict.fromkeys([RAW, SAFE, AUTO, *names]))
    found = measure(names, args.problems)
    report(found)
    is_kept = bars(found, AUTO)
    bars(found, _FREE)
    return 0 if is_kept else 1


if __name__ == "__main__":
    sys.exit(main())
