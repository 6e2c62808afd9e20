"""Data pruning: scores of training examples, and subsets selected by them.

`scores` measures how hard each example is for a network, and `forgetting` counts how
often it was forgotten during training. `subsets` selects examples by their scores,
`noise` adds label noise, and `score_files` stores scores with their provenance.

Higher scores mean harder examples, except for `scores.margin`. `scores` and
`forgetting` run on the device, inside compiled programs; the other modules run on the
host, in numpy. Nothing here trains a network. `scores.mean_over_replicates` averages
scores over training runs.
"""
