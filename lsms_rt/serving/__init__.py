"""``lsms-rt serve``: engines behind HTTP.

``settings`` is what the server was started with.  ``pool`` owns the worker processes and the queue before them,
``worker`` is such a process, ``tasks`` is what the two say to each other, ``work`` is what a worker does with a task.
``uploads`` keeps the images that were sent, ``jobs`` the tasks that were asked for and their results.  ``app`` puts the
routes together: ``routes_kserve``, ``routes_images``, ``routes_jobs``, ``routes_state``; ``replies`` words errors,
``access`` checks the key, ``metrics`` counts.
"""
