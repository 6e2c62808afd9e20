"""What arms and masks are called."""

ARMS = {
    "none": "no aid",
    "activation": "soft neurons",
    "skips": "ghost skips",
    "rescaling": "rescaling",
    "smoothing": "smoothing",
    "all": "all",
    "activation_released": "swish for good",
    "activation_sharpen": "p-swish sharpened",
    "skips_released": "ghost skips for good",
    "skips_identity": "identity skips",
    "rescaling_released": "rescaling, dense gradients",
}
MASKS = {
    "dense": "dense",
    "random": "random",
    "snip": "SNIP",
    "synflow": "SynFlow",
    "tickets": "tickets",
}
