"""The config fields outside of all sections, and the seeds."""

from jaxsparse.config import valid
from jaxsparse.config.field import Field, Section

GENERAL = Section(
    "Fields outside of all sections.",
    {
        "name": Field(
            "unnamed",
            valid.FOLDER_NAME,
            "Name of the experiment. The default run directory is `runs/NAME-HASH`.",
        ),
        "replicates": Field(
            1,
            valid.integer(1, 2**20),
            "Number of seeds that are trained at once. Reported means and standard "
            "deviations are over these.",
        ),
    },
)

SEEDS = Section(
    "Random seeds. Replicate r folds its number, `seeds.first` + r, into each of them; "
    "with `lottery.particles`, that number divided by it and rounded down into "
    "`seeds.init` and `seeds.masks`.",
    {
        "init": Field(
            0,
            valid.SEED,
            "Seed of the initial weights, also of those that controls draw anew.",
        ),
        "data": Field(
            0, valid.SEED, "Seed of the order of examples and of the augmentation."
        ),
        "masks": Field(0, valid.SEED, "Seed of random masks and of shuffled masks."),
        "first": Field(
            0,
            valid.EXAMPLES,
            "Number of the first replicate. Above 0, a run continues the numbering of "
            "another run with the same seeds. A multiple of `lottery.particles`.",
        ),
    },
)
