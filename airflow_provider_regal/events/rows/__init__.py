"""Read rows of a table or a file, and Segment's calls, as events.

::

    row ─▶ columns, mapping ─▶ coercion ─▶ models ─▶ payload
      └──▶ fast_path ───────────────────────┘          (the same result; a test compares the two)

``opt_outs`` finds the opt-outs of a row that is otherwise invalid. Pure, like all of ``events``.
"""
