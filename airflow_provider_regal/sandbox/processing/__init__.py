"""What becomes of a body that was accepted: judged by the contract, read as leniently as Regal does, and applied."""
