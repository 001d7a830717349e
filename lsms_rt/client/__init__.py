"""A client of ``lsms-rt serve``: httpx and NumPy, no engine library.

from lsms_rt.client import Client

with Client("http://127.0.0.1:8765") as client:
    answer = client.predict("scan.dcm", "the cyst in the left lobe of the liver")
    print(answer.found, answer.mask.shape)
"""

from .client import Answer, Client
from .connection import ServerError

__all__ = ["Answer", "Client", "ServerError"]
