"""``recipes``: what ships, at once: nothing here needs torch, whose import takes seconds."""

import argparse
import itertools
import re
import shutil
import sys
from typing import NoReturn

from lit_generative.recipes import Recipe, resolve
from lit_generative.recipes import recipes as shipped_recipes

__all__ = ["recipes"]


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Print one sentence and exit with status 2."""
        words = message.replace("unrecognized arguments:", "unknown option")
        print(f"lit-generative: error: {words}; recipes takes a family, a recipe or nothing", file=sys.stderr)
        sys.exit(2)


def recipes(arguments: list[str]) -> None:
    """List the recipes that ship, a line each; of one, print the whole file.

    Raises:
        FileNotFoundError: If what is asked for is neither a family nor a recipe.
    """
    parser = _Parser("lit-generative recipes", description="List the recipes that ship, or print one.")
    parser.add_argument("name", nargs="?", metavar="NAME", help="A family, such as vae, or a recipe, such as vae/mlp.")
    name = parser.parse_args(arguments).name
    groups = itertools.groupby(shipped_recipes(), key=lambda recipe: recipe.name.partition("/")[0])
    by_family = {family: list(group) for family, group in groups}
    if name is None:
        _list(by_family)
        print("\nThe time is that of fit on 2 CPU cores, where it was measured.")
        print("`lit-generative recipes NAME` prints a recipe, `lit-generative fit --config NAME` runs it.")
    elif name in by_family:
        _list({name: by_family[name]})
    else:
        print(resolve(name, "recipes").read_text(), end="")


def _list(by_family: dict[str, list[Recipe]]) -> None:
    """Print a line a recipe, cut off where the terminal ends: its name, what it was measured to take, what it is."""
    columns = shutil.get_terminal_size((160, 24)).columns
    width = max(len(recipe.name) for group in by_family.values() for recipe in group)
    for family, group in by_family.items():
        print(f"{family}:")
        for recipe in group:
            time = re.search(r"[\d.]+ (?:s|min|h)\b", recipe.cost)
            line = f"  {recipe.name:{width}}  {time[0] if time else '':>7}  {recipe.summary}"
            print(line if len(line) <= columns else line[: columns - 3] + "...")
