"""Config fields of older versions, and how the files of older runs are read."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxsparse import metrics_log

# Old to new names of fields. A run directory keeps its config.json as it was written.
FIELDS = {
    "data.noise": "data.label_noise",
    "data.noise_by": "data.label_noise_by",
    "data.noise_seed": "data.label_noise_seed",
    "data.size": "data.image_size",
    "model.maps": "model.conv_channels",
    "init.zeros": "init.zero_init",
    "init.sparse": "init.sparse_init",
    "init.sparse_distribution": "init.sparse_init_distribution",
    "init.sparse_scale": "init.sparse_init_scale",
    "start.run": "warm_start.run",
    "start.weights": "warm_start.weights",
    "start.masks": "warm_start.masks",
    "start.replicate": "warm_start.replicate",
    "optimizer.decay": "optimizer.weight_decay_mask",
    "training.length": "training.duration",
    "training.smooth_over": "training.smoothing_target",
    "training.smoothing_fade": "training.smoothing_schedule",
    "training.smoothing_until": "training.smoothing_end",
    "ghosts.activation": "tost.activation",
    "ghosts.neurons": "tost.mode",
    "ghosts.sharpness": "tost.beta",
    "ghosts.skips": "tost.skips",
    "ghosts.fade": "tost.schedule",
    "ghosts.until": "tost.end",
    "rescaling.steps": "gradinit.steps",
    "rescaling.learning_rate": "gradinit.learning_rate",
    "rescaling.look_ahead": "gradinit.step_size",
    "rescaling.longest": "gradinit.max_grad_norm",
    "rescaling.least": "gradinit.min_factor",
    "rescaling.clip": "gradinit.clip",
    "rescaling.masked": "gradinit.mask_gradients",
    "rescaling.batch_size": "gradinit.batch_size",
    "lottery.counting": "lottery.count_rule",
    "lottery.ignored": "lottery.exclude",
    "pretraining.first": "pretraining.window_start",
    "pretraining.noise": "pretraining.label_noise",
    "repelling.strength": "solution_penalty.strength",
    "repelling.dtype": "solution_penalty.dtype",
    "stability.children": "instability.copies",
    "stability.steps": "instability.start_steps",
    "stability.levels": "instability.levels",
    "stability.successive": "instability.compare_levels",
    "stability.points": "instability.points",
    "stability.examples": "instability.examples",
    "stability.batch_stats": "instability.batch_stats",
    "sparse.layers": "sparse.layer_sparsity",
    "sparse.score": "sparse.pai_score",
    "sparse.iterations": "sparse.score_iterations",
    "sparse.remove_dead": "sparse.prune_disconnected",
    "sparse.begin": "sparse.begin_step",
    "sparse.end": "sparse.end_step",
    "sparse.growth_examples": "sparse.grow_batch_size",
    "sparse.growth_first": "sparse.grow_batch_start",
    "sparse.skip_inner": "sparse.skip_update",
    "sparse.regrow_dropped": "sparse.allow_regrow",
    "sparse.restart_dropped": "sparse.zero_regrown",
    "sparse.decay": "sparse.outside_regularization",
    "analysis.keep_at": "analysis.save_at",
    "analysis.at_changes": "analysis.at_mask_updates",
    "run.weight_rules": "run.fsdp_rules",
    "run.weight_least": "run.fsdp_min_size",
    "run.convolutions": "run.conv_gradients",
    "run.replicates_by": "run.replicate_mode",
    "run.examples": "run.data_placement",
    "run.keep": "run.keep_checkpoints",
}
_OLD_NAMES = {new: old for old, new in FIELDS.items()}


def read(path: Path) -> dict[str, Any]:
    """Reads a run's config.json, with the present names of its fields.

    Args:
      path: the file.

    Returns:
      The fields, nested by section. Present names that the file has already stay.

    Raises:
      ValueError: if the file does not hold a JSON object; the message names it.
      OSError: if it does not exist or cannot be read.
    """
    return with_new_names(metrics_log.read_object(path))


def with_new_names(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Renames the fields of older versions.

    Args:
      fields: nested fields; sections are mappings, other values are kept.

    Returns:
      A copy with present names.

    Examples:
      >>> with_new_names({"training": {"length": "2ep"}, "replicates": 3})
      {'training': {'duration': '2ep'}, 'replicates': 3}
    """
    found: dict[str, Any] = {}
    for section, value in fields.items():
        if not isinstance(value, Mapping):
            found[section] = value
            continue
        for name, item in value.items():
            new_section, _, new = FIELDS.get(
                f"{section}.{name}", f"{section}.{name}"
            ).partition(".")
            found.setdefault(new_section, {}).setdefault(new, item)
    return found


def old_name(field: str) -> str:
    """Returns the first name that a field had, by which run directories are hashed.

    Args:
      field: present dotted name, such as "training.duration".

    Examples:
      >>> old_name("training.duration"), old_name("model.name")
      ('training.length', 'model.name')
    """
    return _OLD_NAMES.get(field, field)
