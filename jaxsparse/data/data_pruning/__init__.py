"""A data diet: which training examples are worth having.

`scores` says how hard each example is for a network, and `forgetting` how often it was
forgotten while training. `subsets` chooses examples by their scores, `noise` gives some
of them other labels, and `files` keeps scores with what they are scores of.

Of every score but `scores.margin`, more is harder. `scores` and `forgetting` run on the
device, inside compiled programs; the others run on the host, in numpy. Nothing here
trains: that is for `training`, and averages over training runs are for
`scores.mean_over_replicates`.
"""
