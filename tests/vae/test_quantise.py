"""Codebooks: nearest codes, moving averages, restarts, and gradients past the choice."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lit_generative.description import describe, rebuild
from lit_generative.vae.quantise import ROWS, Codebook, RotationTrick, StraightThrough, perplexity


def book(num_codes: int = 5, code_dim: int = 3, **options: Any) -> Codebook:
    torch.manual_seed(0)
    return Codebook(num_codes, code_dim, **options)


def features(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def test_the_nearest_code_is_chosen_and_looked_up() -> None:
    codebook, e = book().eval(), features(4, 3, 2, 6)
    quantised = codebook(e)
    distances = (e.movedim(1, 3)[..., None, :] - codebook.codes).norm(dim=-1)  # (4, 2, 6, 5)
    assert torch.equal(quantised.codes, distances.argmin(-1))
    assert len(quantised.codes.unique()) > 1
    torch.testing.assert_close(quantised.q, codebook.codes[quantised.codes].movedim(3, 1))
    assert torch.equal(codebook.lookup(quantised.codes), codebook.codes[quantised.codes].movedim(3, 1))
    expected = distances.amin(-1).square().sum((1, 2))
    torch.testing.assert_close(quantised.commitment, expected)


def test_many_features_are_compared_in_parts() -> None:
    codebook, e = book(), features(2 * ROWS + 3, 3)
    assert torch.equal(codebook.nearest(e), torch.cdist(e, codebook.codes).argmin(1))


def test_near_codes_are_told_apart_under_autocast() -> None:
    codebook = book(2, 1).eval()
    codebook.codes.copy_(torch.tensor([[1.0], [1.001]]))  # one number in bf16
    with torch.autocast("cpu", dtype=torch.bfloat16):
        quantised = codebook(torch.tensor([1.0, 1.001]).view(2, 1, 1, 1))
    assert quantised.codes.flatten().tolist() == [0, 1]
    assert quantised.q.dtype == torch.float32


def test_codes_are_the_moving_average_of_their_features() -> None:
    codebook = book(3, 2, decay=0.9, restart_below=0.0, estimator=StraightThrough())
    start = codebook.codes.clone()
    counts, sums = torch.zeros(3), torch.zeros(3, 2)
    for step in range(4):
        e = features(step + 7, 2)
        indices = torch.arange(len(e)) % 2  # code 2 is never used
        codebook.update(e, indices)
        for k in range(2):
            counts[k] = 0.9 * counts[k] + 0.1 * (indices == k).sum()
            sums[k] = 0.9 * sums[k] + 0.1 * e[indices == k].sum(0)
        torch.testing.assert_close(codebook.counts, counts)
        torch.testing.assert_close(codebook.codes[:2], sums[:2] / counts[:2, None])
        assert torch.equal(codebook.codes[2], start[2])


def test_codes_end_at_the_means_of_clusters() -> None:
    centres = torch.tensor([[-5.0, 0.0], [5.0, 1.0], [0.0, 7.0]])
    torch.manual_seed(0)
    codebook = Codebook(3, 2, decay=0.5)
    for _ in range(30):
        e = centres.repeat_interleave(20, 0)
        codebook((e + 0.1 * torch.randn_like(e)).T[None, :, None])
    found = torch.cdist(codebook.codes, centres)
    assert found.amin(0).max() < 0.1  # every centre has a code
    assert found.amin(1).max() < 0.1


def test_only_training_moves_the_codes() -> None:
    codebook, e = book(), features(4, 3, 2, 2)
    before = {name: value.clone() for name, value in codebook.state_dict().items()}
    codebook.eval()(e)
    assert all(torch.equal(value, before[name]) for name, value in codebook.state_dict().items())
    codebook.train()(e)
    assert not any(torch.equal(value, before[name]) for name, value in codebook.state_dict().items())


def test_an_unused_code_is_put_where_a_feature_is() -> None:
    codebook = book(4, 3, decay=0.9, restart_below=0.1)
    codebook.counts.fill_(10.0)
    codebook.codes[3] = 100.0  # out of reach
    codebook.sums.copy_(10 * codebook.codes)
    e = features(40, 3)  # 10 for each code: the mean count stays 10
    indices = codebook.nearest(e)
    for _ in range(21):
        codebook.update(e, indices)
    torch.testing.assert_close(codebook.codes[3], torch.full((3,), 100.0))
    assert codebook.counts[3] > 1 > 0.9 * codebook.counts[3]
    codebook.update(e, indices)
    assert (e == codebook.codes[3]).all(1).any()
    torch.testing.assert_close(codebook.counts[3], torch.tensor(10.0))
    torch.testing.assert_close(codebook.sums / codebook.counts[:, None], codebook.codes)
    assert 3 in codebook.nearest(e)


def test_codes_in_use_are_not_restarted() -> None:
    restarting, lasting = (book(4, 3, restart_below=share) for share in (0.03, 0.0))
    e = features(40, 3)
    for codebook in (restarting, lasting):
        codebook.update(e, torch.arange(40) % 4)
    assert torch.equal(restarting.codes, lasting.codes)


def test_the_first_batch_places_all_codes() -> None:
    codebook = Codebook(64, 8)
    codebook.codes.add_(50)  # no feature is near any
    e = features(2, 8, 10, 10)
    codebook(e)
    codes = codebook.eval()(e).codes
    assert len(codes.unique()) >= 63  # all but the one that was the nearest of all
    assert perplexity(codes, 64) > 40


def test_restarts_follow_the_seed() -> None:
    def restarted(seed: int) -> Tensor:
        codebook = book(8, 3)
        torch.manual_seed(seed)
        codebook.update(features(40, 3), torch.zeros(40, dtype=torch.long))
        return codebook.codes

    assert torch.equal(restarted(1), restarted(1))
    assert not torch.equal(restarted(1), restarted(2))
    assert len(restarted(1).unique(dim=0)) == 8


def test_fewer_features_than_codes_are_enough() -> None:
    codebook = Codebook(7, 2)
    codebook(features(1, 2, 1, 3))
    assert codebook.codes.isfinite().all()


def test_straight_through_is_the_identity_to_gradients() -> None:
    e, q, gradient = features(6, 4).requires_grad_(), features(12, 4)[6:], features(18, 4)[12:]
    out = StraightThrough()(e, q)
    torch.testing.assert_close(out, q)
    out.backward(gradient)
    assert e.grad is not None
    torch.testing.assert_close(e.grad, gradient)


def test_the_rotation_trick_rotates_and_stretches() -> None:
    e, q = features(6, 4).double(), features(12, 4)[6:].double()
    out = RotationTrick()(e, q)
    torch.testing.assert_close(out, q)
    for i in range(len(e)):
        jacobian: Any = torch.func.jacrev(lambda row, i=i: RotationTrick()(row[None], q[i : i + 1])[0])(e[i])
        rotation = jacobian * e[i].norm() / q[i].norm()
        torch.testing.assert_close(rotation @ rotation.T, torch.eye(4).double())
        torch.testing.assert_close(rotation.det(), torch.ones(()).double())
        torch.testing.assert_close(rotation @ (e[i] / e[i].norm()), q[i] / q[i].norm())
        # what is orthogonal to both e and q stays where it is
        plane = torch.linalg.qr(torch.stack([e[i], q[i]], dim=1)).Q
        other = features(4, 1).double()[:, 0]
        other = other - plane @ (plane.T @ other)
        torch.testing.assert_close(rotation @ other, other)


def test_the_rotation_trick_keeps_the_angle_between_gradient_and_code() -> None:
    e, q, gradient = (
        features(6, 4).double().requires_grad_(),
        features(12, 4)[6:].double(),
        features(18, 4)[12:].double(),
    )
    RotationTrick()(e, q).backward(gradient)
    assert e.grad is not None
    torch.testing.assert_close(nn.CosineSimilarity()(e.grad, e), nn.CosineSimilarity()(gradient, q))


@pytest.mark.parametrize("e", [[0.0, 0.0], [-1.0, 0.0], [1.0, 0.0]], ids=["zero", "opposite", "equal"])
def test_the_rotation_trick_is_finite_everywhere(e: list[float]) -> None:
    features = torch.tensor([e], requires_grad=True)
    out = RotationTrick()(features, torch.tensor([[1.0, 0.0]]))
    out.sum().backward()
    assert features.grad is not None
    assert out.isfinite().all()
    assert features.grad.isfinite().all()


def test_perplexity_of_known_counts() -> None:
    assert perplexity(torch.arange(8).view(2, 4), 8).item() == pytest.approx(8)
    assert perplexity(torch.arange(4).repeat(3), 100).item() == pytest.approx(4)
    assert perplexity(torch.full((5,), 7), 8).item() == pytest.approx(1)
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert perplexity(torch.tensor([[0, 0], [0, 3]]), 4).item() == pytest.approx(math.exp(entropy))


def test_a_codebook_is_rebuilt_from_its_description() -> None:
    codebook = book(6, 2, decay=0.5, restart_below=0.0, estimator=StraightThrough())
    again = rebuild(describe(codebook))
    again.load_state_dict(codebook.state_dict())
    assert isinstance(again.estimator, StraightThrough)
    for model in (codebook, again):
        model(features(3, 2, 2, 2))
    assert torch.equal(codebook.codes, again.codes)
    assert isinstance(Codebook().estimator, RotationTrick)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_codes": 0}, "num_codes=0: it must be at least 1"),
        ({"code_dim": 0}, "code_dim=0: it must be at least 1"),
        ({"decay": 1.0}, r"decay=1\.0: it must be in \[0, 1\)"),
        ({"restart_below": -0.1}, r"restart_below=-0\.1: it must be in \[0, 1\)"),
    ],
)
def test_what_is_no_codebook_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Codebook(**options)


def test_features_of_another_size_are_refused() -> None:
    with pytest.raises(ValueError, match="code_dim=3, but the encoder puts out 4 channels: make them equal"):
        book()(features(2, 4, 2, 2))
