"""A whole archive of series, with Ray Data: on this machine or on a cluster.

``rows`` lists the series of a manifest or a folder, ``state`` records which were begun and ended, ``worker`` does one
series in an actor, ``cluster`` starts Ray and passes the series to its actors, ``archive`` goes on until every series
has a result, ``measurements`` writes the table of all.
"""
