"""What run 1 of ``rsn_medium`` begins with: a ResNet-50 trained on ImageNet, and the stage of ``rsn_small``.

Called with the file of the ResNet's weights (caffe style) and the file to write.
"""

from __future__ import annotations

import sys

from poise.checkpoints import load_checkpoint, save_checkpoint
from poise.models import preset
from poise.models.rsn import RSN
from poise.train.initial import load_initial_weights
from poise.zoo import shipped

if __name__ == "__main__":
    model = RSN(preset("rsn_medium"))
    print(load_initial_weights(model, sys.argv[1]))
    small = load_checkpoint(shipped()["rsn_small"].path).model
    assert isinstance(small, RSN)
    model.stages.load_state_dict(small.stages.state_dict())
    save_checkpoint(sys.argv[2], model)
