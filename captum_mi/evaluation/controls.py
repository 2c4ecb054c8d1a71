"""What the methods of a table are compared with."""

CONTROLS = {
    "ig": "Captum's IntegratedGradients",
    "random": "noise on pixels",
    "patches": "noise on patches",
    "inverted": "nib with its sign turned",
}
"""Name -> what it is, in words; ``CONTROL_ROWS`` makes its row."""
