import jax
import numpy as np

from jaxsparse import initializers
from jaxsparse.lottery import controls
from jaxsparse.training import state


def test_equal_seeds_of_different_sources_give_different_keys():
    seeds = state.make_seeds(init=0, data=0, masks=0, replicates=3)
    bits = [tuple(key) for row in seeds for key in np.asarray(jax.random.key_data(row))]
    assert len(set(bits)) == 9


def test_random_masks_are_independent_of_the_weights_they_are_for():
    # Of n = 40,000 weights half are kept. If masks are independent, the mean of the
    # kept standard normal weights is beyond 5 s.d. = 5 sqrt(1 / n) once in 1.7 million.
    seeds = state.make_seeds(init=0, data=0, masks=0, replicates=1)
    like = {"kernel": jax.ShapeDtypeStruct((200, 200), np.float32)}
    half = {"kernel": np.arange(40_000).reshape(200, 200) % 2 == 0}

    @jax.jit
    def draw(seeds):
        init, mask = (
            controls.key_of(keys[0], "random_mask", 1)
            for keys in (seeds.init, seeds.masks)
        )
        weights = initializers.initialize(like, kernel="kaiming_normal", key=init)
        drawn = controls.draw_alike(jax.tree.map(jax.numpy.asarray, half), key=mask)
        return weights["kernel"], drawn["kernel"]

    weights, drawn = map(np.asarray, draw(seeds))
    assert np.sum(drawn) == 20_000
    standard = weights / np.sqrt(2 / 200)
    assert abs(standard[drawn].mean()) < 5 * np.sqrt(1 / 40_000)
    # The same measure sees what it is there to see: the larger half.
    assert standard[standard > 0].mean() > 0.5
