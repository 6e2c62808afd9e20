"""The config fields of the section `data`."""

from jaxsparse.config import valid
from jaxsparse.config.field import Field, Section

DATA = Section(
    "The dataset, its split into training and validation examples, batches, "
    "augmentation, normalization and label noise.",
    {
        "name": Field(
            "digits",
            valid.NAME,
            "Name of the dataset: `digits` (images) or `python_docs` (text), which "
            "need no files, a dataset in `data.dir` or a registered dataset.",
        ),
        "dir": Field(
            None,
            valid.optional(valid.PATH),
            "Directory of prepared datasets. None uses the environment variable "
            "`TFDS_DATA_DIR`, or else the default of TFDS.",
            operational=True,
        ),
        "use_cache": Field(
            True,
            valid.FLAG,
            "Whether images in memory are decoded once for all runs and then read from "
            "the cache directory of the user.",
            operational=True,
        ),
        "image_size": Field(
            0,
            valid.integer(0, 2**14),
            "Height and width in pixels to which images of any size are decoded when "
            "they are needed: a random resized crop (8 to 100 % of the area) in "
            "training, a center crop in evaluation. 0 holds all images in memory at "
            "their own size.",
        ),
        "downsample": Field(
            1,
            valid.integer(1, 2**12),
            "Height and width in pixels of the windows over which decoded images are "
            "averaged, a divisor of the height and width of the images. Means are "
            "rounded to integers, halves to the even one. Channel statistics, crops "
            "and all else are those of the averaged images. 1 does not average.",
        ),
        "context": Field(
            64,
            valid.integer(1, 2**16),
            "Number of bytes of a text that a network reads at once. An example is a "
            "window of one byte more, so that each byte has a next one to predict.",
        ),
        "batch_size": Field(
            128, valid.BATCH, "Number of examples per training step, over all devices."
        ),
        "drop_last": Field(
            False,
            valid.FLAG,
            "Whether to omit the last batch of an epoch if it is smaller than the "
            "others. open_lth keeps it.",
        ),
        "validation": Field(
            0,
            valid.EXAMPLES,
            "Number of training examples that are set aside for validation.",
        ),
        "split_seed": Field(
            0,
            valid.SEED,
            "Seed that selects the validation examples, the same for all replicates.",
        ),
        "train_examples": Field(
            0,
            valid.EXAMPLES,
            "Number of training examples to use, from the first on. 0 uses all.",
        ),
        "test_examples": Field(
            0,
            valid.EXAMPLES,
            "Number of test examples to use, from the first on. 0 uses all.",
        ),
        "augment": Field(
            "custom",
            valid.one_of("custom", "standard"),
            "Augmentation of training images: `custom` applies `data.crop_pad` and "
            "`data.flip`, `standard` the usual augmentation of the dataset.",
        ),
        "crop_pad": Field(
            0,
            valid.integer(0, 2**12),
            "Zero padding in pixels on each side before a random crop to the original "
            "size. 0 does not crop.",
        ),
        "flip": Field(
            False,
            valid.FLAG,
            "Whether to flip training images left to right with probability 1/2.",
        ),
        "normalize": Field(
            "standardize",
            valid.one_of("standardize", "scale"),
            "Normalization of images: `standardize` subtracts the mean of each channel "
            "and divides by its standard deviation, `scale` only maps pixels to "
            "[0, 1].",
        ),
        "mean": Field(
            None,
            valid.optional(
                valid.tuple_of(
                    lambda value: valid.is_real(value, 0.0, 1.0),
                    "numbers from 0 to 1",
                    "(0.5, 0.5, 0.5)",
                    minimum=1,
                )
            ),
            "Mean of each channel on the [0, 1] scale, for `standardize`. None uses "
            "the mean of the dataset.",
        ),
        "std": Field(
            None,
            valid.optional(
                valid.tuple_of(
                    lambda value: valid.is_real(value, 1e-6, 1.0),
                    "numbers from 1e-6 to 1",
                    "(0.25, 0.25, 0.25)",
                    minimum=1,
                )
            ),
            "Standard deviation of each channel on the [0, 1] scale, for "
            "`standardize`. None uses the standard deviation of the dataset.",
        ),
        "reshuffle_each_level": Field(
            False,
            valid.FLAG,
            "Whether each lottery level draws its own order of examples and its own "
            "augmentation. False repeats those of the dense training.",
        ),
        "label_noise": Field(
            0.0,
            valid.FRACTION,
            "Fraction of the training labels that are replaced for all of training.",
        ),
        "label_noise_by": Field(
            "uniform",
            valid.one_of("uniform", "permute"),
            "How labels are replaced: `uniform` draws one of the other classes, "
            "`permute` permutes the labels of the selected examples.",
        ),
        "label_noise_seed": Field(
            0,
            valid.SEED,
            "Seed that selects the noisy labels and their new classes, the same for "
            "all replicates.",
        ),
    },
)
