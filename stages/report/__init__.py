"""Stage report: one self-contained page for people, and a summary for machines.

`documents` is what is read, `views` makes sentences and rows of it, `plots` draws, `page` puts them
together.
"""
