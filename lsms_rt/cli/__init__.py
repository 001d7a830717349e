"""The command line: ``lsms-rt``, one module per command."""
