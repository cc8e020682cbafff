"""One generated street scene: perspective, occlusion, texture, light and noise, with its label."""

from collections.abc import Callable

import cv2
import numpy as np
from jaxtyping import UInt8

from fastfcn_jax.data.source import IGNORE_LABEL

NAMES = ("road", "sidewalk", "building", "tree", "sky", "pole", "sign", "person", "car")
ROAD, SIDEWALK, BUILDING, TREE, SKY, POLE, SIGN, PERSON, CAR = range(len(NAMES))


class Scene:
    """One street seen from its middle, painted from far to near onto image and label.

    An object on the ground at nearness t (0 at the horizon, 1 at the lower border) stands at
    row `horizon + t * (height - horizon)` and is t times as tall as at the lower border.
    """

    def __init__(self, rng: np.random.Generator, size: tuple[int, int]):
        self.rng, (self.h, self.w) = rng, size
        self.image = np.zeros((*size, 3), np.float32)
        self.label = np.full(size, IGNORE_LABEL, np.uint8)
        self.textures: dict[int, np.ndarray] = {}
        self.horizon = int(self.h * rng.uniform(0.38, 0.5))
        self.vanishing_x = self.w * rng.uniform(0.35, 0.65)
        self.road = np.array([rng.uniform(-0.1, 0.15), rng.uniform(0.85, 1.1)]) * self.w

    def draw(self) -> tuple[UInt8[np.ndarray, "h w 3"], UInt8[np.ndarray, "h w"]]:
        self._sky()
        self._ground()
        self._buildings()
        for t, paint in self._objects():
            paint(t)
        return self._photograph(), self.label

    def _sky(self) -> None:
        top = self._color((95, 125, 175), 45)
        bottom = top + np.float32(self.rng.uniform(10, 70))
        rise = np.linspace(0, 1, self.h, dtype=np.float32)[:, None, None]
        sky = np.repeat(top + (bottom - top) * rise, self.w, axis=1)
        self._paint(np.ones((self.h, self.w), np.uint8), sky, SKY, rough=35, cell=24)

    def _ground(self) -> None:
        """Sidewalk over the whole width below the horizon, with the road as a wedge on top."""
        below = self._polygon(
            [(0, self.horizon), (self.w, self.horizon), (self.w, self.h), (0, self.h)]
        )
        self._paint(below, self._color((150, 138, 125), 20), SIDEWALK, rough=22, cell=4)
        corners = [(self.vanishing_x, self.horizon), (self.road[1], self.h), (self.road[0], self.h)]
        wedge = self._polygon(corners)
        self._paint(wedge, self._color((88, 90, 98), 18), ROAD, rough=16, cell=3)
        for share in self.rng.uniform(0.25, 0.75, 1 + self.rng.integers(2)):
            for t in np.arange(0.1, 1, 0.22):
                self._lane_mark(share, t, t + 0.1)

    def _lane_mark(self, share: float, near: float, far: float) -> None:
        corners = []
        for t, side in ((near, -1), (near, 1), (far, 1), (far, -1)):
            x, y = self._on_road(share, t)
            corners.append((x + side * 1.6 * t * self.w / 256, y))
        self._paint(self._polygon(corners), self._color((205, 205, 195), 20), ROAD)

    def _buildings(self) -> None:
        """Two rows of houses along the street; their roofs fall towards the vanishing point."""
        for side in (0, 1):
            x = -10.0 if side == 0 else self.w + 10.0
            while abs(x - self.vanishing_x) > 0.1 * self.w and self.rng.random() < 0.93:
                width = abs(x - self.vanishing_x) * self.rng.uniform(0.25, 0.5)
                end = x + width if side == 0 else x - width
                if self.rng.random() < 0.85:
                    self._building(x, end)
                x = end

    def _building(self, near: float, far: float) -> None:
        height = self.rng.uniform(0.45, 1.3) * self.h / (0.6 * self.w)
        base = 0.16 * self.h / (0.5 * self.w)

        def row(x: float, slope: float) -> float:
            return self.horizon + slope * abs(x - self.vanishing_x)

        corners = [(near, row(near, -height)), (far, row(far, -height))]
        corners += [(far, row(far, base)), (near, row(near, base))]
        house = self._polygon(corners)
        self._paint(house, self._color((135, 115, 100), 55), BUILDING, rough=18, cell=5)
        step = self.rng.integers(7, 13)
        rows, columns = np.arange(self.h)[:, None], np.arange(self.w)
        windows = (rows % step < step // 2) & (columns % (step - 1) < step // 2)
        glass = self._color((85, 95, 110), 50)
        self._paint(house & windows, glass, BUILDING, rough=18, cell=5)

    def _objects(self) -> list[tuple[float, Callable[[float], None]]]:
        """(nearness, painter) of everything that stands on the ground, far ones first."""
        counts = (  # painter, at least, below, nearness from, to
            (self._car, 1, 5, 0.3, 0.9),
            (self._person, 1, 4, 0.6, 1.0),
            (self._tree, 1, 4, 0.4, 0.9),
            (self._pole, 1, 3, 0.6, 1.0),
            (self._sign, 1, 3, 0.55, 0.9),
            (self._clutter, 0, 3, 0.2, 0.6),
            (self._shadow, 0, 3, 0.2, 0.8),
        )
        objects = []
        for paint, least, most, far, near in counts:
            for t in self.rng.uniform(far, near, self.rng.integers(least, most)):
                objects.append((float(t), paint))
        objects.sort(key=lambda o: o[0])
        if self.rng.random() < 0.5:
            objects.append((1.0, self._hood))
        return objects

    def _car(self, t: float) -> None:
        x, y = self._on_road(self.rng.uniform(0.05, 0.95), t)
        w, h = 0.36 * self.h * t * self.rng.uniform(0.8, 1.7), 0.3 * self.h * t
        body = self._box(x, y - 0.08 * h, w, 0.5 * h) | self._polygon(
            [
                (x - 0.4 * w, y - 0.5 * h),
                (x - 0.28 * w, y - h),
                (x + 0.28 * w, y - h),
                (x + 0.4 * w, y - 0.5 * h),
            ]
        )
        self._paint(body, self._color((120, 110, 110), 100), CAR, rough=12, cell=8)
        self._paint(
            self._box(x, y - 0.58 * h, 0.55 * w, 0.3 * h), self._color((50, 60, 75), 20), CAR
        )
        for side in (-1, 1):
            wheel = self._ellipse(x + side * 0.32 * w, y - 0.1 * h, 0.1 * w, 0.12 * h)
            self._paint(wheel, self._color((28, 28, 28), 10), CAR)
            light = self._ellipse(x + side * 0.42 * w, y - 0.42 * h, 0.05 * w, 0.06 * h)
            self._paint(light, self._color((200, 120, 90), 50), CAR)

    def _person(self, t: float) -> None:
        x, y = self._beside_road(t)
        h = 0.72 * self.h * t * self.rng.uniform(0.85, 1.1)
        lean = self.rng.uniform(-0.05, 0.05) * h
        cloth = self._color((225, 125, 50), 40)
        self._paint(self._ellipse(x, y - 0.58 * h, 0.19 * h, 0.25 * h), cloth, PERSON)
        legs = self._color((45, 50, 110), 30)
        for side in (-1, 1):
            self._paint(self._box(x + side * 0.09 * h + lean, y, 0.16 * h, 0.45 * h), legs, PERSON)
        skin = self._color((190, 145, 120), 40)
        self._paint(self._ellipse(x, y - 0.9 * h, 0.11 * h, 0.12 * h), skin, PERSON)

    def _tree(self, t: float) -> None:
        x, y = self._beside_road(t)
        h = self.h * t * self.rng.uniform(0.9, 1.3)
        self._paint(self._box(x, y, 0.09 * h, 0.5 * h), self._color((85, 65, 45), 20), TREE)
        leaves = self._color((70, 105, 50), 35)
        for _ in range(6):
            dx, dy = self.rng.uniform(-0.2, 0.2, 2) * h
            crown = self._ellipse(x + dx, y - 0.72 * h + dy, 0.22 * h, 0.17 * h)
            self._paint(crown, leaves, TREE, rough=60, cell=3)

    def _pole(self, t: float) -> None:
        x, y = self._beside_road(t)
        h = self.h * t * self.rng.uniform(0.9, 1.4)
        grey = self._color((165, 168, 170), 25)
        self._paint(self._box(x, y, 0.15 * self.h * t, h), grey, POLE)

    def _sign(self, t: float) -> None:
        """A plate on a pole of its own."""
        x, y = self._beside_road(t)
        h = self.h * t * self.rng.uniform(0.65, 0.9)
        self._paint(self._box(x, y, 0.13 * self.h * t, h), self._color((165, 168, 170), 25), POLE)
        hues = ((200, 40, 40), (40, 70, 190), (225, 195, 40))
        strong = self._color(hues[self.rng.integers(3)], 25)
        half = 0.19 * self.h * t
        shape = self._ellipse if self.rng.random() < 0.5 else self._square
        self._paint(shape(x, y - h, half, half), strong, SIGN)
        self._paint(shape(x, y - h, 0.6 * half, 0.6 * half), self._color((225, 225, 225), 25), SIGN)

    def _clutter(self, t: float) -> None:
        """Things without a class, such as bins and carts: their pixels are ignored."""
        x, y = self._beside_road(t)
        size = self.h * t * self.rng.uniform(0.15, 0.3)
        color = self._color((110, 110, 110), 100)
        self._paint(self._box(x, y, size, size), color, IGNORE_LABEL, rough=50, cell=2)

    def _shadow(self, t: float) -> None:
        """Darkens an ellipse on the ground; labels do not change."""
        x, y = self._on_road(self.rng.uniform(-0.3, 1.3), t)
        band = self._ellipse(x, y, 0.4 * self.w * t, 0.1 * self.h * t)
        self.image[band > 0] *= self.rng.uniform(0.45, 0.75)

    def _hood(self, t: float) -> None:
        """The bonnet of the camera's own car, ignored as in Cityscapes."""
        center = self.w * self.rng.uniform(0.45, 0.55)
        hood = self._ellipse(
            center, float(self.h), 0.45 * self.w, self.rng.uniform(0.05, 0.1) * self.h
        )
        self._paint(hood, self._color((60, 60, 65), 35), IGNORE_LABEL)

    def _photograph(self) -> UInt8[np.ndarray, "h w 3"]:
        """Light from one side, a colour cast, a soft lens, sensor noise."""
        angle = self.rng.uniform(0, 2 * np.pi)
        across = np.cos(angle) * np.linspace(-1, 1, self.w)
        down = np.sin(angle) * np.linspace(-1, 1, self.h)
        light = 1 + 0.22 * (down[:, None] + across)
        cast = self.rng.uniform(0.65, 1.25) * self.rng.uniform(0.88, 1.12, 3)
        image = self.image * light.astype(np.float32)[..., None] * cast.astype(np.float32)
        image = cv2.GaussianBlur(image, (0, 0), self.rng.uniform(0.3, 0.9))
        noise = self.rng.standard_normal(image.shape, np.float32)
        image += np.float32(self.rng.uniform(2, 8)) * noise
        return np.clip(image, 0, 255).astype(np.uint8)

    def _paint(
        self, where: np.ndarray, color: np.ndarray, index: int, *, rough: int = 0, cell: int = 1
    ) -> None:
        """Fills `where` (uint8, nonzero inside), with `rough` grey levels of `cell`-sized noise."""
        x, y, w, h = cv2.boundingRect(where)
        box = np.s_[y : y + h, x : x + w]
        inside = where[box] > 0
        pixels = color if color.ndim == 1 else color[box]
        if rough:
            pixels = pixels + np.float32(rough) * self._texture(cell)[box][..., None]
        np.copyto(self.image[box], pixels, where=inside[..., None])
        self.label[box][inside] = index

    def _on_road(self, share: float, t: float) -> tuple[float, float]:
        """Pixel of the ground at `share` of the road's width, 0 its left and 1 its right kerb."""
        at_border = self.road[0] + share * (self.road[1] - self.road[0])
        x = self.vanishing_x + t * (at_border - self.vanishing_x)
        return x, self.horizon + t * (self.h - self.horizon)

    def _beside_road(self, t: float) -> tuple[float, float]:
        outside = self.rng.uniform(-0.4, -0.02)
        x, y = self._on_road(outside if self.rng.random() < 0.5 else 1 - outside, t)
        return min(max(x, 0.06 * self.w), 0.94 * self.w), y

    def _color(self, mean: tuple[int, int, int], spread: int) -> np.ndarray:
        common = self.rng.uniform(-spread, spread)
        color = np.array(mean) + common + self.rng.uniform(-0.4 * spread, 0.4 * spread, 3)
        return color.astype(np.float32)

    def _texture(self, cell: int) -> np.ndarray:
        """Smooth noise in about -1..1 with patches of `cell` pixels; drawn once per scene."""
        if cell not in self.textures:
            coarse = self.rng.normal(0, 0.5, (self.h // cell + 2, self.w // cell + 2))
            fine = cv2.resize(coarse, (self.w, self.h), interpolation=cv2.INTER_CUBIC)
            self.textures[cell] = fine.astype(np.float32)
        return self.textures[cell]

    def _polygon(self, corners: list[tuple[float, float]]) -> np.ndarray:
        canvas = np.zeros((self.h, self.w), np.uint8)
        cv2.fillPoly(canvas, [np.round(corners).astype(np.int32)], 1)
        return canvas

    def _box(self, x: float, bottom: float, width: float, height: float) -> np.ndarray:
        left, right = x - width / 2, x + width / 2
        return self._polygon(
            [(left, bottom), (right, bottom), (right, bottom - height), (left, bottom - height)]
        )

    def _square(self, x: float, y: float, half_width: float, half_height: float) -> np.ndarray:
        return self._box(x, y + half_height, 2 * half_width, 2 * half_height)

    def _ellipse(self, x: float, y: float, half_width: float, half_height: float) -> np.ndarray:
        canvas = np.zeros((self.h, self.w), np.uint8)
        axes = (max(round(half_width), 1), max(round(half_height), 1))
        cv2.ellipse(canvas, (round(x), round(y)), axes, 0, 0, 360, 1, -1)
        return canvas
