"""Small things that every part may use: files, words, versions, timing, memory, FAISS's import."""
