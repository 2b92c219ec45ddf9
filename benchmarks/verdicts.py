"""How often the verdicts of `GANHealth` are wrong: on scripted courses of training, and on short real runs.

    python benchmarks/verdicts.py            # scripted, seconds
    python benchmarks/verdicts.py --real 5   # five seeds of four short games as well, some minutes each

A course is 100 checks and some evaluations up to 200,000 training images, whose numbers are drawn about a trend with
the noise that checks of 64 images and evaluations have. What is asked: is the illness said at the end, and was anything
else said on the way?
"""

import argparse
import json
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lit_generative.cli import main
from lit_generative.gan.verdict import History, reach_verdict

CHECKS, IMAGES, MODES = 100, 200_000, 8
FLOOR, SPREAD = 0.2, 0.02
Draw = np.random.Generator
Numbers = dict[str, float]


@dataclass
class Course:
    """A training as its signs show it: functions of the share of it that is over, which draw their own noise."""

    check: Callable[[float], Numbers]
    evaluation: Callable[[float], Numbers] | None = None
    has_boundary: bool = True
    floor: float = FLOOR
    spread: float = SPREAD


def check(draw: Draw, **changes: float) -> Numbers:
    """A look at a game in balance, with other means for some signs."""
    means = {"real_accuracy": 0.7, "fake_accuracy": 0.75, "held_out_accuracy": 0.66, "diversity": 0.95, "reach": 0.95}
    means |= {"logit_gap": 2.0, "logit_magnitude": 10.0, "generator_gradient": 0.6} | changes
    noisy = {name: mean * np.exp(0.1 * draw.standard_normal()) for name, mean in means.items()}
    for name in ("real_accuracy", "fake_accuracy", "held_out_accuracy"):
        noisy[name] = draw.binomial(64, min(means[name], 1.0)) / 64
    return {name: float(value) for name, value in noisy.items()}


def evaluation(draw: Draw, distance: float, reach: float = 0.8, precision: float = 0.8, missing: float = 0) -> Numbers:
    """Metrics about given means; distances fluctuate by a tenth, as those of healthy runs do."""
    distance *= np.exp(0.1 * draw.standard_normal())
    recall, coverage = (float(np.clip(reach + 0.02 * draw.standard_normal(), 0, 1)) for _ in range(2))
    return {
        "frechet_distance": distance,
        "recall": recall,
        "coverage": coverage,
        "precision": precision,
        "missing_classes": missing,
    }


def falling(share: float, start: float = 20.0, end: float = 2.0) -> float:
    """A distance as trainings lower it."""
    return end + (start - end) * np.exp(-8 * share)


def perfect(draw: Draw) -> Course:
    """A generator of the ring that has arrived: its distances are the floor's, and their ratios chance."""

    def measured(share: float) -> Numbers:
        found = evaluation(draw, 1.0, reach=0.95)
        return found | {"frechet_distance": float(0.003 * draw.gamma(2.0) / 2)}

    return Course(lambda share: check(draw), measured, floor=0.003, spread=0.002)


def learning(draw: Draw) -> Course:
    return Course(lambda share: check(draw), lambda share: evaluation(draw, falling(share)))


def slow(draw: Draw) -> Course:
    """Nothing of the data at first, all of them at last."""
    start, length = draw.uniform(0, 0.3), draw.uniform(0.3, 0.6)

    def level(share: float) -> float:
        return float(np.clip((share - start) / length, 0.02, 1.0))

    def looked(share: float) -> Numbers:
        variety = 0.12 + 0.8 * level(share)
        return check(draw, diversity=variety, reach=variety, fake_accuracy=1 - 0.25 * level(share))

    def measured(share: float) -> Numbers:
        at = level(share)
        return evaluation(draw, 60 - 55 * at, reach=0.9 * at, precision=0.1 + 0.7 * at, missing=round(MODES * (1 - at)))

    return Course(looked, measured)


