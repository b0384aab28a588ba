"""One exchange with Regal.

::

    payload ─▶ pace ─▶ one (requests) ─▶ attempt ─▶ exchange.decide ─▶ done | wait and send again | a typed error

``exchange`` decides and does no I/O; ``one`` acts. ``target`` says where and with which key.
"""
