"""How cost grows, and what it is spent on: ``lsms-rt bench scaling``."""
