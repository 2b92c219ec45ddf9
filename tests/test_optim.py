"""Muon: against torch's own where that has a rule, and by what orthogonal updates are."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lit_generative.nn import UNet
from lit_generative.optim import Muon, hidden_and_others, orthogonalise


def spectrum(rows: int, columns: int, decades: float, seed: int = 0) -> Tensor:
    """A matrix whose singular values fall evenly over so many decades."""
    generator = torch.Generator().manual_seed(seed)
    u, _, v = torch.linalg.svd(torch.randn(rows, columns, generator=generator), full_matrices=False)
    return u @ torch.diag(torch.logspace(0, -decades, min(rows, columns))) @ v


@pytest.mark.parametrize("shape", [(16, 144), (144, 16), (32, 32), (1, 8)])
def test_singular_values_come_near_one_and_singular_vectors_stay(shape: tuple[int, int]) -> None:
    matrix = spectrum(*shape, decades=1)
    found = orthogonalise([matrix])[0]
    assert torch.linalg.svdvals(found).min() > 0.6
    assert torch.linalg.svdvals(found).max() < 1.3
    u, _, v = torch.linalg.svd(matrix, full_matrices=False)
    nearest = u @ v
    assert torch.cosine_similarity(found.flatten(), nearest.flatten(), dim=0) > 0.97


@pytest.mark.parametrize("shape", [(16, 16), (64, 64), (200, 200), (64, 128), (64, 576)])
def test_singular_values_are_what_is_said_of_them(shape: tuple[int, int]) -> None:
    """Random square matrices have singular values near 0, which five steps do not bring to 1."""
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    before, after = torch.linalg.svdvals(matrix) / matrix.norm(), torch.linalg.svdvals(orthogonalise([matrix])[0])
    is_large = before.sort().values >= 0.0015
    large, small = after.sort().values[is_large], after.sort().values[~is_large]
    assert large.min() > 0.675
    assert large.max() < 1.21
    assert (small <= 486 * 0.0015).all()
    shares = {(200, 200): 0.02, (64, 64): 0.02}
    assert len(small) / len(after) <= shares.get(shape, 0)


def test_the_smallest_singular_values_grow_485_fold() -> None:
    found = torch.linalg.svdvals(orthogonalise([torch.diag(torch.tensor([1.0, 1e-4, 1e-5]))])[0])
    assert found[1:].tolist() == pytest.approx([0.0485, 0.00485], rel=0.02)


@pytest.mark.parametrize("decades", [3.0, 6.0])
def test_small_singular_values_do_not_blow_up(decades: float) -> None:
    for found in orthogonalise([spectrum(64, 576, decades, seed) for seed in range(4)]):
        assert torch.linalg.svdvals(found).max() < 1.5


def test_a_zero_gradient_moves_nothing() -> None:
    assert orthogonalise([torch.zeros(4, 6)])[0].eq(0).all()


def test_it_is_the_newton_schulz_iteration_whatever_else_is_done_with_it() -> None:
    """Matrices of the same number of rows share their products, of any other shape too."""
    shapes = [(16, 40), (24, 16), (16, 16), (30, 3), (3, 30)]
    matrices = [spectrum(*shape, decades=2, seed=i) for i, shape in enumerate(shapes)]
    for found, matrix in zip(orthogonalise(matrices), matrices, strict=True):
        X = matrix.double() / matrix.norm()
        for _ in range(5):
            A = X @ X.mT if X.shape[0] <= X.shape[1] else X.mT @ X
            P = 3.4445 * torch.eye(len(A)) - 4.7750 * A + 2.0315 * A @ A
            X = P @ X if X.shape[0] <= X.shape[1] else X @ P
        torch.testing.assert_close(found.double(), X, atol=2e-4, rtol=0)


def test_matrices_move_as_under_torchs_muon() -> None:
    torch.manual_seed(0)
    ours, theirs = nn.Linear(24, 16, bias=False), nn.Linear(24, 16, bias=False)
    theirs.load_state_dict(ours.state_dict())
    options: dict[str, Any] = {"lr": 0.01, "momentum": 0.9, "weight_decay": 0.1}
    reference = torch.optim.Muon(theirs.parameters(), **options, adjust_lr_fn="match_rms_adamw")
    optimizer = Muon(ours.parameters(), **options)
    start = ours.weight.detach().clone()
    for _ in range(5):
        gradient = spectrum(16, 24, 0.5) + 0.1 * torch.randn(16, 24)
        ours.weight.grad, theirs.weight.grad = gradient.clone(), gradient.clone()
        optimizer.step()
        reference.step()
    # theirs computes in bfloat16
    difference = (ours.weight - theirs.weight).norm() / (theirs.weight - start).norm()
    assert difference < 0.06


def test_vectors_move_as_under_torchs_adam() -> None:
    torch.manual_seed(0)
    ours, theirs = (nn.Parameter(torch.ones(7)) for _ in range(2))
    optimizer = Muon([ours], lr=0.05, betas=(0.8, 0.95), weight_decay=0.3)
    reference = torch.optim.Adam([theirs], lr=0.05, betas=(0.8, 0.95))
    for _ in range(10):
        ours.grad = torch.randn(7)
        theirs.grad = ours.grad.clone()
        optimizer.step()
        reference.step()
    torch.testing.assert_close(ours, theirs)


def test_matrices_of_a_group_that_is_not_orthogonal_move_as_under_torchs_adamw() -> None:
    torch.manual_seed(0)
    ours, theirs, hidden = (nn.Parameter(torch.ones(7, 3)) for _ in range(3))
    groups = [{"params": [hidden]}, {"params": [ours], "orthogonal": False}]
    optimizer = Muon(groups, lr=0.05, betas=(0.8, 0.95), weight_decay=0.3)
    reference = torch.optim.AdamW([theirs], lr=0.05, betas=(0.8, 0.95), weight_decay=0.3)
    for _ in range(10):
        hidden.grad = ours.grad = torch.randn(7, 3)
        theirs.grad = ours.grad.clone()
        optimizer.step()
        reference.step()
    torch.testing.assert_close(ours, theirs)
    assert not torch.allclose(hidden, ours, atol=0.1)


def test_embeddings_and_named_layers_are_left_to_adam() -> None:
    network = UNet((1, 8, 8), widths=(8, 16), groups=4, num_classes=3)
    hidden, others = hidden_and_others(network, ("stem", "head"))
    left = {id(p) for p in (*network.stem.parameters(), *network.head.parameters(), *network.classes.parameters())}
    assert {id(p) for p in others["params"]} == left
    assert {id(p) for p in hidden["params"]} == {id(p) for p in network.parameters()} - left
    Muon([hidden, others])
    with pytest.raises(ValueError, match=r"others=\['tail'\]: there is no submodule 'tail'; it has .*stem"):
        hidden_and_others(network, ["tail"])


def test_a_convolution_is_the_matrix_of_its_outputs() -> None:
    torch.manual_seed(0)
    convolution = nn.Parameter(torch.randn(8, 4, 3, 3).to(memory_format=torch.channels_last))
    matrix = nn.Parameter(convolution.detach().flatten(1).clone())
    convolution.grad = torch.randn_like(convolution)
    matrix.grad = convolution.grad.flatten(1).clone()
    for parameter in (convolution, matrix):
        Muon([parameter], lr=0.1).step()
    torch.testing.assert_close(convolution.flatten(1), matrix)


def test_the_size_of_an_update_is_that_of_adam() -> None:
    torch.manual_seed(0)
    weights = [nn.Parameter(torch.zeros(rows, columns)) for rows, columns in ((64, 576), (256, 64), (64, 64))]
    for weight in weights:
        weight.grad = torch.randn_like(weight) * 1e-3
    Muon(weights, lr=1.0, momentum=0.0).step()
    for weight in weights:
        assert 0.12 < weight.square().mean().sqrt() < 0.25  # 0.2 if all singular values were 1


def test_a_state_that_was_saved_goes_on_as_the_unbroken_one() -> None:
    def network() -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(4 * 36, 3))

    def steps(model: nn.Module, optimizer: Muon, seeds: range) -> None:
        for seed in seeds:
            x = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(seed))
            optimizer.zero_grad()
            model(x).square().sum().backward()
            optimizer.step()

    whole, part = network(), network()
    optimizer, first = Muon(whole.parameters()), Muon(part.parameters())
    steps(whole, optimizer, range(6))
    steps(part, first, range(3))
    resumed = Muon(part.parameters())
    resumed.load_state_dict(first.state_dict())
    steps(part, resumed, range(3, 6))
    for a, b in zip(whole.parameters(), part.parameters(), strict=True):
        assert torch.equal(a, b)


def test_the_closure_is_called_with_gradients() -> None:
    weight = nn.Parameter(torch.ones(2, 2))
    optimizer = Muon([weight])

    def closure() -> Tensor:
        loss = weight.square().sum()
        loss.backward()
        return loss

    assert optimizer.step(closure) == 4
    assert weight.ne(1).any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lr": -1.0}, "lr=-1.0: it must be at least 0"),
        ({"momentum": 1.0}, r"momentum=1.0: it must be in \[0, 1\)"),
        ({"betas": (0.9, 1.5)}, r"betas\[1\]=1.5"),
    ],
)
def test_bad_arguments_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Muon([nn.Parameter(torch.ones(1))], **options)
