"""
What a rendered room is made of: solids with surfaces, lights, and a view of them.

World axes: x and y horizontal, z up, metres.  Camera axes: x right, y down, z forward.
A solid is the unit box, ball or upright tube of its own frame, q = diag(1/half) axes (p - centre).
"""

from dataclasses import dataclass
import math
import random

import numpy as np

BOX, BALL, TUBE = 0, 1, 2


class Dice(random.Random):
    """Python's random numbers: drawn one at a time they cost a tenth of NumPy's."""

    def normals(self, count: int, sigma: float) -> list[float]:
        """Return normal numbers around 0."""
        return [self.gauss(0.0, sigma) for _ in range(count)]

    def uniforms(self, count: int, low: float, high: float) -> list[float]:
        """Return uniform numbers."""
        return [self.uniform(low, high) for _ in range(count)]

    def log_uniform(self, low: float, high: float) -> float:
        """Return a number whose logarithm is uniform."""
        return math.exp(self.uniform(math.log(low), math.log(high)))


@dataclass(frozen=True)
class Surface:
    """
    How a face looks.

    texture: number in the texture library; tile_u_m, tile_v_m: size of one texture copy in metres;
    shift: texture offset in copies; turn_deg: rotation on the face; tint: linear RGB;
    contrast: 0 gives the plain tint; gloss: strength of highlights; glow: emitted light.
    """

    texture: int = 0
    tile_u_m: float = 1.0
    tile_v_m: float = 1.0
    shift: tuple[float, float] = (0.0, 0.0)
    turn_deg: float = 0.0
    tint: tuple[float, float, float] = (0.7, 0.7, 0.7)
    contrast: float = 1.0
    gloss: float = 0.0
    glow: float = 0.0

    def packed(self) -> list[float]:
        """Return the SURFACE_COLUMNS numbers that the shader reads."""
        c, s = math.cos(math.radians(self.turn_deg)), math.sin(math.radians(self.turn_deg))
        to_u, to_v = 1.0 / self.tile_u_m, 1.0 / self.tile_v_m
        matrix = [c * to_u, -s * to_u, s * to_v, c * to_v]
        finish = [self.contrast, self.gloss, self.glow]
        copies = max(abs(c * to_u) + abs(s * to_u), abs(s * to_v) + abs(c * to_v))
        return [self.texture, *matrix, *self.shift, *self.tint, *finish, copies]


SURFACE_COLUMNS = 14
Axes = tuple[tuple[float, float, float], ...]
UPRIGHT: Axes = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))


@dataclass(frozen=True)
class Solid:
    """One convex solid; faces: the surface of all faces, or of -x, +x, -y, +y, -z, +z."""

    kind: int
    centre: tuple[float, float, float]
    half: tuple[float, float, float]
    faces: Surface | tuple[Surface, ...]
    axes: Axes = UPRIGHT

    def surfaces(self) -> tuple[Surface, ...]:
        """Return the six surfaces."""
        return self.faces if isinstance(self.faces, tuple) else (self.faces,) * 6


@dataclass(frozen=True)
class Light:
    """A small lamp; power: irradiance at one metre; tint: linear RGB."""

    position: tuple[float, float, float]
    power: float
    tint: tuple[float, float, float] = (1.0, 1.0, 1.0)


@dataclass(frozen=True)
class Pose:
    """Where the camera is; columns of rotation: its right, down and forward axes in the world."""

    position: np.ndarray
    rotation: np.ndarray

    @classmethod
    def looking(
        cls, position, *, azimuth_deg: float, tilt_deg: float = 0.0, roll_deg: float = 0.0
    ) -> 'Pose':
        """Look along an azimuth (from x towards y), tilted up by tilt_deg, then rolled."""
        a, t, r = (math.radians(x) for x in (azimuth_deg, tilt_deg, roll_deg))
        forward = np.array([math.cos(a) * math.cos(t), math.sin(a) * math.cos(t), math.sin(t)])
        right = np.array([math.sin(a), -math.cos(a), 0.0])
        down = np.cross(forward, right)
        right, down = (
            math.cos(r) * right + math.sin(r) * down,
            math.cos(r) * down - math.sin(r) * right,
        )
        return cls(np.asarray(position, float), np.stack([right, down, forward], axis=1))

    @classmethod
    def looking_at(cls, position, target, *, roll_deg: float = 0.0) -> 'Pose':
        """Look from a position at a target."""
        x, y, z = np.asarray(target, float) - np.asarray(position, float)
        tilt = math.degrees(math.atan2(z, math.hypot(x, y)))
        azimuth = math.degrees(math.atan2(y, x))
        return cls.looking(position, azimuth_deg=azimuth, tilt_deg=tilt, roll_deg=roll_deg)


@dataclass(frozen=True)
class Scene:
    """
    A box-shaped room seen from inside, and the solids in it.

    room: its faces are the walls (-x, +x, -y, +y), the floor (-z) and the ceiling (+z);
    ambient: light from everywhere; lights: the first one casts shadows.
    """

    room: Solid
    solids: list[Solid]
    lights: list[Light]
    ambient: float = 0.3

    def everything(self) -> list[Solid]:
        """Return the room (always number 0) and the solids."""
        return [self.room, *self.solids]


def turned(yaw_deg: float, pitch_deg: float = 0.0) -> Axes:
    """Return axes (rows) of a solid turned about z, then pitched about its own x axis."""
    a, b = math.radians(yaw_deg), math.radians(pitch_deg)
    cos, sin, c, s = math.cos(a), math.sin(a), math.cos(b), math.sin(b)
    return (cos, sin, 0.0), (-c * sin, c * cos, s), (s * sin, -s * cos, c)


def spun(x: float, y: float, yaw_deg: float) -> tuple[float, float]:
    """Return the world direction of (x, y) given in a frame turned about z."""
    a = math.radians(yaw_deg)
    return x * math.cos(a) - y * math.sin(a), x * math.sin(a) + y * math.cos(a)
