"""Settings: what a run trained, and which of its settings differ from the recipe.

Only the config is read, and the command in the environment. `method_names` names the
methods.
"""

import json
import re
from collections.abc import Iterable, Sequence
from typing import Any

from jaxsparse import config, old_names
from jaxsparse.reports.records import RunRecords

_DATASETS = {
    "mnist": "MNIST",
    "fashion_mnist": "Fashion-MNIST",
    "cifar10": "CIFAR-10",
    "cifar100": "CIFAR-100",
    "cinic10": "CINIC-10",
    "tiny_imagenet": "Tiny ImageNet",
    "imagenet2012": "ImageNet",
}
_NETWORKS = {
    "lenet": "LeNet",
    "resnet": "ResNet",
    "cifar": "CIFAR",
    "mobilenet": "MobileNet",
    "vgg": "VGG",
    "bn": "BN",
    "vit": "ViT",
    "wide": "Wide",
    "conv": "Conv",
}
_REGISTRIES = {registry.kind: registry for registry in config.REGISTRIES}
# Seeds and measurements change no method; columns and titles contain the other fields.
_NOT_IN_LABELS = (
    *("name", "replicates", "seeds", "evaluation", "analysis", "run", "instability"),
    *("data.name", "data.dir", "data.downsample", "model.name", "sparse.sparsity"),
    "lottery.levels",
)


def section(run: RunRecords, name: str) -> dict[str, Any]:
    """Returns a section of a run's config; {} if an older config lacks it.

    Args:
      run: records of a run.
      name: name of the section, such as "sparse".
    """
    return run.config.get(name) or {}


def registered(run: RunRecords, kind: str, name: str) -> dict[str, Any]:
    """Returns what is known of an entry of the registries that a run uses.

    The run's environment contains those that users registered, so that no code of
    theirs is executed here.

    Args:
      run: run whose environment is used for entries that are not registered here.
      kind: kind of the entry, such as "score" or "method".
      name: name of the entry in configs.

    Returns:
      Its `label` and, for scores and methods, its usual `distribution`; empty if the
      entry is unknown.
    """
    registry: Any = _REGISTRIES[kind]
    if name in registry:
        spec = registry[name]
        usual = getattr(spec, "distribution", "global")
        return {"label": spec.title, "distribution": usual}
    recorded = run.environment.get("registered") or {}
    return dict(recorded.get(kind, {}).get(name, {}))


def label(run: RunRecords, kind: str, name: str) -> str:
    """Returns the name of a score, method or other entry in reports.

    Args:
      run: run whose environment is used for entries that are not registered here.
      kind: kind of the entry, such as "score" or "method".
      name: name of the entry in configs; it is also the label of an unknown entry.
    """
    return str(registered(run, kind, name).get("label", name))


def dataset(run: RunRecords) -> str:
    """Returns the usual name of a run's dataset; "" if the config has none.

    Args:
      run: records of a run.

    Examples:
      >>> config = {"data": {"name": "cifar10", "downsample": 2}}
      >>> dataset(RunRecords("run", config, environment={}, records=[]))
      'CIFAR-10 (downsampled by 2)'
    """
    data = section(run, "data")
    name, factor = str(data.get("name", "")), data.get("downsample", 1)
    usual = _DATASETS.get(name) or label(run, "dataset", name)
    return f"{usual} (downsampled by {factor})" if factor > 1 else usual


def network(run: RunRecords) -> str:
    """Returns the usual name of a run's network; "" if the config has none.

    Args:
      run: records of a run.

    Examples:
      >>> config = {"model": {"name": "lenet_300_100"}}
      >>> network(RunRecords("run", config, environment={}, records=[]))
      'LeNet-300-100'
    """
    name = str(section(run, "model").get("name", ""))
    given = label(run, "model", name)
    if given != name:
        return given
    return "-".join(_NETWORKS.get(part, part) for part in name.split("_"))


