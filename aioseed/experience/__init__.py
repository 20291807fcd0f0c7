"""From rows to unrolls: the open unrolls of every slot and the bounded queue of full ones. NumPy only."""
