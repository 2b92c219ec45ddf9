"""How long a training is, as the command line says it: minutes, images, epochs or steps, and not two of these."""

from collections.abc import Sequence

from lit_generative.training.parser import take_option

__all__ = ["one_length"]

BUDGETS = {"--budget.minutes": "--minutes", "--budget.images": "--images"}
OTHERS = {"--trainer.max_epochs": "--epochs"} | {name: name for name in ("--trainer.max_steps", "--trainer.max_time")}
UNLIMITED = ("null", "None", "-1", "")
VALIDATIONS = ("--trainer.check_val_every_n_epoch", "--trainer.val_check_interval")
EVALUATIONS = ("--evaluate.every_n_epochs", "--evaluate.every_n_images")


def one_length(arguments: Sequence[str]) -> list[str]:
    """Return the options of ``fit`` with one length of the training: that of the command line, not of a recipe.

    Where validations or evaluations are asked for by options of their own, a budget leaves them alone.

    Raises:
        ValueError: If the command line has two lengths, one of which is in minutes or images.
    """
    result, settled = list(arguments), []
    if result and result[-1] in ("--config", "-c"):  # its value is missing, which the parser says
        return result
    given = {option: value for option in (*BUDGETS, *OTHERS) if (value := _given(result, option))}
    budgets = [option for option in given if option in BUDGETS]
    if budgets and len(given) > 1:
        named = [f"{(BUDGETS | OTHERS)[option]} {value}" for option, value in given.items()]
        raise ValueError(f"{' and '.join(named)}: a training has one length; give one of them")
    if given:
        settled += [f"{option}=null" for option in BUDGETS if option not in given]
    if any(_given(result, option) for option in VALIDATIONS):
        settled.append("--budget.validations=null")
    if any(_given(result, option) for option in EVALUATIONS):
        settled.append("--budget.evaluations=null")
    return [*result, *settled]


def _given(arguments: list[str], option: str) -> str | None:
    value = take_option(arguments, option)
    return None if value in UNLIMITED else value
