"""Reports: tables, figures and one page, made from the records of finished work.

Nothing here trains, and nothing here imports JAX, so a report can be made on a
laptop from folders copied off a cluster, and again while a run is still going.

    tables    reads work folders; means, deviations, paired comparisons
    text      writes those as Markdown, HTML and plain text
    figures   draws them
    page      puts everything on one self-contained HTML page
"""
