"""Pictures of what a network has learned; each a module that reads a run or a weights file.

    python -m visualization.kernels runs/alexnet
    python -m visualization.kernels resnet20.th --network=resnet20 --out=pictures

A file a picture. `command_line` is what all of them are asked by, `opening` opens the network and
the images, `pictures` puts images together and writes files.
"""

import os

# Needs no screen. Before anything imports matplotlib: the environment's backend may not be there.
os.environ["MPLBACKEND"] = "Agg"
