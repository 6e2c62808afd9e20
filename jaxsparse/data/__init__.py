"""Datasets as arrays in memory, or as images that stay in their files.

`datasets.load` makes a dataset from a prepared TFDS folder (`sources`, `tfds_folders`,
`tfds_info`, `tfds_records`), from folders of images (`folders`, `tiny_imagenet`) from
the digits in scikit-learn (`digits`), or from a text (`text`).
Images in memory are decoded once (`decoding`, `processes`) and kept as arrays in a
cache (`image_cache`). Datasets larger than memory stay in their files (`lazy`,
`record_files`, `image_sources`) and are decoded on access (`image_files`): random
resized crops in training, center crops in evaluation (`random_resized_crop`). Either
kind can be averaged over windows of pixels (`downsampling`).

`shuffling` draws the order of the examples and `augment` changes the images; both are
pure functions of keys, for use inside a compiled step. `data_pruning` scores examples
and selects subsets of them, and `fingerprint` detects data that has changed. Nothing
here downloads: run `experiments/prepare_data.py` for that.
"""