def converging(draw: Draw, has_boundary: bool) -> Course:
    """The discriminator is right, less and less so; the gradient falls to a hundredth as the gap closes."""

    def looked(share: float) -> Numbers:
        gap, gradient = 10 * np.exp(-4 * share), np.exp(-5 * share)
        sure = {"real_accuracy": 0.99, "fake_accuracy": 0.99, "held_out_accuracy": 0.97}
        return check(draw, generator_gradient=gradient, logit_gap=gap, **sure)

    return Course(looked, lambda share: evaluation(draw, falling(share)), has_boundary)


def critic(draw: Draw) -> Course:
    return converging(draw, has_boundary=False)


def closing(draw: Draw) -> Course:
    return converging(draw, has_boundary=True)


def diverging(draw: Draw) -> Course:
    """Well until some point, then three and a half to twelve times as bad as at its best."""
    turn, factor = draw.uniform(0.3, 0.6), draw.uniform(3.5, 12)

    def measured(share: float) -> Numbers:
        bad = np.clip((share - turn) / 0.15, 0, 1)
        return evaluation(draw, falling(min(share, turn)) * (1 + (factor - 1) * bad), reach=0.6 - 0.4 * bad)

    return Course(lambda share: check(draw), measured)


def collapsing(draw: Draw, variety: float, reach: float, *, is_evaluated: bool, from_the_start: bool = False) -> Course:
    turn = 0.0 if from_the_start else draw.uniform(0.3, 0.7)

    def looked(share: float) -> Numbers:
        return check(draw, diversity=variety, reach=reach) if share > turn else check(draw)

    def measured(share: float) -> Numbers:
        if share <= turn:
            return evaluation(draw, falling(share))
        return evaluation(draw, falling(turn) * 2.5, reach=0.03, precision=0.7, missing=round(MODES * (1 - reach)))

    return Course(looked, measured if is_evaluated else None)


def one_mode(draw: Draw) -> Course:
    return collapsing(draw, 0.1, 0.05, is_evaluated=True)


def one_mode_unseen(draw: Draw) -> Course:
    return collapsing(draw, 0.1, 0.05, is_evaluated=False)


def two_far_modes(draw: Draw) -> Course:
    return collapsing(draw, draw.uniform(0.7, 1.0), 0.3, is_evaluated=False)


def from_the_start(draw: Draw) -> Course:
    return collapsing(draw, 0.1, 0.05, is_evaluated=False, from_the_start=True)


def vanishing(draw: Draw) -> Course:
    """The discriminator becomes sure, the gradient falls, the gap widens."""
    speed = draw.uniform(8, 20)

    def looked(share: float) -> Numbers:
        gap, gradient = 2 + 18 * share, max(np.exp(-speed * share), 0.004)
        sure = {"real_accuracy": 1.0, "fake_accuracy": 1.0, "held_out_accuracy": 0.98}
        return check(draw, generator_gradient=gradient, logit_gap=gap, **sure)

    return Course(looked)


def overfitting(draw: Draw) -> Course:
    """Held-out images are taken for generated ones more and more."""
    end = draw.uniform(0.35, 0.5)
    return Course(
        lambda share: check(draw, real_accuracy=0.7 + 0.25 * share, held_out_accuracy=0.66 - (0.66 - end) * share),
        lambda share: evaluation(draw, falling(share)),
    )


COURSES: dict[str, tuple[Callable[[Draw], Course], str]] = {
    "perfect generator of the ring": (perfect, "healthy"),
    "learns, distances fluctuate by 10 %": (learning, "healthy"),
    "slow starter": (slow, "healthy"),
    "critic that is always right, gap closes": (critic, "healthy"),
    "the same, of a loss with a boundary": (closing, "healthy"),
    "distance rises 3.5 to 12 times": (diverging, "diverged"),
    "collapse onto one mode": (one_mode, "mode collapse"),
    "the same, without evaluations": (one_mode_unseen, "mode collapse"),
    "collapse onto two far modes, without evaluations": (two_far_modes, "mode collapse"),
    "one mode from the start, without evaluations": (from_the_start, "mode collapse"),
    "gradients vanish": (vanishing, "vanishing gradients"),
    "discriminator overfits": (overfitting, "discriminator overfits"),
}


