"""HTML reports, figures, tables, model cards, data cards and the leaderboard.

`run_report.write_report` writes the page of one checkpoint, `crossval_report.write_crossval_report` that of a
cross-validation, and `prep_report.write_prep_report` that of a folder of records.
"""
