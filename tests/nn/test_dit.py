"""The diffusion transformer: the paper's sizes, zero at first, and any size of image."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lit_generative.description import describe, rebuild
from lit_generative.nn import DiT


def build(shape: tuple[int, int, int] = (1, 12, 12), awake: bool = True, **options: Any) -> DiT:
    """Build a small network; ``awake`` ones have no zeros any more that hide what is behind them."""
    torch.manual_seed(0)
    dit = DiT(shape, **({"patch": 4, "dim": 16, "depth": 2, "heads": 2} | options)).eval()
    if awake:
        for parameter in dit.parameters():
            if not parameter.any():
                nn.init.normal_(parameter, std=0.1)
    return dit


def given_to(shape: tuple[int, int, int] = (1, 12, 12), n: int = 3) -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    return torch.randn(n, *shape), torch.linspace(0.1, 0.9, n)


@pytest.mark.parametrize(
    ("dim", "depth", "heads", "millions"),
    [(384, 12, 6, 33), (768, 12, 12, 130), (1024, 24, 16, 458), (1152, 28, 16, 675)],
)
def test_the_paper_s_numbers_of_parameters(dim: int, depth: int, heads: int, millions: int) -> None:
    with torch.device("meta"):  # latents of 4 channels, 1,000 classes of ImageNet, learned variance
        dit = DiT((4, 32, 32), 2, dim, depth, heads, num_classes=1000, output_multiple=2)
    assert round(sum(parameter.numel() for parameter in dit.parameters()) / 1e6) == millions


@pytest.mark.parametrize("size", [*[(n, n) for n in range(8, 65, 8)], (10, 10), (12, 20), (9, 13)], ids=str)
def test_images_of_any_size(size: tuple[int, int]) -> None:
    for channels, multiple in ((1, 1), (3, 2)):
        shape = (channels, *size)
        dit = build(shape, output_multiple=multiple)
        x, t = given_to(shape, n=2)
        with torch.no_grad():
            out = dit(x, t)
            alone = torch.cat([dit(x[i : i + 1], t[i : i + 1]) for i in range(2)])
        assert (out.shape, out.dtype) == ((2, multiple * channels, *size), torch.float32)
        assert torch.allclose(out, alone, atol=1e-5)  # an image depends on no other


def test_the_output_is_zero_and_every_block_the_identity_at_first() -> None:
    dit = build(awake=False)
    assert not dit(*given_to()).any()
    x, c = torch.randn(2, 9, 16), torch.randn(2, 16)
    assert all(torch.equal(block(x, c), x) for block in dit.transformer)


@pytest.mark.parametrize("bf16", [False, True], ids=["float32", "bf16"])
def test_every_parameter_has_a_finite_gradient(bf16: bool) -> None:
    dit = build(num_classes=2)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
        out = dit(*given_to(), torch.tensor([0, 1, 2]))
    out.square().mean().backward()
    for name, parameter in dit.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().max() > 0, name


def test_a_patch_comes_out_where_it_went_in() -> None:
    dit = build((3, 8, 12), dim=48)
    for block in dit.transformer:  # nothing but the way in and the way out
        nn.init.zeros_(block.modulation.weight)
        nn.init.zeros_(block.modulation.bias)
    x, t = given_to((3, 8, 12), n=1)
    changed = x.clone()
    changed[:, :, 4:8, 8:12] += 1
    difference = (dit(changed, t) - dit(x, t)).abs().amax((0, 1)) > 0
    expected = torch.zeros(8, 12, dtype=torch.bool)
    expected[4:8, 8:12] = True
    assert torch.equal(difference, expected)


def test_positions_matter_and_are_all_different() -> None:
    dit = build((1, 12, 20))
    assert torch.cdist(dit.positions, dit.positions).fill_diagonal_(1).min() > 0.1
    out = dit(torch.ones(1, 1, 12, 20), torch.tensor([0.5]))
    assert (out[..., :4, :4] - out[..., 4:8, :4]).abs().max() > 1e-3
    assert (out[..., :4, :4] - out[..., :4, 4:8]).abs().max() > 1e-3


def test_time_and_class_matter() -> None:
    dit = build(num_classes=2)
    x = given_to(n=1)[0].expand(3, -1, -1, -1)
    y = torch.tensor([0, 1, 2])
    by_class = dit(x, torch.full((3,), 0.5), y)
    by_time = dit(x, torch.tensor([0.001, 0.5, 1.0]), y[[0, 0, 0]])
    for outputs in (by_class, by_time):
        for i, j in ((0, 1), (0, 2), (1, 2)):
            assert (outputs[i] - outputs[j]).abs().max() > 1e-4


def test_it_learns_an_image_by_heart() -> None:
    dit = build(awake=False)
    x, t = given_to()
    target = torch.randn_like(x)
    optimizer = torch.optim.Adam(dit.parameters(), lr=1e-2)
    losses = []
    for _ in range(60):
        loss = (dit(x, t) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.2 * losses[0]


def test_it_is_rebuilt_from_its_description() -> None:
    dit = build((1, 10, 12), num_classes=3)
    again = rebuild(describe(dit))
    again.load_state_dict(dit.state_dict())
    x, t = given_to((1, 10, 12))
    y = torch.tensor([0, 1, 3])
    assert torch.equal(dit(x, t, y), again(x, t, y))
    assert "positions" not in dit.state_dict()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dim": 18}, "dim=18: .* multiple of 4"),
        ({"heads": 3}, "heads=3: 16 features are not shared evenly"),
        ({"heads": 0}, "heads=0"),
        ({"patch": 0}, "patch=0: it must be at least 1"),
        ({"depth": 0}, "depth=0"),
        ({"output_multiple": 0}, "output_multiple=0"),
    ],
)
def test_what_cannot_be_built_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(**options)


def test_what_cannot_be_computed_is_refused() -> None:
    dit = build(num_classes=2)
    x, t = given_to()
    y = torch.tensor([0, 1, 2])
    with pytest.raises(ValueError, match="needs a label per image"):
        dit(x, t)
    with pytest.raises(ValueError, match=r"t is torch\.int64"):
        dit(x, torch.tensor([1, 2, 3]), y)
    with pytest.raises(ValueError, match=r"x is of \(8, 12\) pixels, but image_shape says \(12, 12\)"):
        dit(x[:, :, :8], t, y)
