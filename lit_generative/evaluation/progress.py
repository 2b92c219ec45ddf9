"""The bar of what takes longer than a moment."""

from tqdm import tqdm

from lit_generative.processes import rank_and_world

__all__ = ["counter"]


def counter(description: str, total: int | None, progress: bool) -> tqdm:
    """A progress bar in images/s, for rank 0's share; it shows up if it takes longer than two seconds."""
    rank, world = rank_and_world()
    share = None if total is None else -(-total // world)
    return tqdm(desc=description, total=share, unit=" images", delay=2, leave=False, disable=not progress or rank > 0)
