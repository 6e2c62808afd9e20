"""Datasets as arrays, in memory or standing for images that stay in files.

`datasets.load` makes them, from a prepared TFDS folder (`sources`), from folders of
images (`folders`) or from what scikit-learn ships (`digits`). Where no memory holds all
images, they stay in files (`unread`, `shards`) and are decoded (`stored`) to parts of
one size (`crops`), in whose place arrays would be. `order` says which
examples a step sees and `augment` how it sees them; both are pure functions of keys,
for use inside a compiled step. Nothing here downloads: that is
`experiments/prepare_data.py`.
"""
