"""Guidance by the network of another checkpoint."""

from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from torch import nn

from lit_generative import DDPM, VAE, GenerativeModule
from lit_generative.checkpoints import pack
from lit_generative.diffusion import DDIM, CheckpointGuidance, CosineSchedule, VelocityPrediction
from lit_generative.nn import UNet


def model(widths: tuple[int, ...] = (8, 16), seed: int = 0, num_classes: int | None = None, **options: Any) -> DDPM:
    torch.manual_seed(seed)
    network = UNet((1, 8, 8), widths, 1, (), groups=4, num_classes=num_classes)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.1)
    parts = {"schedule": CosineSchedule(), "prediction": VelocityPrediction(), "sampler": DDIM(4)} | options
    return DDPM(network, (1, 8, 8), num_classes=num_classes, **parts)


def saved(found: GenerativeModule, path: Path) -> str:
    checkpoint: dict[str, Any] = {"state_dict": found.state_dict(), "pytorch-lightning_version": L.__version__}
    pack(checkpoint, found)
    torch.save(checkpoint, path)
    return str(path)


@pytest.fixture
def guide(tmp_path: Path) -> str:
    small = model((8,), seed=1)
    small.images_seen = 1234
    return saved(small, tmp_path / "guide.ckpt")


def test_samples_go_away_from_the_smaller_network_s_estimate(guide: str) -> None:
    guided = model(guidance=CheckpointGuidance(guide, 2.5)).eval()
    small = GenerativeModule.load_from_checkpoint(guide).eval()
    x_t, t = torch.randn(3, 1, 8, 8), torch.tensor([0.2, 0.5, 0.9])
    with torch.no_grad():
        own, worse = guided.denoise(x_t, t).x0, small.denoise(x_t, t).x0
        torch.testing.assert_close(guided.denoiser()(x_t, t).x0, worse + 2.5 * (own - worse))
    assert guided.network_evaluations == 2 * 4
    assert guided.sampling["guide"] == "UNet after 1,234 images"
    assert all(not parameter.requires_grad for parameter in guided.guidance.parameters())


def test_a_checkpoint_of_the_guided_model_needs_the_guide_s_file_no_more(guide: str, tmp_path: Path) -> None:
    guided = model(guidance=CheckpointGuidance(guide, 2.5)).eval()
    path = saved(guided, tmp_path / "guided.ckpt")
    Path(guide).unlink()
    again = GenerativeModule.load_from_checkpoint(path).eval()
    samples = [m.sample(3, generator=torch.Generator().manual_seed(0)) for m in (guided, again)]
    assert torch.equal(*samples)
    assert again.sampling == guided.sampling


def test_a_guide_without_classes_guides_a_model_with_them(guide: str) -> None:
    guided = model(num_classes=3, guidance=CheckpointGuidance(guide, 2.0)).eval()
    assert guided.sample(3, torch.tensor([0, 1, 2])).shape == (3, 1, 8, 8)


def test_what_cannot_guide_is_refused_in_a_sentence(guide: str, tmp_path: Path, make_vae: Any) -> None:
    with pytest.raises(FileNotFoundError, match="there is no such file"):
        CheckpointGuidance(str(tmp_path / "no.ckpt"), 2.0)
    with pytest.raises(ValueError, match=r"guide='.*vae.ckpt' is a VAE; take the checkpoint of a diffusion model"):
        CheckpointGuidance(saved(make_vae(VAE), tmp_path / "vae.ckpt"), 2.0)
    for options, name in (({"schedule": CosineSchedule(0.02)}, "schedule"), ({"prediction": None}, "prediction")):
        with pytest.raises(ValueError, match=f"guide: it was trained with {name}="):
            model(guidance=CheckpointGuidance(guide, 2.0), **options)
    labelled = saved(model(num_classes=5), tmp_path / "labelled.ckpt")
    with pytest.raises(ValueError, match="num_classes=5, but the model 3; make them equal"):
        model(num_classes=3, guidance=CheckpointGuidance(labelled, 2.0))
