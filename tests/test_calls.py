"""A network of a user's own that is written otherwise than it is called is one sentence, before the first step."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Independent, Normal

from lit_generative import DDPM, GAN, VAE, GenerativeModule, ImageDataModule
from lit_generative.cli import main
from lit_generative.gan import RelativisticLoss
from lit_generative.vae import DiscretizedLogisticMixtureLikelihood, GaussianLikelihood


def module(forward: Callable[..., Any], *layers: nn.Module) -> nn.Module:
    """Make a network of layers whose forward is a function of these and its arguments."""

    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList([*layers, nn.Linear(1, 1)])

    Own.forward = forward  # type: ignore[method-assign]
    return Own()


def normal(x: Tensor, size: int = 4) -> Independent:
    return Independent(Normal(x.new_zeros(len(x), size), 1), 1)


def right_encoder(self: Any, x: Tensor, y: Tensor | None) -> Independent:
    return Independent(Normal(x.flatten(1)[:, :4] * self.layers[-1].weight, 1), 1)


def right_decoder(self: Any, z: Tensor, y: Tensor | None) -> Tensor:
    return (z.sum(1) * self.layers[-1].weight[0]).view(-1, 1, 1, 1).expand(-1, 1, 28, 28)


def right_discriminator(self: Any, x: Tensor, y: Tensor | None) -> Tensor:
    return x.mean((1, 2, 3)) * self.layers[-1].weight[0]


def vae(encoder: Callable = right_encoder, decoder: Callable = right_decoder, **options: Any) -> VAE:
    return VAE(module(encoder), module(decoder), options.pop("likelihood", GaussianLikelihood()), 4, **options)


def gan(generator: Callable = right_decoder, discriminator: Callable = right_discriminator) -> GAN:
    return GAN(module(generator), module(discriminator), RelativisticLoss(), 4)


def ddpm(network: Callable, *layers: nn.Module) -> DDPM:
    return DDPM(module(network, *layers), (1, 28, 28))


WRONG = {
    "an encoder without y": (
        lambda: vae(lambda self, x: normal(x)),
        r"encoder: Own is called as forward\(x, y\), with x \(2, 1, 28, 28\), y None, but is written as forward\(x\): "
        "too many positional arguments",
    ),
    "an encoder that returns moments": (
        lambda: vae(lambda self, x, y: (x.new_zeros(len(x), 4), x.new_ones(len(x), 4))),
        r"encoder: Own returns a tuple, but forward\(x, y\) must return a distribution over z",
    ),
    "an encoder of another size": (
        lambda: vae(lambda self, x, y: normal(x, 8)),
        r"encoder: Own returns \(2, 8\), but forward\(x, y\) must return a distribution over z",
    ),
    "an encoder of three arguments": (
        lambda: vae(lambda self, x, y, t: normal(x)),
        r"encoder: .* is written as forward\(x, y, t\): missing a required argument: 't'",
    ),
    "a decoder without y": (
        lambda: vae(decoder=lambda self, z: z),
        r"decoder: Own is called as forward\(z, y\), with z \(2, 4\), y None, but",
    ),
    "a decoder of flat images": (
        lambda: vae(decoder=lambda self, z, y: z.new_zeros(len(z), 784)),
        r"decoder: Own returns \(2, 784\), but .* a tensor, the likelihood's parameters, .*\(2, 1, 28, 28\)",
    ),
    "a decoder of too few channels for its likelihood": (
        lambda: vae(likelihood=DiscretizedLogisticMixtureLikelihood()),
        r"decoder: Own returns \(2, 1, 28, 28\), but .*parameters, \(B, channels, H, W\), \(2, \d\d+, 28, 28\)",
    ),
    "a generator without y": (lambda: gan(lambda self, z: z), r"generator: Own is called as forward\(z, y\)"),
    "a generator of larger images": (
        lambda: gan(lambda self, z, y: z.new_zeros(len(z), 1, 32, 32)),
        r"generator: Own returns \(2, 1, 32, 32\), but .* images, \(B, C, H, W\), \(2, 1, 28, 28\)",
    ),
    "a generator of lists": (lambda: gan(lambda self, z, y: [z]), "generator: Own returns a list"),
    "a discriminator without y": (
        lambda: gan(discriminator=lambda self, x: x.mean((1, 2, 3))),
        r"discriminator: Own is called as forward\(x, y\)",
    ),
    "a discriminator of a column": (
        lambda: gan(discriminator=lambda self, x, y: x.mean((2, 3))),
        r"discriminator: Own returns \(2, 1\), but .* a tensor, a logit an image, \(B,\), \(2,\)",
    ),
    "a network without t and y": (
        lambda: ddpm(lambda self, x_t: x_t),
        r"network: Own is called as forward\(x_t, t, y\), with x_t \(2, 1, 28, 28\), t \(2,\), y None",
    ),
    "a network without y": (lambda: ddpm(lambda self, x_t, t: x_t), r"is written as forward\(x_t, t\)"),
    "a network that returns a pair": (
        lambda: ddpm(lambda self, x_t, t, y: (x_t, None)),
        "network: Own returns a tuple",
    ),
    "a network of three channels": (
        lambda: ddpm(lambda self, x_t, t, y: self.layers[0](x_t), nn.Conv2d(3, 3, 3)),
        r"network: Own fails on forward\(x_t, t, y\), with .*, in test_calls.py, line .* to have 3 channels, but got 1",
    ),
    "a network that needs labels": (
        lambda: ddpm(lambda self, x_t, t, y: x_t * y.view(-1, 1, 1, 1)),
        r"network: Own fails on .*y None, in test_calls.py, line \d+: 'NoneType' object has no attribute 'view'",
    ),
}


@pytest.mark.parametrize(("make", "message"), WRONG.values(), ids=WRONG)
def test_a_network_that_is_written_otherwise_is_one_sentence(
    make: Callable[[], GenerativeModule], message: str, make_trainer: Callable[..., L.Trainer]
) -> None:
    model = make()
    trainer = make_trainer(max_steps=1, limit_val_batches=1)
    with pytest.raises(ValueError, match=message) as caught:
        trainer.fit(model, ImageDataModule(subset=20, batch_size=10))
    assert "\n" not in str(caught.value)
    assert trainer.global_step == 0


def test_sanity_checking_says_it_too(make_trainer: Callable[..., L.Trainer]) -> None:
    trainer = make_trainer(max_steps=1, num_sanity_val_steps=2)
    with pytest.raises(ValueError, match=r"network: Own is called as forward"):
        trainer.fit(ddpm(lambda self, x: x), ImageDataModule(subset=20, batch_size=10))


@pytest.mark.parametrize(
    "make",
    [
        lambda: vae(),
        lambda: gan(),
        lambda: vae(num_classes=10),
        lambda: ddpm(lambda self, *args, **kwargs: args[0] * self.layers[-1].weight[0]),
        lambda: ddpm(lambda self, x, time, label=None, extra=1: x * self.layers[-1].weight[0]),
    ],
)
def test_names_and_defaults_are_free(make: Callable[[], GenerativeModule], make_trainer: Callable) -> None:
    trainer = make_trainer(max_steps=1, limit_val_batches=0)
    trainer.fit(make(), ImageDataModule(subset=20, batch_size=10))
    assert trainer.global_step == 1


class OnlyImages(VAE):
    """A VAE that calls its encoder by itself."""

    def encode(self, x: Tensor, y: Tensor | None = None) -> Independent:
        return self.encoder(x)


def test_a_hook_of_ones_own_may_call_its_network_otherwise(make_trainer: Callable[..., L.Trainer]) -> None:
    encoder, decoder = module(lambda self, x: normal(x)), module(right_decoder)
    trainer = make_trainer(max_steps=1, limit_val_batches=0)
    trainer.fit(OnlyImages(encoder, decoder, GaussianLikelihood(), 4), ImageDataModule(subset=20, batch_size=10))
    assert trainer.global_step == 1


def test_the_trial_leaves_no_trace(
    make_gan: Callable[..., GAN], make_trainer: Callable[..., L.Trainer], monkeypatch: pytest.MonkeyPatch
) -> None:
    def weights() -> dict[str, Tensor]:
        model = make_gan(convolutions=True)  # batch and spectral normalisation have states
        trainer = make_trainer(max_steps=2, limit_val_batches=0)
        L.seed_everything(0, verbose=False)
        trainer.fit(model, ImageDataModule(subset=20, batch_size=10))
        assert model.training or not trainer.interrupted
        return model.state_dict()

    tried = weights()
    monkeypatch.setattr(GAN, "network_calls", lambda *_: [])
    untried = weights()
    assert all(torch.equal(tried[name], untried[name]) for name in untried)


def test_what_a_network_raises_itself_is_left_alone(make_trainer: Callable[..., L.Trainer]) -> None:
    def forward(self: Any, x: Tensor, t: Tensor, y: Tensor | None) -> Tensor:
        raise KeyError("no such style")

    with pytest.raises(KeyError, match="no such style"):
        make_trainer(max_steps=1).fit(ddpm(forward), ImageDataModule(subset=20, batch_size=10))


def test_at_the_command_line_there_is_no_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nets_of_mine.py").write_text(
        "from torch import nn\n\n\nclass Tower(nn.Module):\n    def __init__(self, image_shape):\n"
        "        super().__init__()\n        self.layer = nn.Conv2d(1, 1, 3, padding=1)\n\n"
        "    def forward(self, x):\n        return self.layer(x)\n"
    )
    options = ["--model", "DDPM", "--model.network", "nets_of_mine.Tower", "--data.subset", "50", "--max_epochs", "1"]
    assert main(["fit", *options, "--trainer.enable_progress_bar", "false"]) == 1
    error = capsys.readouterr().err
    *_, last = error.splitlines()
    assert last.startswith("lit-generative: error: network: Tower is called as forward(x_t, t, y)")
    assert "Traceback" not in error


@pytest.mark.parametrize(
    ("model", "calls"),
    [
        ("VAE", ["forward(x, y)", "forward(z, y)"]),
        ("GAN", ["forward(z, y)", "forward(x, y)"]),
        ("DDPM", ["forward(x_t, t, y)"]),
    ],
)
def test_the_help_says_how_networks_are_called(model: str, calls: list[str], capsys: pytest.CaptureFixture) -> None:
    assert main(["fit", "--model.help", model]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert all(call in printed for call in calls)
