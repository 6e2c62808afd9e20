"""Sparse training methods as optax gradient transformations.

Each method wraps an optax optimizer and returns an
`optax.GradientTransformationExtraArgs`, so it works in any training loop. After
`optax.apply_updates`, the weights outside the masks are exactly zero; with methods of
`latent` and `self_sparse` those of `forward_params` are. If other
transformations are chained after the wrapper or placed around it, use `apply_updates`
of this package instead: such transformations may change the updates that set pruned
weights to zero.

Most methods call `sparsify`. Methods that train dense weights but compute with a sparse
subset of them call `latent`. The modules:

    fixed                 masks of any origin that never change
    gradual_magnitude     gradual_magnitude, one_shot_magnitude
    granet, ac_dc         pruning methods under which weights become active again
    chts                  dynamic sparse training by the topology of the masks
    east                  dynamic sparse training with cycles of the density
    sparse_evolution, rigl, mest
                          dynamic sparse training, see `drop_grow`
    snfs, srigl, neurrev  dynamic sparse training that moves weights between layers,
                          removes neurons, or drops negative weights
    straight_through, top_kast, sr_ste
                          training of dense weights, see `latent`
    learned_threshold, continuous_sparsification, edge_popup, s_ste, dynadiag
                          weights that a function of the trained parameters makes
                          zero, see `self_sparse`
    weight_sparse, proximal_l1
                          projections after each step, see `project`
    gem_miner             a ticket at initialization, by training scores
    powerpropagation, sign_in
                          weights that are functions of the trained parameters, for
                          any method, see `reparameterize`
    scale_by_density      learning rates by the density of the layers, for the wrapped
                          optimizer

Arguments that many methods share are in records of options: `LayerOptions` for which
leaves have masks and how the sparsity is divided among them, `SparsityRamp` for the
sparsity schedule, and `DropGrowOptions` for how mask updates drop and grow weights.
"""

from jaxsparse.layer_options import LayerOptions
from jaxsparse.transforms.ac_dc import ac_dc
from jaxsparse.transforms.chts import CHTsOptions, chts
from jaxsparse.transforms.continuous_sparsification import continuous_sparsification
from jaxsparse.transforms.dynadiag import dynadiag
from jaxsparse.transforms.east import EASTOptions, east
from jaxsparse.transforms.edge_popup import edge_popup
from jaxsparse.transforms.fixed import fixed
from jaxsparse.transforms.gem_miner import gem_miner
from jaxsparse.transforms.gradual_magnitude import (
    gradual_magnitude,
    one_shot_magnitude,
)
from jaxsparse.transforms.granet import GraNetOptions, granet
from jaxsparse.transforms.grow import ever_active, tracks_exploration
from jaxsparse.transforms.latent import latent
from jaxsparse.transforms.learned_threshold import learned_threshold
from jaxsparse.transforms.mest import MESTOptions, mest
from jaxsparse.transforms.neurrev import NeurRevOptions, neurrev
from jaxsparse.transforms.options import DropGrowOptions, SparsityRamp
from jaxsparse.transforms.parts import Reparameterization, pass_gradient
from jaxsparse.transforms.powerpropagation import powerpropagation
from jaxsparse.transforms.project import ProjectedState, project
from jaxsparse.transforms.protocols import (
    InitMasks,
    MaskUpdate,
    Observe,
    UpdateAt,
    UpdateMasks,
)
from jaxsparse.transforms.proximal_l1 import proximal_l1
from jaxsparse.transforms.reparameterize import (
    ReparameterizedState,
    reparameterize,
)
from jaxsparse.transforms.replicate_axes import replicate_axes
from jaxsparse.transforms.rigl import RigLOptions, rigl
from jaxsparse.transforms.s_ste import s_ste
from jaxsparse.transforms.scale_by_density import scale_by_density
from jaxsparse.transforms.self_sparse import self_sparse
from jaxsparse.transforms.sharding import MIN_SIZE, Rules, state_specs, weight_specs
from jaxsparse.transforms.sign_in import sign_in
from jaxsparse.transforms.snfs import SNFSOptions, snfs
from jaxsparse.transforms.sparse_evolution import (
    SparseEvolutionOptions,
    sparse_evolution,
)
from jaxsparse.transforms.sparsify import sparsify
from jaxsparse.transforms.sr_ste import sr_ste
from jaxsparse.transforms.srigl import SRigLOptions, srigl
from jaxsparse.transforms.state import (
    LatentState,
    SparsifyState,
    apply_updates,
    forward_params,
    get_masks,
    local_masks,
    replace_key,
    replace_masks,
    stored_params,
)
from jaxsparse.transforms.straight_through import straight_through
from jaxsparse.transforms.top_kast import top_kast
from jaxsparse.transforms.weight_sparse import weight_sparse

__all__ = (
    "MIN_SIZE",
    "CHTsOptions",
    "DropGrowOptions",
    "EASTOptions",
    "GraNetOptions",
    "InitMasks",
    "LatentState",
    "LayerOptions",
    "MESTOptions",
    "MaskUpdate",
    "NeurRevOptions",
    "Observe",
    "ProjectedState",
    "Reparameterization",
    "ReparameterizedState",
    "RigLOptions",
    "Rules",
    "SNFSOptions",
    "SRigLOptions",
    "SparseEvolutionOptions",
    "SparsifyState",
    "SparsityRamp",
    "UpdateAt",
    "UpdateMasks",
    "ac_dc",
    "apply_updates",
    "chts",
    "continuous_sparsification",
    "dynadiag",
    "east",
    "edge_popup",
    "ever_active",
    "fixed",
    "forward_params",
    "gem_miner",
    "get_masks",
    "local_masks",
    "gradual_magnitude",
    "granet",
    "latent",
    "learned_threshold",
    "mest",
    "neurrev",
    "one_shot_magnitude",
    "pass_gradient",
    "powerpropagation",
    "project",
    "proximal_l1",
    "reparameterize",
    "s_ste",
    "scale_by_density",
    "self_sparse",
    "sign_in",
    "tracks_exploration",
    "replace_key",
    "replace_masks",
    "replicate_axes",
    "rigl",
    "snfs",
    "sparse_evolution",
    "sparsify",
    "sr_ste",
    "srigl",
    "state_specs",
    "stored_params",
    "straight_through",
    "top_kast",
    "weight_sparse",
    "weight_specs",
)
