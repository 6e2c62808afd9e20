"""Finds the folder of files that can be made again: images, labels and programs."""

import os
from pathlib import Path

import platformdirs

VARIABLE = "JAXSPARSE_CACHE_DIR"  # environment variable with the folder of all caches


def find(name: str) -> Path | None:
    """Returns the folder of a cache, which need not exist.

    Args:
      name: name of the cache, such as "images".

    Returns:
      The folder `name` in the one that `VARIABLE` names, or else in the platform's
      cache folder of the user, such as ~/.cache/jaxsparse on Linux. None if the user
      has no home folder.

    Examples:
      >>> find("images").name
      'images'
    """
    given = os.environ.get(VARIABLE)
    if given:
        return Path(given).expanduser().absolute() / name
    root = platformdirs.user_cache_path("jaxsparse", appauthor=False)
    # Without a home folder, "~" is not replaced.
    return root / name if root.is_absolute() else None
