"""`make screenshots`: the web page in images/, light, dark and on a phone, with a model's answer to a drawing.

The drawing is a phantom and says so; no radiograph of a patient is shown.
"""

import argparse
import io
from pathlib import Path

import cv2
from PIL import Image
from web_live import chromium, served

from boneage.data.phantom import render
from boneage.paths import atomic
from boneage.serving.predictor import Predictor

NAME = "PHANTOM, a synthetic drawing.png"  # stands at the head of the card
LOOKS = {"light": ("light", 1180, 900), "dark": ("dark", 1180, 900), "phone": ("light", 390, 844)}


def take(browser, address: str, image: bytes, path: Path, scheme: str, width: int, height: int) -> None:
    """Go through the page as a reader does, and photograph all of it."""
    page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
    page.goto(address)
    page.set_input_files("#files", {"name": NAME, "mimeType": "image/png", "buffer": image})
    page.get_by_role("radio", name="Male", exact=True).check()
    page.get_by_label("Years").fill("10")
    page.get_by_label("Months").fill("8")
    page.get_by_role("button", name="Estimate bone age").click()
    page.locator(".result").wait_for()
    page.get_by_role("radio", name="younger").check()
    picture = Image.open(io.BytesIO(page.screenshot(full_page=True))).convert("RGB")
    page.close()
    with atomic(path) as part:
        few = picture.quantize(palette=picture.quantize(256), dither=Image.Dither.FLOYDSTEINBERG)  # half the bytes
        few.save(part, optimize=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", help="as `boneage serve --model`")
    parser.add_argument("--out", type=Path, default=Path("images"))
    arguments = parser.parse_args()
    image = cv2.imencode(".png", render(126, 1, seed=3, height=1100).image)[1].tobytes()
    with served(Predictor(arguments.model)) as address, chromium() as browser:
        for look, settings in LOOKS.items():
            take(browser, address, image, arguments.out / f"web_{look}.png", *settings)


if __name__ == "__main__":
    main()
