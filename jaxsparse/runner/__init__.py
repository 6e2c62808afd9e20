"""Runs experiments: trains their stages in order, and resumes what was interrupted.

`run` is the loop over stages. `saved_states` loads what earlier stages ended with,
`masks` and `start` make what a stage starts from, and `end_records` and `instability`
record what it ended with. `experiment` and `task` hold the parts of a run, which
`factory` makes from a config. `records` finds lost records and sorts late ones, and
`old_runs` translates the stage names of older versions.
"""
