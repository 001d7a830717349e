"""Training: build side only.

``slices`` holds pictures, ``sentences`` what is said about them, ``batches`` draws both; ``heads`` and ``losses`` are
one step, ``recipe`` says what happens when, ``run`` does it, ``validation`` judges, ``fit`` puts these together.
``demo`` trains the bundled weights, ``release`` bundles them; ``train`` is ``lsms-rt train``: ``dataset`` checks its
rows, ``prepare`` reads its images, ``start`` (with ``bert`` and ``backbone``) makes its network, ``card`` describes it.
"""
