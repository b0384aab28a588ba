"""Process an accepted body: check it against the contract, read it as leniently as Regal does, and apply it."""
