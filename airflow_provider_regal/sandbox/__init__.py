"""A Regal on this machine: it answers, remembers and judges what was sent, and has pages to look at.

How one request travels::

    POST /events -> gate -> answer (at once, from the gate or a scripted fault)
                      |
                      +--> inbox -> contract -> reading -> directory -> applying -> contacts
                                       |           |                       |
                                       +-----------+---- findings ---------+--> side API, pages

``gate`` decides the answer, ``contract`` compares the body with what a well-behaved client sends, ``reading``
understands it as leniently as Regal does, ``directory`` finds whose it is, ``applying`` changes that contact.
Nothing here is shared with the client side of this package, so that a mistake there cannot hide itself here.
"""
