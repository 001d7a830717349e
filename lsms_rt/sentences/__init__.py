"""The contract for sentences: what an engine can be told, and how it reads a sentence before anything is computed.

``contract`` is the table of words (``english.json`` is the package's own), ``words`` splits a sentence, ``lexicon``
says which words an engine knows, ``segments`` and ``synonyms`` put known words in the place of others, ``refusals``,
``sides``, ``language`` and ``meaning`` find what is not understood, ``reader`` puts them together into a ``Reading``.
"""

from .contract import TABLE as TABLE
from .contract import Contract as Contract
from .contract import contract_of as contract_of
from .contract import default_contract as default_contract
from .reader import Reader as Reader
from .reader import open_reader as open_reader
from .reading import Reading as Reading
