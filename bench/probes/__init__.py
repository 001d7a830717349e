"""Which words of a sentence matter: one attribute is replaced by another value, and the masks are compared."""
