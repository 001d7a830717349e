"""``lsms-rt worker``: segments the series of an archive that rules choose, and stores the results there.

``rules`` reads what to do, ``http`` speaks with the archive and says which faults pass, ``dicomweb`` and ``orthanc``
ask for series, fetch and store, ``feed`` finds series, ``ledger`` remembers them in a ``database``, ``owners`` knows
which workers live, ``work`` does one series, ``fetched`` checks what was sent, ``loop`` does one after the other,
``retry`` says how long to wait, ``time_limit`` ends what would take for ever, ``audit`` and ``metrics`` tell of it,
``start`` puts all of them together.
"""
