"""How many weights a sparsity keeps."""

import math
from fractions import Fraction

from jaxsparse import arguments


@arguments.check(total=arguments.integer(0), sparsity=arguments.fraction)
def count_kept(total: int, sparsity: float | Fraction) -> int:
    """Computes the number of weights that a sparsity keeps.

    Args:
      total: number of weights, 0 or more.
      sparsity: fraction to remove, in [0, 1). It is read as the decimal number that it
        is printed as: 0.9 means nine tenths and not the nearest binary number.

    Returns:
      total (1 - sparsity), rounded to the nearest integer; halves are rounded up.

    Raises:
      ValueError: if the sparsity is not in [0, 1) or the total is negative.
      TypeError: if the total is not an integer or the sparsity is not a number.

    Examples:
      >>> count_kept(25_502_912, 0.999)
      25503
    """
    # `str` gives the shortest decimal that reads back as the same float: Fraction(0.9)
    # would be the binary number nearest to 0.9.
    return math.floor(total * (1 - Fraction(str(sparsity))) + Fraction(1, 2))
