"""Commands about people: what is on record of one, what Regal lacks, who must not be contacted, who is forgotten."""
