"""Files of the .npz format, for arrays of any names."""

import io
import zipfile
from collections.abc import Mapping

import numpy as np


def content(arrays: Mapping[str, np.ndarray]) -> bytes:
    """Returns the content of a .npz file, as `np.savez`, for arrays of any names.

    `np.savez` takes names as arguments, and so refuses some, such as "file".

    Args:
      arrays: arrays by name, as of leaves; of dtypes that NumPy has itself.

    Examples:
      >>> made = content({"file": np.arange(3)})
      >>> np.load(io.BytesIO(made))["file"]
      array([0, 1, 2])
    """
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                np.lib.format.write_array(
                    entry, np.asanyarray(array), allow_pickle=False
                )
    return file.getvalue()
