"""Models that are told images are compared with the very images that these are of, beside a baseline."""

import pytest
import torch
from torch import Tensor

from lit_generative import Evaluator, GenerativeModule, ImageDataModule
from lit_generative.evaluation.restoration import psnr
from lit_generative.nn import LowResolutionCondition
from lit_generative.sampling import sampling_mode


class Echo(GenerativeModule):
    """Returns what it is told, a little darker if asked."""

    def __init__(self, darker: float = 0.0) -> None:
        super().__init__(condition=LowResolutionCondition(4))
        self.darker = darker

    @sampling_mode
    def sample(self, n: int, y: Tensor | None = None, *, generator: torch.Generator | None = None) -> Tensor:
        assert y is not None
        return y - self.darker


@pytest.mark.parametrize("num_samples", [60, 90])  # the latter is more than there are images to be told
def test_what_is_made_without_a_model_scores_as_the_baseline(num_samples: int) -> None:
    data = ImageDataModule(subset=100, batch_size=25)
    evaluator = Evaluator("random", num_samples=num_samples, num_real=60, batch_size=40)
    found = evaluator.evaluate(Echo(), data, progress=False).metrics
    assert found["psnr"] == pytest.approx(found["bicubic_psnr"], abs=1e-6)
    assert found["frechet_distance"] == pytest.approx(found["bicubic_frechet_distance"], rel=1e-6)
    assert found["kernel_distance"] == pytest.approx(found["bicubic_kernel_distance"], rel=1e-6)
    assert 15 < found["psnr"] < 35
    darker = evaluator.evaluate(Echo(0.3), data, progress=False).metrics
    assert darker["psnr"] < found["psnr"]
    assert darker["bicubic_psnr"] == found["bicubic_psnr"]


def test_psnr_is_that_of_its_definition() -> None:
    images = torch.zeros(2, 1, 4, 4)
    others = torch.stack([images[0] + 2 / 255, images[0]])
    assert psnr(images, others).tolist() == pytest.approx([48.1308, 100], abs=1e-3)
