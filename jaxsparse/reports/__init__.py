"""Reports: tables, figures and one page, made from the records of runs.

Nothing here trains or imports JAX: a report can be made on a laptop from run
directories that were copied from a cluster, and also while a run is in progress.

    records         reads run directories; records as data frames
    settings        what runs trained, and which runs may be compared
    method_names    labels of runs by their methods
    progress        how far runs are; joins runs with different seeds
    tables          results of lottery-ticket runs, level by level
    methods         results of sparse training, one row for each run
    stability       error barriers between copies and between levels
    formatting      numbers as text
    plot_style      the look of figures; lines with bands
    axis_scales     scales and ticks of axes
    plot_curves     lines in panels side by side
    figures         figures of levels
    method_figures  figures of sparse training
    report_figures  which figures a report shows
    contents        the chapters of a page
    html            renders a page
    folder          whether a report may be written into a directory
    page            writes all files of a report
"""
