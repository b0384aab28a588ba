"""One exchange with Regal.

::

    payload ─▶ pace ─▶ one (requests) ─▶ attempt ─▶ exchange.decide ─▶ done | wait and send again | a typed error

``exchange`` decides and does no I/O. ``one`` sends, on a ``session`` that limits the time of every answer. ``target``
holds the address and the key; ``environment`` chooses the proxy and the certificates. ``heads`` works around a bug in
older versions of aiohttp. ``no_answer`` and ``redact`` describe failures without personal data.
"""
