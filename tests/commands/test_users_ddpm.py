"""A diffusion model of a user's own runs from the command line by its dotted path."""

from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pytest
import torch
from running import TINY, Outcome

from lit_generative import GenerativeModule
from lit_generative.diffusion import (
    ClassifierFree,
    CosineSchedule,
    DPMSolverPP2M,
    KarrasSpacing,
    LearnedVariance,
    LossAwareTimes,
    MinSNRWeight,
    NoisePrediction,
    VelocityPrediction,
)

CONFIG = """
model:
  class_path: my_ddpms.{name}
  init_args:
    schedule: CosineSchedule
    sampler: {{class_path: DDIM, init_args: {{steps: 2, thresholding: StaticThresholding}}}}
    network: {{class_path: UNet, init_args: {{widths: [8], blocks: 1, attention: [], groups: 4, patch: 4}}}}
"""
OPTIONS = """
model:
  init_args:
    prediction: VelocityPrediction
    weight: {class_path: MinSNRWeight, init_args: {gamma: 4.0}}
    times: {class_path: LossAwareTimes, init_args: {num_bins: 10}}
    variance: {class_path: LearnedVariance, init_args: {num_steps: 100}}
    sampler:
      class_path: DPMSolverPP2M
      init_args: {steps: 3, spacing: KarrasSpacing, thresholding: DynamicThresholding, eta: 1.0}
    num_classes: 10
    guidance: {class_path: ClassifierFree, init_args: {scale: 2.0, interval: [0.2, 0.8], label_dropout: 0.2}}
    network: {init_args: {output_multiple: 2}}
    optimizer: {class_path: Adam, init_args: {lr: 1.0e-3}}
    lr_scheduler: {class_path: OneCycleLR, init_args: {max_lr: 1.0e-3}}
"""


@pytest.mark.parametrize("name", ["PerceptionWeighted", "InputPerturbed"])
def test_a_users_model_runs_by_its_dotted_path(
    lit_generative: Callable[..., Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    source = Path(__file__).parents[1] / "users_ddpms.py"
    Path("my_ddpms.py").write_text(source.read_text())
    Path("model.yaml").write_text(CONFIG.format(name=name))
    Path("options.yaml").write_text(OPTIONS)
    has_options = name == "PerceptionWeighted"
    more = ("--config", "options.yaml") if has_options else ()
    outcome = lit_generative("fit", "--config", "model.yaml", *more, *TINY)
    assert outcome.status == 0, outcome.err
    assert not outcome.err
    monkeypatch.syspath_prepend(tmp_path)
    model = GenerativeModule.load_from_checkpoint(outcome.folder / "checkpoints" / "last.ckpt")
    assert type(model) is getattr(import_module("my_ddpms"), name)
    assert model.images_seen == 400
    assert isinstance(model.schedule, CosineSchedule)
    y = torch.arange(3) if has_options else None
    assert model.sample(3, y, generator=torch.Generator().manual_seed(0)).shape == (3, 1, 28, 28)
    parts = (type(model.prediction), type(model.weight), type(model.variance), type(model.sampler.spacing))
    if not has_options:
        assert parts[:3] == (NoisePrediction, type(None), type(None))
        return
    assert parts == (VelocityPrediction, MinSNRWeight, LearnedVariance, KarrasSpacing)
    assert isinstance(model.times, LossAwareTimes)
    assert isinstance(model.sampler, DPMSolverPP2M)
    assert (len(model.times.counts), model.variance.num_steps, model.sampler.eta) == (10, 100, 1.0)
    assert isinstance(model.guidance, ClassifierFree)
    assert (model.guidance.scale, model.guidance.interval, model.guidance.label_dropout) == (2.0, (0.2, 0.8), 0.2)
