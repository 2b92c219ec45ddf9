"""Which images make which batch, on how many processes soever."""

import itertools

import numpy as np
import pytest

from lit_generative.data import samplers
from lit_generative.data.samplers import SequentialBatches, ShuffledBatches

SIZES = [1, 2, 3, 7, 8, 9, 16, 17, 31, 64]


def indices(sampler):
    return [picks.index for picks in sampler]


@pytest.fixture
def by_rank(monkeypatch):
    """Make a sampler in each of some processes."""

    def make(world, cls, *args, **options):
        made = []
        for rank in range(world):
            monkeypatch.setattr(samplers, "rank_and_world", lambda rank=rank: (rank, world))
            made.append(cls(*args, **options))
        return made

    return make


@pytest.mark.parametrize("batch_size", [1, 4, 8])
@pytest.mark.parametrize("world", [1, 2, 3])
def test_evaluation_sees_each_image_once_in_equally_many_batches(by_rank, batch_size, world):
    for n in SIZES:
        ranks = list(map(indices, by_rank(world, SequentialBatches, np.arange(n), batch_size)))
        assert len({len(batches) for batches in ranks}) == 1
        assert sorted(np.concatenate(list(itertools.chain(*ranks))).tolist()) == list(range(n))
        if n >= world:
            assert all(len(batch) for batches in ranks for batch in batches)
        assert all(len(batch) <= batch_size + 1 for batches in ranks for batch in batches)


def test_one_process_gets_the_usual_batches():
    batches = indices(SequentialBatches(np.arange(10), 4))
    assert [batch.tolist() for batch in batches] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


@pytest.mark.parametrize("world", [2, 3])
def test_ranks_together_train_on_the_batches_of_one_process(by_rank, world):
    one = indices(ShuffledBatches(50, 4 * world, seed=3))
    ranks = list(map(indices, by_rank(world, ShuffledBatches, 50, 4, seed=3)))
    for whole, *parts in zip(one, *ranks, strict=True):
        assert {len(part) for part in parts} == {4}
        assert sorted(np.concatenate(parts).tolist()) == sorted(whole.tolist())


def test_mirroring_does_not_depend_on_the_number_of_processes(by_rank):
    def mirrored(world):
        made = by_rank(world, ShuffledBatches, 48, 12 // world, mirror=True)
        return {i for sampler in made for p in sampler for i in p.index[p.mirrored].tolist()}

    assert mirrored(1) == mirrored(3)
    assert 8 < len(mirrored(1)) < 40


def test_training_drops_the_remainder_but_never_everything():
    assert sum(map(len, indices(ShuffledBatches(50, 16)))) == 48
    assert [len(batch) for batch in indices(ShuffledBatches(5, 16))] == [5]


def test_order_is_decided_by_seed_and_epoch():
    def order(seed, epoch):
        sampler = ShuffledBatches(100, 10, seed=seed)
        sampler.set_epoch(epoch)
        return np.concatenate(indices(sampler)).tolist()

    assert order(0, 1) == order(0, 1)
    assert len({tuple(order(*key)) for key in [(0, 0), (0, 1), (1, 0), (1, 1)]}) == 4
    assert sorted(order(0, 0)) == list(range(100))
