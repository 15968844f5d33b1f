"""`make bench`: how fast, against peers, in one interleaved run. Ratios are what to trust; machines differ."""
