"""As many classes as the data have: what ``num_classes: 0`` of a recipe stands for."""

from typing import Any

import lightning as L
from lightning.pytorch.cli import LightningArgumentParser

__all__ = ["fill_in_classes"]


def fill_in_classes(model: Any, data: Any) -> None:
    """Replace ``num_classes: 0`` of a model's configuration, and of its networks', by the data's number, in place.

    Args:
        model: The configuration, as jsonargparse has parsed it.
        data: That of the data module, which is made, and opened, only if there is anything to replace.

    Raises:
        ValueError: If the data have no classes.
    """
    arguments = model.get("init_args")
    if arguments is None or arguments.get("num_classes") != 0:
        return
    parser = LightningArgumentParser()
    parser.add_subclass_arguments(L.LightningDataModule, "data")
    module = parser.instantiate_classes(parser.parse_object({"data": data})).data
    count = module.num_classes
    if not count:
        raise ValueError(
            f"model.num_classes=0 stands for as many as the data have, but {getattr(module, 'name', 'the data')} has "
            "no classes: give images in a folder for each class, or take a model without classes, such as the recipe "
            "without -conditional"
        )
    _replace(arguments, int(count))


def _replace(arguments: Any, count: int) -> None:
    for name, value in list(arguments.items(branches=True)):
        if name.rpartition(".")[2] == "num_classes" and value == 0:
            arguments[name] = count
