"""The config fields of `solution_penalty` and `instability`."""

from jaxsparse.config import valid
from jaxsparse.config.field import Field, Section

SOLUTION_PENALTY = Section(
    "A penalty on the cosine similarity with the solutions of all earlier levels.",
    {
        "strength": Field(
            0.0,
            valid.number(-1e6, 1e6),
            "Strength of the penalty: above 0 it repels from earlier solutions, below "
            "0 it attracts to them, 0 has no penalty.",
        ),
        "dtype": Field(
            "bfloat16",
            valid.one_of("bfloat16", "float32"),
            "Data type in which earlier solutions are stored.",
        ),
    },
)

INSTABILITY = Section(
    "Instability analysis (Frankle et al., 2020, arXiv:1912.05671): copies of a state "
    "are trained with different SGD noise and compared.",
    {
        "copies": Field(
            0,
            valid.integer(0, 1000),
            "Number of copies of each state. 0 makes no analysis; 1 is only for the "
            "pairs `parent`.",
        ),
        "pairs": Field(
            "copies",
            valid.one_of("copies", "parent"),
            "Which networks are compared: all pairs of `copies`, or each copy with the "
            "ticket of its level (`parent`), whose training the copy then repeats from "
            "the start on.",
        ),
        "start_steps": Field(
            ("0step",),
            valid.DURATIONS,
            "Times at which copies start. Times outside of a level are omitted.",
        ),
        "levels": Field(
            (0,),
            valid.tuple_of(
                valid.integer(0, 1000).holds, "integers from 0 to 1000", "(0, 4)"
            ),
            "Levels whose training the copies repeat.",
        ),
        "compare_levels": Field(
            False,
            valid.FLAG,
            "Whether each level is also compared with the level before.",
        ),
        "points": Field(
            30,
            valid.integer(3, 10**4),
            "Number of points of the linear interpolation between two networks, "
            "including both ends.",
        ),
        "examples": Field(
            10000,
            valid.EXAMPLES,
            "Number of training examples, from the first on, on which interpolated "
            "networks are evaluated. 0 uses all.",
        ),
        "batch_stats": Field(
            "interpolated",
            valid.one_of("interpolated", "re_estimated"),
            "BatchNorm statistics of interpolated networks: `interpolated` as the "
            "weights are, or `re_estimated` on training examples.",
        ),
    },
)
