"""One exchange with Regal.

::

    payload ─▶ pace ─▶ one (requests) ─▶ attempt ─▶ exchange.decide ─▶ done | wait and send again | a typed error

``exchange`` decides and does no I/O; ``one`` acts, on a ``session`` that bounds every answer in time. ``target`` says
where and with which key, ``environment`` through which proxy and with which certificates; ``heads`` corrects an older
aiohttp; ``no_answer`` and ``redact`` put into words what went wrong, without personal data.
"""
