"""Reports: tables, figures and one page, made from the records of finished work.

Nothing here trains, and nothing here imports JAX, so a report can be made on a
laptop from folders copied off a cluster, and again while a run is still going.

    tables          reads work folders; means, deviations, paired comparisons
    labels          says what to call runs by their methods
    methods         tables of sparse training, one row a run
    text            writes those as Markdown, HTML and plain text
    drawing         the look that figures share
    figures         draws the tables of levels
    method_figures  draws those of sparse training
    gallery         chooses the figures of a report
    page            puts everything on one self-contained HTML page

Of studies, which compare what they measured with a paper:

    study          claims, tables and figures of several networks on one page
    study_lines    draws curves and segments of several arms
    study_figures  draws matrices, histograms and points
    arrays         checks numbers and makes arrays of them

Of the study of gradient flow:

    gradient_flow_findings  checks what it found
    gradient_flow_tables    tabulates that
    gradient_flow_figures   draws that
    gradient_flow           its report
"""
