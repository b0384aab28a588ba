"""A Regal on this machine: it answers, remembers and judges what was sent, and has pages to look at.

How one request travels::

    door -> callers -> POST /events -> gate -> answer (at once, from the gate or a scripted fault)
                                        |
          +-----------------------------+
          +--> inbox -> contract -> reading -> directory -> applying -> contacts
                           |           |                       |
                           +-----------+---- findings ---------+--> side API, pages

``door`` keeps half-sent requests out, and ``callers`` those of other web sites. ``gate`` decides the answer. In
``processing``, ``contract`` compares the body with what a well-behaved client sends, ``reading`` understands it as
leniently as Regal does, ``directory`` finds whose it is, and ``applying`` changes that contact; ``pages`` show it all.
Nothing here is shared with the client side of
this package, so that a mistake there cannot hide itself here.
"""
