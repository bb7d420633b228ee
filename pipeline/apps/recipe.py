"""`python -m pipeline recipe`: settings and networks that belong together, each run as one DVC experiment."""

import json
import re
import shlex
import signal
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from cnn.registry import unknown
from pipeline.apps.run import check_git, check_network, dvc, git, known_images, print_summary, repair_dvc
from pipeline.apps.runs import flat
from pipeline.apps.terminal import make_table, open_console, print_table
from pipeline.config.architectures import build_chosen
from pipeline.config.params import Params, validate
from pipeline.config.sections import Section
from pipeline.config.yaml_files import parse_mapping, read_mapping
from pipeline.errors import StoppedError, UserError
from pipeline.paths import PARAMS, RECIPES

WORD = r"(?!(?:true|false|null|nan|inf)$)[a-zA-Z_][\w./-]*"  # text that DVC's -S takes without quotes


def _says_what_is_trained(params: dict[str, Any]) -> dict[str, Any]:
    found = dict(flat(params))
    for key in ("data.dataset", "model.architecture"):
        if key not in found:
            raise ValueError(f"{key} is missing; a recipe says which network it trains, and on what.")
    return params


class Recipe(Section):
    """A recipe in recipes.yaml."""

    title: str = Field(min_length=1, description="what it is for, in a few words")
    params: Annotated[dict[str, Any], AfterValidator(_says_what_is_trained)] = Field(
        description="the keys of params.yaml that it changes, with their values"
    )
    accuracy: str | None = Field(default=None, description="the measured test accuracy, as a text")
    time: str | None = Field(default=None, description="the measured time of training, as a text")


def list_recipes() -> None:
    """Print all recipes, with the size of their networks and, if measured, accuracy and time."""
    check_git()
    table = make_table("Recipes", "recipe", "dataset", "parameters", "test accuracy", "time")
    for name in read_mapping(RECIPES):
        recipe = load_recipe(str(name))
        params = validate(Params, combine(recipe, []), f"{RECIPES}: {name}")
        check_network(params)
        count = f"{_count_parameters(params):,}"
        title = f"{name}: {recipe.title}"
        table.add_row(title, params.data.dataset, count, recipe.accuracy or "", recipe.time or "")
    console = open_console()
    print_table(console, table)
    console.print(f"To train by one: python -m pipeline recipe NAME. {RECIPES} explains them.")


def run_recipe(name: str, settings: Sequence[str]) -> None:
    """Run the recipe as a DVC experiment, with `settings`, each KEY=VALUE, on top; summarise the result."""
    changed = settings_of(name, settings)
    repair_dvc()
    command = ["exp", "run", *_options(changed)]
    named = {*dict(flat(load_recipe(name).params)), *(setting.partition("=")[0] for setting in settings)}
    keys = [setting.partition("=")[0].lstrip("+") for setting in changed]
    if back := [key for key in keys if key not in named]:
        print(f"Set back to the last commit's value: {', '.join(back)}")
    print(f"{shlex.join(['dvc', *command])}\n", flush=True)
    try:
        code = dvc(*command)
    except KeyboardInterrupt:
        again = shlex.join(["python", "-m", "pipeline", "recipe", name, *_options(settings)])
        raise StoppedError(f"Stopped. To continue: {again}", signal.SIGINT) from None
    if code != 0:
        raise UserError("The pipeline stopped; the reason is above.")
    print_summary()


def settings_of(name: str, settings: Sequence[str]) -> list[str]:
    """What turns params.yaml into the recipe with `settings` on top, for `dvc exp run -S`; checked."""
    check_git()
    wanted = combine(load_recipe(name), settings)
    source = " ".join([f"{RECIPES}: {name}", *_options(settings)])
    check_network(validate(Params, wanted, source))
    now = read_mapping(PARAMS)
    validate(Params, overlay(now, wanted), str(PARAMS))  # it may hold keys that are not known
    return _for_dvc(changes(now, wanted), now)


def load_recipe(name: str) -> Recipe:
    """The recipe of this name; UserError if there is none, or if it is not written as a recipe."""
    recipes = {str(name): content for name, content in read_mapping(RECIPES).items()}
    if name not in recipes:
        raise UserError(f"{unknown('recipe', name, recipes)} They are in {RECIPES}.")
    return validate(Recipe, recipes[name], f"{RECIPES}: {name}")


def combine(recipe: Recipe, settings: Sequence[str]) -> dict[str, Any]:
    """The params of the last commit, changed by the recipe and then by `settings`; not yet checked.

    It is the last commit because DVC leaves what an experiment changed in params.yaml, where the next recipe
    would mix with it.
    """
    params = overlay(parse_mapping(git("show", f"HEAD:./{PARAMS}"), str(PARAMS)), recipe.params)
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals:
            raise UserError(f"-S takes KEY=VALUE, such as train.epochs=3; received {setting!r}.")
        value = parse_mapping(f"value: {text}", f"-S {setting}")["value"]
        for part in reversed(key.split(".")):
            value = {part: value}
        params = overlay(params, value)
    return params


def overlay(base: Mapping[str, Any], changed: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with the values of `changed` in place of its own, section by section."""
    result = dict(base)
    for key, value in changed.items():
        both = isinstance(value, dict) and isinstance(result.get(key), dict)
        result[key] = overlay(result[key], value) if both else value
    return result


def changes(now: Mapping[str, Any], wanted: Mapping[str, Any]) -> dict[str, Any]:
    """The values by key, as in "train.epochs", of those that are not in `now` as `wanted`."""
    found = dict(flat(now))
    return {key: value for key, value in flat(wanted) if key not in found or found[key] != value}


def _options(settings: Sequence[str]) -> list[str]:
    return [part for setting in settings for part in ("-S", setting)]


def _for_dvc(changed: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """The settings of `dvc exp run -S` that change these values; ++ also adds what is not there."""
    found = dict(flat(now))
    return [
        f"{'' if key in found else '++'}{key}={in_hydras_grammar(value)}" for key, value in changed.items()
    ]


def in_hydras_grammar(value: Any) -> str:
    """The value as `dvc exp run -S` takes it after KEY=."""
    if isinstance(value, dict):  # its keys must not be quoted
        return f"{{{', '.join(f'{key}: {in_hydras_grammar(item)}' for key, item in value.items())}}}"
    if isinstance(value, list):
        return f"[{', '.join(map(in_hydras_grammar, value))}]"
    if isinstance(value, str) and re.fullmatch(WORD, value, re.IGNORECASE):
        return value
    return json.dumps(value, ensure_ascii=False)


def _count_parameters(params: Params) -> int:
    model, _ = build_chosen(params, *known_images(params.data))
    return model.count_parameters()
