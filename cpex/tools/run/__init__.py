"""`cpex run`: a recorded stream through a pipeline.

`lines` reads, `timeline` and `requests` keep what outlives one event, `replay` judges event by event, `tally` counts,
`report` prints, and `command` puts them together.
"""
