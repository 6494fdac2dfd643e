"""An SVG drawing of a network, from its layers.

    python -m visualization.architecture alexnet

RUN_OR_FILE may be the name of a network. A box is a layer; what works element by element (neurons,
BatchNorm, dropout) sticks to the box before it. Sizes of maps stand on the edges where they
change. Towers stand beside one another, with crossing edges where they exchange maps (Krizhevsky
et al. 2012, Figure 2); branches end in a bar where they are concatenated and in a plus where they
are added. Long networks go on in the next column.
"""

import argparse
from collections.abc import Generator
from pathlib import Path

import vision_models
from training import RunError
from visualization import command_line
from visualization.drawing import drawing
from visualization.opening import Opened, open_abstract

NETWORK = open_abstract