def predicts_tokens(run: RunRecords) -> bool:
    """Returns whether a run's network predicts next tokens, and not classes.

    Args:
      run: records of a run.
    """
    spec = config.MODELS.get(section(run, "model").get("name", ""))
    return spec is not None and spec.predicts == "next_token"


def task(run: RunRecords) -> str:
    """Returns network and dataset of a run; "" if the config lacks one.

    Args:
      run: records of a run.
    """
    known = dataset(run) and network(run)
    return f"{network(run)} on {dataset(run)}" if known else ""


def title(runs: Sequence[RunRecords]) -> str:
    """Returns what runs trained, or their names if their configs do not contain it.

    Args:
      runs: the runs, such as one of LeNet-300-100 on MNIST.
    """
    found = set(map(task, runs))
    return " and ".join(sorted(found)) if all(found) else names(runs)


def names(runs: Sequence[RunRecords]) -> str:
    """Lists the names of runs.

    Args:
      runs: records of the runs.
    """
    return ", ".join(run.name for run in runs)


def comparable(runs: Sequence[RunRecords]) -> list[list[RunRecords]]:
    """Divides runs into groups that one table and figure may compare.

    Args:
      runs: any runs.

    Returns:
      Groups of runs of one network on one dataset, in the order given. A dense network
      of another size is in the group of the sparse networks of its kind, which are
      compared with it.
    """
    groups: dict[str, list[RunRecords]] = {}
    for run in runs:
        groups.setdefault(_key(run, sizes=True), []).append(run)
    kinds: dict[str, str] = {}
    for key, group in groups.items():
        if any(is_pruned(run) for run in group):
            kinds.setdefault(_key(group[0], sizes=False), key)
    joined: dict[str, set[str]] = {}
    for key, group in groups.items():
        pruned = any(is_pruned(run) for run in group)
        kind = key if pruned else kinds.get(_key(group[0], sizes=False), key)
        joined.setdefault(kind, set()).update(run.name for run in group)
    return [[run for run in runs if run.name in found] for found in joined.values()]


def _key(run: RunRecords, *, sizes: bool) -> str:
    """Returns the settings that comparable runs share, with or without layer sizes."""
    data, model = section(run, "data"), section(run, "model")
    key: list[Any] = [data.get("name"), data.get("image_size", 0), model.get("name")]
    key.append(data.get("downsample", 1))
    key.append(data.get("test_examples", 0))
    if sizes:
        usual = config.read_only_default().model.to_dict()
        fields = ("width", "features", "conv_channels", "padding", "norm_affine")
        key += [model.get(name, usual[name]) for name in fields]
    return json.dumps(key)


def is_pruned(run: RunRecords) -> bool:
    """Returns whether a run trains a sparse network, by a method or by pruning.

    Args:
      run: records of a run.
    """
    sparse = section(run, "sparse").get("method", "none") != "none"
    return sparse or bool(section(run, "lottery").get("levels"))


def changed(run: RunRecords) -> dict[str, Any]:
    """Returns the fields that differ from the run's recipe, by dotted name.

    These are the fields set by the recorded command. For a run that was not started by
    a command with a recipe, they are those that differ from the defaults.

    Args:
      run: run whose config and command are used.
    """
    flat = config.scientific(run.config)
    command = str(run.environment.get("command") or "")
    given = set(re.findall(r"(?<!\S)'?--?([\w.]+)", command))
    fields: Iterable[str] = (
        old_names.CONFIG_FIELDS.get(field, field)
        for name in given
        for field in [name.removeprefix("no").removeprefix("config.")]
        if name.removeprefix("no").startswith("config.")
    )
    if "config" not in given:
        defaults = config.scientific(config.read_only_default())
        fields = [
            name for name in flat if name in defaults and flat[name] != defaults[name]
        ]
    found = [name for name in sorted(fields) if name in flat]
    if not flat.get("training.label_smoothing"):  # the others have no effect then
        found = [name for name in found if not name.startswith("training.smooth")]
    return {name: flat[name] for name in found}


