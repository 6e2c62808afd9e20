"""GraSP in LeNet-300-100 on MNIST.

Wang, Zhang, Grosse, 2020, arXiv:2002.07376: pruned at initialization by w H g, over all
layers together, trained as `random_mnist`. Scored on 5,000 training examples, as in
Evci et al. 2020, arXiv:2010.03533;
`--config.sparse.pai_score=grasp_absolute` takes the absolute value.

Command: python experiments/train.py --config=configs/grasp_mnist.py
"""

from ml_collections import ConfigDict

from configs import random_mnist


def get_config(variant: str = "") -> ConfigDict:
    """Returns the recipe; `variant` is "" or "quick" (2 seeds, 300 steps)."""
    c = random_mnist.recipe("grasp_mnist", variant)
    c.sparse.pai_score = "grasp"
    c.sparse.score_batches = 40
    c.sparse.score_batch_size = 125
    return c
