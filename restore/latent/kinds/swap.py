"""Two folders, one encoder, a decoder for each: what all pictures share is in the code, the rest in the decoders.

The encoder sees pictures moved a little, so that it cannot just copy.
"""

from __future__ import annotations

from restore.latent.kinds.denoising import Denoising

LOSS = Denoising