def changed_by_run(runs: Sequence[RunRecords]) -> dict[str, dict[str, Any]]:
    """Returns the fields of `changed` that labels of runs contain, by run.

    Args:
      runs: runs with distinct names.

    Returns:
      Fields by the run's name, without seeds and measurements, without what titles and
      columns contain, and, of several runs, without changes that all have in common.
    """
    found = {
        run.name: {n: v for n, v in changed(run).items() if _is_in_labels(n)}
        for run in runs
    }
    every = [
        {(name, str(value)) for name, value in one.items()} for one in found.values()
    ]
    shared = set.intersection(*every) if len(runs) > 1 else set()
    return {
        run: {name: v for name, v in fields.items() if (name, str(v)) not in shared}
        for run, fields in found.items()
    }


def differing(runs: Sequence[RunRecords]) -> list[str]:
    """Lists the fields of labels in which the configs of runs differ.

    Args:
      runs: records of the runs.
    """
    flat = [config.scientific(run.config) for run in runs]
    fields = dict.fromkeys(name for fields in flat for name in fields)
    defaults = config.scientific(config.read_only_default())
    return [
        name
        for name in fields
        if _is_in_labels(name)
        and len({json.dumps(one.get(name, defaults.get(name))) for one in flat}) > 1
    ]


def _is_in_labels(name: str) -> bool:
    """Returns whether labels contain a field."""
    return name not in _NOT_IN_LABELS and name.split(".")[0] not in _NOT_IN_LABELS


def facts(run: RunRecords) -> dict[str, str]:
    """Describes in a few words what a run trained and how.

    Args:
      run: run whose config is used; what it lacks is left out.

    Returns:
      Descriptions by name, such as "Optimizer".
    """
    optimizer, schedule = section(run, "optimizer"), section(run, "schedule")
    training, data = section(run, "training"), section(run, "data")
    used = [
        word(f"optimizer.{name}", optimizer[name])
        for name in ("momentum", "nesterov", "weight_decay")
        if optimizer.get(name)
    ]
    rates = [str(schedule.get("learning_rate", "")), schedule.get("name", "")]
    if schedule.get("milestones"):
        rates.append(f"at {', '.join(map(str, schedule['milestones']))}")
    if schedule.get("warmup", "0step") != "0step":
        rates.append(f"warm-up {schedule['warmup']}")
    duration = training.get("duration", "")
    if duration and data.get("batch_size"):
        duration = f"{duration}, batches of {data['batch_size']}"
    different = [f"{name} = {value}" for name, value in changed(run).items()]
    recipe = (
        "recipe" if "--config" in str(run.environment.get("command")) else "default"
    )
    found = {
        "Dataset": dataset(run),
        "Network": network(run),
        "Optimizer": ", ".join([optimizer.get("name", ""), *used]),
        "Learning rate": ", ".join(part for part in rates if part),
        "Training": duration,
        "Seeds": str(run.config.get("replicates", "")),
        f"Other than the {recipe}": ", ".join(different) or "nothing",
    }
    return {name: value for name, value in found.items() if value}


def word(field: str, value: Any) -> str:
    """Formats a field and its value as part of a label.

    Args:
      field: dotted name.
      value: value in the config.

    Examples:
      >>> word("optimizer.weight_decay", 2e-4), word("optimizer.nesterov", True)
      ('weight decay 0.0002', 'nesterov')
      >>> word("optimizer.name", "adam"), word("lottery.controls", [])
      ('optimizer adam', 'no controls')
    """
    part, _, last = field.rpartition(".")
    plain = ("data", "optimizer", "schedule", "training", "sparse", "lottery")
    full = part if last == "name" else f"{part} {last}"
    name = last if part in plain and last != "name" else full
    name = name.replace("_", " ").replace(".", " ")
    if isinstance(value, list | tuple):
        value = json.dumps(value) if value else False
    if isinstance(value, bool):
        return name if value else f"no {name}"
    return f"{name} {value}" if value != "" else f"{name} default"
