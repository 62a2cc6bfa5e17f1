"""The report: one offline page that answers "did my rare things survive?", made from run folders alone.

Data goes one way, and so do the imports:

    maps        RUN/map.json -> ImageMap, checked
    record      a folder -> RunRecord, whatever state the run is in
    arms        records -> arms (runs that differ only in their seed), what they score and how they differ
    sentences   arms -> the answer in one sentence, and the summary in plain words
    tables      arms -> every number of the page
    dots        arms -> rows of dots, laid out once for the page and for the PNG
    figures     arms -> plotly figures
    sheets      arms -> maps of the images, and sheets of pictures
    page        all of it -> one HTML file; its layout, style and script are in templates/
    picture     the groups of classes once more, as a PNG for a README

`wording` writes numbers and lists in English for all of them. Nothing here knows a model.
"""

from evensphere.report.page import write_report
from evensphere.report.picture import groups_picture

__all__ = ["groups_picture", "write_report"]
