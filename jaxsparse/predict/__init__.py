"""Fast predictions of finished sparse networks on this machine.

`auto` returns a predictor with the outputs of `apply(params, x)` for inputs of one
shape. It first removes dead units (`compaction`). Then each layer with pruned weights
takes the form that is fastest when it is measured:

    dense      the matrix product or convolution of XLA
    condensed  the active weights of each output as an array [out, k], with the numbers
               of their inputs, computed by XLA
    csr        compressed sparse rows, computed by SciPy outside of XLA; a convolution
               is first written as a product with the patches of its input
    direct     the same without patches, compiled by Numba (extra `predict`)

The program is cut at layers outside of XLA; the parts between them are compiled. A
predictor of mixed forms is returned only if it is measured to be faster than the whole
program compiled by XLA. `Predictor.trials` is the table of all measurements.

    predictor = predict.auto(apply, params, masks, images)
    logits, table = predictor(images), str(predictor)

`fixed` makes a predictor with one form for all layers, for comparisons. Nothing here
trains, and nothing runs on accelerators: the choice is one for a CPU.
"""

from jaxsparse.predict.automatic import auto
from jaxsparse.predict.one_form import fixed
from jaxsparse.predict.predictor import Predictor, Trial

__all__ = ("Predictor", "Trial", "auto", "fixed")
