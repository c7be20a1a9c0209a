"""A campaign killed by the operating system takes the training that is under way along."""

import subprocess
import sys

# The campaign's child runs this file too, as `spawn` has it: both sides see a training that goes on for ever.
CAMPAIGN = """
import sys, time
from pathlib import Path
from types import SimpleNamespace

class RunFolder:
    finished = False
    checkpoint = SimpleNamespace(load=lambda: None)
    def __init__(self, path):
        pass

def train(*_, **__):
    print("training", flush=True)
    time.sleep(300)

fakes = {"training": {}, "training.run_folder": {"RunFolder": RunFolder}, "training.train": {"train": train},
         "evaluation": {}, "evaluation.evaluate": {"evaluate": None}}
sys.modules |= {f"boneage.{name}": SimpleNamespace(**members) for name, members in fakes.items()}

if __name__ == "__main__":
    from boneage import sweeps
    from boneage.config import TrainConfig
    sweeps.run(sweeps.Campaign((TrainConfig(),), None), Path("data"), Path("outputs"))
"""


def test_the_training_ends_with_its_campaign(tmp_path):
    script = tmp_path / "campaign.py"
    script.write_text(CAMPAIGN)
    campaign = subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True)
    assert campaign.stdout.readline() == "[1/1] EfficientNetB0 joint: to do\n"
    assert campaign.stdout.readline() == "training\n"
    campaign.kill()
    campaign.communicate(timeout=100)  # ends when nobody holds the output any longer, the child included
