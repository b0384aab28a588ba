"""What is remembered: rows, progress, dead letters and report of one task instance, in its run folder.

::

    <run folder>/marker.json        whose folder this is, of which source, and how the last try ended
                 rows-0000.jsonl    the rows as read, before mapping; positions count on through the files
                 rows.json          written last: the rows are complete
                 progress.log       one line per row reserved or settled; only ever appended to
                 dead_letters.jsonl rejected and unknown rows with reason and payload
                 withheld.jsonl     opt-ins that were not sent
                 report.json        the counts of the last try
                 lock               held by the one try that sends

On object storage the same files are mirrored: see :mod:`airflow_provider_regal.journal.mirror`.
"""
