"""Names of older versions, by which the run directories that they wrote are read.

Files keep the old names until a run is continued: new records then have the new ones.
"""

from pathlib import Path
from typing import Any

# Old to new names of config fields.
CONFIG_FIELDS = {
    "data.noise": "data.label_noise",
    "data.noise_by": "data.label_noise_by",
    "data.noise_seed": "data.label_noise_seed",
    "data.size": "data.image_size",
    "data.order": "data.reshuffle_each_level",
    "model.maps": "model.conv_channels",
    "model.norm": "model.norm_affine",
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
    "run.weights": "run.fsdp",
    "run.dispatch": "run.scan",
    "run.weight_rules": "run.fsdp_rules",
    "run.weight_least": "run.fsdp_min_size",
    "run.convolutions": "run.conv_gradients",
    "run.replicates_by": "run.replicate_mode",
    "run.examples": "run.data_placement",
    "run.keep": "run.keep_checkpoints",
}

# Old to new values of config fields, by the present name of the field.
CONFIG_VALUES: dict[str, dict[str | int, Any]] = {
    "data.augment": {"as_given": "custom", "published": "standard"},
    "data.normalize": {"channels": "standardize", "unit": "scale"},
    "data.reshuffle_each_level": {"same": False, "fresh": True},
    "model.norm_affine": {"learned": True, "fixed": False},
    "pretraining.batch_size": {0: None},
    "sparse.skip_update": {"no": False, "yes": True},
    "run.fsdp": {"whole": False, "sharded": True},
    "run.scan": {"auto": None, "single": False, "scan": True},
}

# Old to new kinds and fields of the records in metrics.jsonl.
RECORD_KINDS = {
    "masks": "mask_stats",
    "gradient": "gradient_norm",
    "change": "mask_update",
    "successive": "level_barrier",
    "segment": "child_barrier",
    "verdict": "stability",
    "time": "timing",
}
RECORD_FIELDS = {
    "arm": "variant",
    "live": "effective_params",
    "weights_remaining": "density",
}

# New to old names of files in a run directory.
FILES = {"stages.json": "ended.json", "gradinit.json": "rescaling.json"}


def translate_record(record: dict[str, Any]) -> dict[str, Any]:
    """Returns a record of metrics.jsonl with present names.

    Args:
      record: a record with old or present names, and possibly without a kind.

    Examples:
      >>> translate_record({"kind": "time", "arm": "ticket"})
      {'kind': 'timing', 'variant': 'ticket'}
    """
    if "kind" not in record:
        return record
    renamed = {RECORD_FIELDS.get(name, name): value for name, value in record.items()}
    kind = record["kind"]
    return renamed | {"kind": RECORD_KINDS.get(kind, kind)}


def find_file(folder: Path, name: str) -> Path:
    """Returns the path of a file of a run, with its old name if only that exists.

    Args:
      folder: the run directory.
      name: present name of the file.
    """
    old = folder / FILES.get(name, name)
    return old if old.exists() and not (folder / name).exists() else folder / name
