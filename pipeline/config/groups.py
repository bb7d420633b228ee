"""The optimisers of a run: what train.optimizer and train.groups of params.yaml mean for a network."""

from collections.abc import Iterable, Mapping

from cnn import Group, Parameter, ParameterGroups, Sequential, select_parameters
from cnn.registry import OPTIMIZERS, spec
from pipeline.config.params import Schedule, Train
from pipeline.errors import UserError

COLUMNS = ("parameters", "optimiser", "schedule", "epochs", "arrays", "numbers")


def make_optimizer(options: Train, model: Sequential) -> ParameterGroups:
    """A group for each item of train.groups, after one of all other parameters, each with its schedule.

    A parameter belongs to the first item that matches it. The schedule of parameters that are only trained at
    first ends with their training. UserError if the items do not fit the network.
    """
    groups: list[Group] = []
    taken: dict[str, Parameter] = {}
    for number, item in enumerate(options.groups):
        place = f"train.groups[{number}]"
        try:
            chosen = select_parameters(model, item.parameters, without=taken)
        except ValueError as error:
            raise UserError(f"{error}\nIn params.yaml: {place}.parameters.") from None
        taken |= chosen
        try:
            optimizer = (item.optimizer or options.optimizer).make(chosen, **item.changed)
        except ValueError as error:
            raise UserError(f"{error}\nIn params.yaml: {place}.") from None
        if item.weight_decay and all(parameter.value.ndim < 2 for parameter in chosen.values()):
            raise UserError(
                "weight_decay acts on parameters with two axes or more, such as kernels; received it for "
                f"{', '.join(chosen)}. Leave it out.\nIn params.yaml: {place}.weight_decay."
            )
        epochs = options.epochs if item.epochs is None else min(item.epochs, options.epochs)
        schedule = item.schedule or options.schedule
        groups.append(
            Group(optimizer, schedule.make(optimizer.learning_rate, epochs) if epochs else None, item.epochs)
        )
    rest = {name: parameter for name, parameter in model.parameters().items() if name not in taken}
    if rest:
        optimizer = options.optimizer.make(rest)
        schedule = options.schedule
        groups.insert(0, Group(optimizer, schedule.make(optimizer.learning_rate, options.epochs)))
    try:
        made = ParameterGroups(groups)
    except ValueError as error:
        raise UserError(f"{error}\nIn params.yaml: train.groups.") from None
    if made.main.epochs is not None and made.main.epochs < options.epochs:
        raise UserError(
            f"Something must be trained in each of the {options.epochs} epochs (train.epochs); the groups "
            f"end with epoch {made.main.epochs}.\nIn params.yaml: train.groups."
        )
    return made


def group_rows(options: Train, model: Sequential) -> list[tuple[str, ...]]:
    """What `make_optimizer` makes, a row of texts for each group; none if train.groups is empty."""
    if not options.groups:
        return []
    groups = make_optimizer(options, model)
    items = [", ".join(_listed(item.parameters)) for item in options.groups]
    schedules = [item.schedule or options.schedule for item in options.groups]
    if len(groups.groups) > len(items):
        items, schedules = ["all others", *items], [options.schedule, *schedules]
    rows: list[tuple[str, ...]] = []
    for patterns, schedule, group in zip(items, schedules, groups.groups, strict=True):
        described = spec(OPTIMIZERS, group.optimizer)
        known = {"learning_rate": group.optimizer.learning_rate}
        frozen = group.epochs == 0
        sizes = [parameter.value.size for parameter in group.optimizer.parameters.values()]
        rows.append(
            (
                patterns,
                "frozen" if frozen else _call(described.pop("type"), known | described),
                "" if frozen else _schedule_in_words(schedule),
                _epochs_in_words(group.epochs),
                f"{len(sizes):,}",
                f"{sum(sizes):,}",
            )
        )
    return rows


def group_table(rows: Iterable[tuple[str, ...]]) -> str:
    """The `group_rows` under their titles, as text."""
    lines = [COLUMNS, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(COLUMNS))]
    return "\n".join(
        "  ".join(f"{cell:{'<' if column < 4 else '>'}{widths[column]}}" for column, cell in enumerate(line))
        for line in lines
    )


def _listed(patterns: str | list[str]) -> list[str]:
    return [patterns] if isinstance(patterns, str) else patterns


def _epochs_in_words(epochs: int | None) -> str:
    if epochs is None:
        return "all"
    return "" if epochs == 0 else "the first" if epochs == 1 else f"the first {epochs}"


def _schedule_in_words(schedule: Schedule) -> str:
    warm_up = {"warm_up": schedule.warm_up} if schedule.warm_up else {}
    return _call(schedule.name, warm_up | schedule.options())


def _call(name: str, options: Mapping[str, object]) -> str:
    written = ", ".join(f"{key}={value}" for key, value in options.items())
    return f"{name}({written})" if written else name
