"""The U-Net of diffusion models: any size, and an output to which time, class and every weight matter."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lit_generative.description import describe, rebuild
from lit_generative.nn import UNet, UNetConventions

SMALL: dict[str, Any] = {"widths": (8, 16), "blocks": 1, "groups": 4, "attention": (1,)}


def build(shape: tuple[int, int, int] = (1, 16, 16), awake: bool = True, **options: Any) -> UNet:
    """Build a small network; ``awake`` ones have no zeros any more that hide what is behind them."""
    torch.manual_seed(0)
    unet = UNet(shape, **(SMALL | options)).eval()
    if awake:
        for parameter in unet.parameters():
            if parameter.ndim > 1 and not parameter.any():
                nn.init.normal_(parameter, std=0.1)
    return unet


def given_to(unet: UNet, n: int = 3) -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    return torch.randn(n, *unet.image_shape), torch.linspace(0.1, 0.9, n)


def test_ho_et_al_s_number_of_parameters_by_default() -> None:
    with torch.device("meta"):
        unet = UNet((3, 32, 32))
    assert sum(parameter.numel() for parameter in unet.parameters()) == 35_746_307


@pytest.mark.parametrize("patch", [1, 2])
@pytest.mark.parametrize("size", [*[(n, n) for n in range(8, 65, 2)], (12, 20), (9, 13)], ids=str)
def test_images_of_any_size(size: tuple[int, int], patch: int) -> None:
    unet = build((3, *size), patch=patch, widths=(4, 4, 4, 8), attention=(3,))
    x, t = given_to(unet, n=2)
    with torch.no_grad():
        out = unet(x, t)
        alone = torch.cat([unet(x[i : i + 1], t[i : i + 1]) for i in range(2)])
    assert (out.shape, out.dtype) == (x.shape, torch.float32)
    assert torch.allclose(out, alone, atol=1e-5)  # an image depends on no other
    assert (out.flatten(2).std(2) > 1e-3).all()


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("patch", [1, 2])
def test_twice_the_channels_for_a_learned_variance(channels: int, patch: int) -> None:
    unet = build((channels, 10, 14), output_multiple=2, patch=patch)
    x, t = given_to(unet)
    assert unet(x, t).shape == (3, 2 * channels, 10, 14)


def test_the_output_is_zero_at_first() -> None:
    unet = build(awake=False)
    assert not unet(*given_to(unet)).any()


@pytest.mark.parametrize("bf16", [False, True], ids=["float32", "bf16"])
@pytest.mark.parametrize("patch", [1, 2])
def test_every_parameter_has_a_finite_gradient(bf16: bool, patch: int) -> None:
    unet = build((3, 14, 10), num_classes=2, patch=patch, dropout=0.1).train()
    x, t = given_to(unet)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
        unet(x, t, torch.tensor([0, 1, 2])).square().mean().backward()
    for name, parameter in unet.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().max() > 0, name


def test_bf16_is_close_to_float32() -> None:
    unet = build()
    x, t = given_to(unet)
    with torch.no_grad():
        exact = unet(x, t)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rounded = unet(x, t)
    assert rounded.dtype == torch.float32
    assert (rounded - exact).norm() < 0.02 * exact.norm()
    assert unet.to(torch.bfloat16)(x.to(torch.bfloat16), t).isfinite().all()


def test_the_layout_in_memory_does_not_matter() -> None:
    unet = build((3, 12, 12))
    x, t = given_to(unet)
    assert torch.allclose(unet(x, t), unet(x.to(memory_format=torch.channels_last), t), atol=1e-6)


def test_it_learns_an_image_by_heart() -> None:
    unet = build(awake=False, num_classes=2).train()
    x, t = given_to(unet)
    target, y = torch.randn_like(x), torch.tensor([0, 1, 2])
    optimizer = torch.optim.Adam(unet.parameters(), lr=1e-2)
    losses = []
    for _ in range(60):
        loss = (unet(x, t, y) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.2 * losses[0]


def test_time_and_class_matter() -> None:
    unet = build(num_classes=2)
    x = given_to(unet, 1)[0].expand(3, -1, -1, -1)
    t, y = torch.full((3,), 0.5), torch.tensor([0, 1, 2])
    with torch.no_grad():
        by_class = unet(x, t, y)
        by_time = unet(x, torch.tensor([0.001, 0.002, 1.0]), y[[0, 0, 0]])
    for outputs in (by_class, by_time):
        for i, j in ((0, 1), (0, 2), (1, 2)):
            assert (outputs[i] - outputs[j]).abs().max() > 1e-3


def test_attention_is_where_it_is_asked_for() -> None:
    def levels(unet: UNet) -> set[str]:
        return {name.rpartition(".attentions")[0] for name, _ in unet.named_parameters() if ".attention.qkv" in name}

    assert levels(build(attention=())) == {"mid"}
    assert levels(build(attention=(0,))) == {"mid", "down.0", "up.1"}
    assert {m.heads for m in build(attention=(0, 1), head_dim=4).modules() if hasattr(m, "heads")} == {2, 4}


def test_dropout_is_for_training() -> None:
    unet = build(dropout=0.5)
    x, t = given_to(unet)
    assert torch.equal(unet(x, t), unet(x, t))
    assert torch.equal(unet(x, t), build()(x, t))
    unet.train()
    assert not torch.equal(unet(x, t), unet(x, t))


def test_it_is_rebuilt_from_its_description() -> None:
    options = {"num_classes": 3, "patch": 2, "conventions": UNetConventions(norm_eps=1e-5, centred_halving=True)}
    unet = build((1, 12, 10), **options)
    again = rebuild(describe(unet)).eval()
    again.load_state_dict(unet.state_dict())
    x, t = given_to(unet)
    y = torch.tensor([0, 1, 3])
    assert torch.equal(unet(x, t, y), again(x, t, y))
    assert again.conventions == unet.conventions


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"widths": ()}, "widths=.* at least one level"),
        ({"widths": (8, 10)}, r"groups=4: widths=\[8, 10\] are not all multiples"),
        ({"attention": (2,)}, r"attention=\[2\]: the 2 levels"),
        ({"attention": (-1,)}, r"attention=\[-1\]"),
        ({"head_dim": 3}, "head_dim=3 does not divide 16 channels"),
        ({"blocks": 0}, "blocks=0: it must be at least 1"),
        ({"patch": 0}, "patch=0"),
        ({"output_multiple": 0}, "output_multiple=0"),
        ({"widths": (3,), "groups": 1, "attention": ()}, "frequencies=3: .* even"),
    ],
)
def test_what_cannot_be_built_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(**options)


def test_what_cannot_be_computed_is_refused() -> None:
    unet = build(num_classes=2)
    x, t = given_to(unet)
    with pytest.raises(ValueError, match="needs a label per image"):
        unet(x, t)
    with pytest.raises(ValueError, match=r"t is torch.int64: .* \(i \+ 1\) / 1000"):
        unet(x, torch.tensor([1, 2, 3]))
    with pytest.raises(ValueError, match=r"shape \(\): give one time per image, here \(3,\)"):
        unet(x, torch.tensor(0.5))
