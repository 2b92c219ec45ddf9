"""Compiling a part of a model for its training."""

import lightning as L

__all__ = ["Compile"]


class Compile(L.Callback):
    """Compiles a part of the model with torch.compile for ``fit``, which takes a minute at first.

    It is compiled in place: its weights keep their names, and checkpoints are the same with and without.

    Args:
        part: The submodule to compile, for instance "network" or "generator".

    Raises:
        ValueError: If the model has no such part.
    """

    def __init__(self, part: str = "network") -> None:
        self.part = part

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Compile it."""
        if stage != "fit":
            return
        try:
            module = pl_module.get_submodule(self.part)
        except AttributeError:
            parts = ", ".join(name for name, _ in pl_module.named_children())
            raise ValueError(f"part={self.part!r}: the model has no such submodule; it has {parts}") from None
        module.compile()
