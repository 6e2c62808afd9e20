"""Nearly every optimizer and wrapper of optax, and what each of them cannot do.

Left out: `optax.lookahead` and `contrib.dpsgd`, whose gradient has another nesting or
shape than the parameters (see test_transforms_state); `contrib.sam` in opaque mode,
which takes gradients of its own; `contrib.split_real_and_imaginary`, for complex
weights.
"""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import optax
from optax import contrib

from jaxsparse import tree

# Every shape occurs once, so that a leaf of an optimizer's state belongs to the weight
# of its shape: a rule unlike the one under test. Both dtypes, in one program.
SHAPES = {
    "first": {"bias": ((3,), "float32"), "kernel": ((4, 3), "float32")},
    "second": {"bias": ((5,), "bfloat16"), "kernel": ((3, 5), "bfloat16")},
}
LARGE = SHAPES | {"large": {"kernel": ((128, 130), "float32")}}


def _is_kernel(params: Any) -> Any:
    return tree.map_with_names(lambda name, _: name.endswith("kernel"), params)


def _by_kind(kernels: Any, biases: Any) -> optax.GradientTransformation:
    return optax.partition({True: kernels, False: biases}, _is_kernel)


ADAM = optax.adam(0.01)
SGD = optax.sgd(0.01, momentum=0.9)
INSIDE: dict[str, Any] = {
    # optax's optimizers
    "sgd": optax.sgd(0.01),
    "momentum": SGD,
    "nesterov": optax.sgd(0.01, momentum=0.9, nesterov=True),
    "momentum in bfloat16": optax.sgd(0.01, 0.9, accumulator_dtype=jnp.bfloat16),
    "adam": ADAM,
    "adam, mu in bfloat16": optax.adam(0.01, mu_dtype=jnp.bfloat16),
    "nadam": optax.nadam(0.01),
    "adamw": optax.adamw(0.01, weight_decay=0.1),
    "nadamw": optax.nadamw(0.01),
    "adamax": optax.adamax(0.01),
    "adamaxw": optax.adamaxw(0.01),
    "amsgrad": optax.amsgrad(0.01),
    "adabelief": optax.adabelief(0.01),
    "adagrad": optax.adagrad(0.01),
    "adadelta": optax.adadelta(0.5),
    "adan": optax.adan(0.01),
    "rmsprop": optax.rmsprop(0.01),
    "rmsprop, all on": optax.rmsprop(
        0.01, initial_scale=0.5, centered=True, momentum=0.9
    ),
    "lion": optax.lion(0.01),
    "lamb": optax.lamb(0.01),
    "lars": optax.lars(0.01),
    "yogi": optax.yogi(0.01),
    "radam": optax.radam(0.01),
    "novograd": optax.novograd(0.01),
    "fromage": optax.fromage(0.01),
    "sm3": optax.sm3(0.01),
    "adafactor": optax.adafactor(0.01, momentum=0.9),
    "adafactor, factored": optax.adafactor(0.01, momentum=0.9),
    "noisy sgd": optax.noisy_sgd(0.01, key=7),
    "sign sgd": optax.sign_sgd(0.01),
    "signum": optax.signum(0.01),
    "rprop": optax.rprop(0.01),
    "optimistic gradient": optax.optimistic_gradient_descent(0.01),
    "optimistic adam": optax.optimistic_adam_v2(0.01),
    "polyak": optax.polyak_sgd(0.1),
    "lbfgs": optax.lbfgs(0.1, memory_size=2, linesearch=None),
    "lbfgs, zoom": optax.lbfgs(memory_size=2),
    "backtracking": optax.chain(
        optax.sgd(0.1), optax.scale_by_backtracking_linesearch(4)
    ),
    # optax.contrib
    "acprop": contrib.acprop(0.01),
    "ademamix": contrib.ademamix(0.01),
    "simplified ademamix": contrib.simplified_ademamix(0.01),
    "adopt": contrib.adopt(0.01),
    "cocob": contrib.cocob(),
    "dadapt": contrib.dadapt_adamw(0.01),
    "dog": contrib.dog(0.1),
    "dowg": contrib.dowg(0.1),
    "galore": contrib.galore(0.01, rank=2),
    "madgrad": contrib.madgrad(0.01),
    "mechanic": contrib.mechanize(SGD),
    "momo": contrib.momo(0.01),
    "momo adam": contrib.momo_adam(0.01),
    "muon": contrib.muon(0.01),
    "prodigy": contrib.prodigy(0.1),
    "sam": contrib.sam(SGD, optax.chain(contrib.normalize(), SGD)),
    "schedule free": contrib.schedule_free(ADAM, 0.01),
    "schedule free sgd": contrib.schedule_free_sgd(0.01),
    "schedule free adamw": contrib.schedule_free_adamw(0.01),
    "sophia": contrib.sophia(0.01, update_interval=2),
    # wrappers and links of a chain, around the optimizer and inside `sparsify`
    "clipped": optax.chain(optax.clip_by_global_norm(0.1), optax.adamw(0.01)),
    "clipped by block": optax.chain(optax.clip_by_block_rms(0.1), ADAM),
    "clipped adaptively": optax.chain(optax.adaptive_grad_clip(0.1), SGD),
    "centralised": optax.chain(optax.centralize(), SGD),
    "normalized": optax.chain(optax.normalize_by_update_norm(), SGD),
    "noise added": optax.chain(optax.add_noise(0.1, 0.5, key=7), SGD),
    "zero nans": optax.chain(optax.zero_nans(), SGD),
    "ema": optax.chain(SGD, optax.ema(0.9)),
    "apply every": optax.chain(SGD, optax.apply_every(2)),
    "named chain": optax.named_chain(("clip", optax.clip(1.0)), ("adam", ADAM)),
    "narrow updates": optax.chain(
        SGD, optax.stateless(lambda updates, _: optax.tree.cast(updates, jnp.bfloat16))
    ),
    "non-negative": optax.chain(SGD, optax.keep_params_nonnegative()),
    "plateau": optax.chain(SGD, contrib.reduce_on_plateau()),
    "flattened": optax.flatten(ADAM),
    "masked": optax.masked(ADAM, _is_kernel),
    "frozen": optax.selective_transform(
        ADAM, freeze_mask=dict.fromkeys(SHAPES, {"bias": True, "kernel": False})
    ),
    "partitioned": _by_kind(ADAM, SGD),
    "partitioned muon": _by_kind(contrib.muon(0.01), SGD),
    "hyperparameters": optax.inject_hyperparams(optax.adamw)(
        optax.linear_schedule(0.01, 0.001, 9), weight_decay=0.1
    ),
    "apply if finite": optax.apply_if_finite(ADAM, 3),
    "conditional": optax.conditionally_transform(ADAM, lambda step, **_: step < 3),
    "accumulating": optax.MultiSteps(ADAM, 2).gradient_transformation(),
    "accumulating finite": optax.MultiSteps(
        ADAM, 2, should_skip_update_fn=optax.skip_not_finite
    ).gradient_transformation(),
}
OUTSIDE: dict[str, Callable[[Any], Any]] = {
    "outer chain": lambda tx: optax.chain(optax.clip(1.0), tx),
    "outer partition": lambda tx: _by_kind(tx, SGD),
    "outer masked": lambda tx: optax.masked(tx, _is_kernel),
    "outer hyperparameters": lambda tx: optax.inject_hyperparams(lambda a: tx)(a=0.1),
    "outer apply if finite": lambda tx: optax.apply_if_finite(tx, 3),
    "outer accumulating": lambda tx: optax.MultiSteps(tx, 2),
}
# A wrapper outside sees the dense gradient before the masks do.
SEES_DENSE = ("outer apply if finite", "outer accumulating")
PERIODS = {"outer accumulating": 2}
# Memory of other shapes than the weights' cannot be reset weight by weight.
SHARED = (
    *("adafactor, factored", "flattened", "galore", "lbfgs", "lbfgs, zoom"),
    *("mechanic", "sm3"),
)
# Bare as well, the state changes its types at the first update: with bfloat16 weights,
LATE = (
    *("dadapt", "dog", "dowg", "hyperparameters", "momo", "momo adam"),
    *("normalized", "prodigy", "sam"),
)
# or always, from weak types to strong.
WEAK = ("backtracking", "lbfgs, zoom")
# Bare as well, fails if some weights are bfloat16 and some are not.
ONE_DTYPE = ("mechanic", "sophia")
ACCEPTS = {"backtracking": 3, "lbfgs, zoom": 3, "sam": 0}  # of the extra arguments
# Its step length is 0 for a while after a change of masks: it is made of averages over
# all weights, those that left included.
STALLS = ("momo",)
