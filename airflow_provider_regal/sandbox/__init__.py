"""A local Regal: it answers, stores and checks what was sent, and has pages to look at.

The path of a request::

    door -> callers -> POST /events -> gate -> answer (at once, from the gate or a scripted fault)
                                        |
          +-----------------------------+
          +--> inbox -> contract -> reading -> directory -> applying -> contacts
                           |           |                       |
                           +-----------+---- findings ---------+--> side API, pages

``door`` blocks half-sent requests, and ``callers`` those of other web sites. ``gate`` decides the answer. In
``processing``, ``contract`` compares the body with what a well-behaved client sends, ``reading`` parses it as leniently
as Regal does, ``directory`` finds its profile, and ``applying`` changes that profile; ``pages`` show it all. The
sandbox shares no code with the client side of this package, so that it can't repeat the client's mistakes.
"""