def verdicts(course: Course, evaluations: int) -> Iterator[str]:
    """Yield the verdict after each check and each evaluation, the last one at the end."""
    history = History()
    due = {round(CHECKS * (i + 1) / evaluations) for i in range(evaluations)}
    for i in range(1, CHECKS + 1):
        images = IMAGES * i // CHECKS
        history.add_check(course.check(i / CHECKS))
        if i in due and course.evaluation is not None:
            classes = {"histogram": dict.fromkeys(map(str, range(MODES)), 1)}
            history.add_evaluation(images, course.evaluation(i / CHECKS), classes, course.floor, course.spread)
        yield reach_verdict(history.signs(images, has_boundary=course.has_boundary)).name


def scripted(evaluations: int, count: int) -> list[tuple[str, str, float, float, int]]:
    """Return for each kind of course: name, right verdict, shares of misses and of false alarms, the most in a row.

    A miss is another verdict at the end; a false alarm one that is neither the right one nor healthy, at any time.
    """
    rows = []
    for name, (make, expected) in COURSES.items():
        missed, alarmed, longest = 0, 0, 0
        for seed in range(count):
            said = list(verdicts(make(np.random.default_rng(seed)), evaluations))
            wrong = [verdict not in ("healthy", expected) for verdict in said]
            missed += said[-1] != expected
            alarmed += any(wrong)
            runs = "".join("x" if one else " " for one in wrong).split()
            longest = max([longest, *map(len, runs)])
        rows.append((name, expected, missed / count, alarmed / count, longest))
    return rows


# Steps, so that collapse is judged: 192,000 images of the ring, and 64,000 and 192,000 of Fashion-MNIST
REAL = {"gan/ring": 1500, "gan/fashion": 4000, "gan/ring-minimax": 1500, "gan/collapse": 1500}


def real(recipes: list[str], seeds: int) -> Iterator[tuple[str, int, dict[str, int]]]:
    """Train each of some recipes with several seeds, shortly, and count the verdicts at the end."""
    for recipe in recipes:
        found: dict[str, int] = {}
        for seed in range(seeds):
            with tempfile.TemporaryDirectory() as folder:
                length = ["--trainer.max_steps", str(REAL[recipe]), "--trainer.enable_progress_bar", "false"]
                where = ["--trainer.default_root_dir", folder, "--seed_everything", str(seed)]
                command = ["fit", "--config", recipe, *length, *where]
                if main(command):
                    raise SystemExit(f"{recipe}, seed {seed}, failed")
                (record,) = Path(folder).rglob("evaluation.json")
                verdict = json.loads(record.read_text())[-1]["health"]["verdict"]
                found[verdict] = found.get(verdict, 0) + 1
        yield recipe, sum(found.values()), found


def print_tables() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--courses", type=int, default=50, help="courses of each kind")
    parser.add_argument("--real", type=int, default=0, help="seeds of short real runs; 0: none")
    parser.add_argument("--recipes", nargs="+", choices=[*REAL], default=[*REAL], help="of the real runs")
    arguments = parser.parse_args()
    by_number = {n: scripted(n, arguments.courses) for n in (4, 12)}
    print("| course | right verdict | missed at the end | other alarms on the way | the most in a row |")
    print("|---|---|---|---|---|")
    for few, many in zip(*by_number.values(), strict=True):
        cells = [f"{a:.0%} / {b:.0%}" for a, b in zip(few[2:4], many[2:4], strict=True)]
        print(f"| {few[0]} | {few[1]} | {cells[0]} | {cells[1]} | {few[4]} / {many[4]} |")
    for recipe, runs, found in real(arguments.recipes, arguments.real):
        print(f"{recipe}: {runs} runs, {found}", flush=True)


if __name__ == "__main__":
    print_tables()
