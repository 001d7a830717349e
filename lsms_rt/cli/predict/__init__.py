"""``lsms-rt predict``: ``command`` holds the arguments and prints the answers, ``lines`` words them."""
