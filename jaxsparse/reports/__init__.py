"""Reports: tables, figures and one page, made from the records of finished work.

Nothing here trains, and nothing here imports JAX, so a report can be made on a
laptop from folders copied off a cluster, and again while a run is still going.

    tables          reads work folders; means, deviations, paired comparisons
    settings        says what runs trained, and which may be compared
    labels          says what to call runs by their methods
    progress        says how far runs are; joins runs of other seeds
    folder          says whether a report may be written into a folder
    methods         tables of sparse training, one row a run
    text            writes those as Markdown, HTML and plain text
    drawing         the look that figures share
    figures         draws the tables of levels
    method_figures  draws those of sparse training
    gallery         chooses the figures of a report
    contents        says what is on the page of a report
    html            lays out self-contained pages
    page            writes all files of a report

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
