"""The fish world: a batched renderer of fishes in any pose."""
