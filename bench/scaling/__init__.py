"""Cost against image size, batch, sentence and series, and how it is spent: ``lsms-rt bench scaling``."""
