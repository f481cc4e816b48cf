"""Approximate search over arrays of patches: coresets, and FAISS indices by factory string."""
