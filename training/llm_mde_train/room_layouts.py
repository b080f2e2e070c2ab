"""
Where things stand and where the camera is: desks from close by, rooms, corridors, halls, corners.

Each layout returns a scene and a pose; `sample_scene` picks a layout.
"""

from dataclasses import replace

import numpy as np

from llm_mde_train.room_furniture import FABRICS, PAINTS, Workshop
from llm_mde_train.room_scene import BOX, Dice, Light, Pose, Scene, Solid, Surface, spun

FLOORS = ('planks', 'planks', 'grain', 'tiles', 'carpet', 'speckled', 'plain', 'plain', 'cloudy',
          'checks', 'cracked')  # fmt: skip
WALLS = ('plain', 'plain', 'plain', 'plain', 'cloudy', 'stripes', 'bricks', 'tiles', 'cracked',
         'dots', 'grain')  # fmt: skip
CLEARANCE_M = 0.12


def sample_scene(rng: Dice) -> tuple[Scene, Pose]:
    """Return a random furnished scene and a camera in free space of it."""
    layouts = (_desk, _room, _corridor, _hall, _object, _corner)
    (layout,) = rng.choices(layouts, weights=(30, 20, 12, 12, 14, 12))
    for _ in range(20):
        scene, pose = layout(rng)
        if is_free(scene, pose.position):
            return scene, pose
    return scene, pose


def furnished_office(rng: Dice) -> tuple[Scene, np.ndarray]:
    """Return an office with two full desks and furniture around, and a point to look at."""
    make = Workshop(rng)
    room = _shell(make, rng.uniform(4.5, 6), rng.uniform(5, 7), rng.uniform(2.5, 2.9))
    x, y, yaw = (
        room.half[0] + rng.gauss(0, 0.3),
        room.half[1] + rng.gauss(0, 0.3),
        rng.gauss(0, 10),
    )
    parts, (width, _, height) = _full_desk(make, x, y, yaw, clutter=14)
    parts += make.monitor(x, y + 0.2, height, yaw_deg=yaw)
    parts += make.keyboard(x, y - 0.1, height, yaw_deg=yaw)
    side = spun(width + 0.4, 0.3, yaw)
    parts += _full_desk(make, x + side[0], y + side[1], yaw + 90, clutter=8)[0]
    parts += make.shelf(0.8, 2 * room.half[1] - 0.25, yaw_deg=0)
    parts += make.cabinet(2.1, 2 * room.half[1] - 0.35, yaw_deg=0)
    parts += make.plant(0.4, 2 * room.half[1] - 1.2)
    parts += make.shelf(0.25, 1.5, yaw_deg=90) + make.sofa(2.5, 0.5, yaw_deg=0)
    for wall in range(4):
        parts += _decorated_wall(make, room, wall, 1.2)
    target = np.array([x, y, height + 0.1])
    return _finish(make, room, parts + _fittings(make, room), target), target


def is_free(scene: Scene, position, margin_m: float = CLEARANCE_M) -> bool:
    """Return whether a point is inside the room and away from every solid."""
    half = np.array(scene.room.half) - margin_m
    if (np.abs(np.asarray(position) - scene.room.centre) > half).any():
        return False
    axes = np.array([solid.axes for solid in scene.solids]).reshape(-1, 3, 3)
    centre = np.array([solid.centre for solid in scene.solids]).reshape(-1, 3)
    half = np.array([solid.half for solid in scene.solids]).reshape(-1, 3)
    local = np.abs(np.einsum('kij,kj->ki', axes, np.asarray(position) - centre))
    return not (local < half + margin_m).all(axis=1).any()


# ---- the shell of a room


def _shell(make: Workshop, width, length, height) -> Solid:
    """Return the room box from (0, 0, 0) to (width, length, height)."""
    rng = make.rng
    pale = rng.uniform(0.35, 0.9)
    wall_tint = tuple(
        min(max(pale * (1 + x), 0.05), 0.95) for x in rng.normals(3, 0.12 * rng.random())
    )
    wall = make.surface(*WALLS, tile_m=(0.6, 3.0), tint=wall_tint)
    other = make.surface(*WALLS, tile_m=(0.6, 3.0)) if rng.random() < 0.35 else wall
    floor_tint = make.wood if rng.random() < 0.4 else make.colour(0.08, 0.7, 0.3)
    floor = make.surface(*FLOORS, tile_m=(0.5, 2.5), tint=floor_tint)
    floor = replace(floor, gloss=rng.choice([0, 0, 0.3, 0.8]) * rng.random())
    ceiling = make.surface(
        'plain', 'plain', 'tiles', 'speckled', tint=(rng.uniform(0.5, 0.9),) * 3
    )
    half = (width / 2, length / 2, height / 2)
    return Solid(BOX, half, half, (wall, other, wall, wall, floor, ceiling))


def _on_wall(make: Workshop, room: Solid, side: int, along, z, width, height, surface, thick=0.02):
    """Return a flat box on wall side (-x, +x, -y, +y) at a distance along it."""
    size_x, size_y = 2 * room.half[0], 2 * room.half[1]
    if side < 2:
        x = thick / 2 if side == 0 else size_x - thick / 2
        return make.box(x, along, z, (thick, width, height), surface)
    y = thick / 2 if side == 2 else size_y - thick / 2
    return make.box(along, y, z, (width, thick, height), surface)


def _decorated_wall(make: Workshop, room: Solid, side: int, spacing_m: float) -> list[Solid]:
    """Return doors, posters, boards, windows, radiators, shelves and pipes along one wall."""
    rng, parts = make.rng, []
    length = 2 * (room.half[1] if side < 2 else room.half[0])
    height = 2 * room.half[2]
    along = rng.uniform(0.3, spacing_m)
    while along < length - 0.3:
        kind = rng.random()
        if kind < 0.3:
            parts += _door(make, room, side, along, min(2.05, height - 0.2))
        elif kind < 0.65:
            width, tall = rng.uniform(0.2, 1.6), rng.uniform(0.25, 1.2)
            z = min(rng.uniform(0.9, 1.6), height - tall - 0.1)
            art = make.picture(width, tall, 'poster', 'clutter', 'page', 'stripes', 'plain')
            parts.append(_on_wall(make, room, side, along, z, width, tall, art))
        elif kind < 0.8:
            parts += _window(make, room, side, along, height)
        elif kind < 0.88:
            size = (rng.uniform(0.1, 0.4), rng.uniform(0.1, 0.5), rng.uniform(0.05, 0.25))
            thing = make.any_material()
            z = rng.uniform(0.3, height - 0.8)
            parts.append(_on_wall(make, room, side, along, z, *size[:2], thing, size[2]))
        elif kind < 0.94:
            metal = make.surface('stripes', 'grid', 'plain', tint=(0.7,) * 3, tile_m=(0.2, 0.8))
            wide = rng.uniform(0.6, 1.6)
            parts.append(_on_wall(make, room, side, along, 0.1, wide, 0.6, metal, 0.1))
        else:
            pipe = make.painted()
            parts.append(_on_wall(make, room, side, along, 0, 0.08, height, pipe, 0.08))
        along += rng.uniform(0.5, 2.0) * spacing_m
    return parts


def _door(make: Workshop, room: Solid, side, along, tall) -> list[Solid]:
    width = make.rng.uniform(0.7, 1.1)
    tint = make.accents[0] if make.rng.random() < 0.5 else make.wood
    leaf = make.picture(width, tall, 'door', tint=tint)
    frame = make.painted()
    return [
        _on_wall(make, room, side, along, 0, width + 0.16, tall + 0.08, frame, 0.03),
        _on_wall(make, room, side, along, 0, width, tall, leaf, 0.05),
    ]


def _window(make: Workshop, room: Solid, side, along, height) -> list[Solid]:
    rng = make.rng
    width, tall = rng.uniform(0.6, 2.0), rng.uniform(0.6, 1.5)
    z = min(rng.uniform(0.7, 1.1), height - tall - 0.1)
    view = make.picture(width, tall, 'outdoors', glow=rng.uniform(0.4, 2.5))
    if rng.random() < 0.3:
        view = make.picture(width, tall, 'folds', glow=rng.uniform(0, 0.6))
    frame = Surface(tint=(rng.uniform(0.3, 0.9),) * 3)
    parts = [
        _on_wall(make, room, side, along, z - 0.05, width + 0.1, tall + 0.1, frame, 0.03),
        _on_wall(make, room, side, along, z, width, tall, view, 0.04),
    ]
    for at in np.linspace(-width / 2, width / 2, rng.randrange(2, 5))[1:-1]:
        parts.append(_on_wall(make, room, side, along + at, z, 0.05, tall, frame, 0.06))
    return parts


def _fittings(make: Workshop, room: Solid) -> list[Solid]:
    """Return skirting boards and sometimes beams or columns."""
    rng, parts = make.rng, []
    (width, length, height) = (2 * h for h in room.half)
    if rng.random() < 0.6:
        strip, tall = make.painted(), rng.uniform(0.05, 0.16)
        for side in range(4):
            span = length if side < 2 else width
            parts.append(_on_wall(make, room, side, span / 2, 0, span, tall, strip, 0.015))
    for _ in range(rng.choice([0, 0, 0, 1, 2])):
        size = rng.uniform(0.2, 0.5)
        x, y = rng.uniform(0, width), rng.choice([0, length])
        column = make.surface(*WALLS)
        if rng.random() < 0.3:
            x, y = rng.uniform(0.2, 0.8) * width, rng.uniform(0.2, 0.8) * length
            parts.append(make.tube(x, y, 0, size / 3, height, column))
        else:
            parts.append(make.box(x, y, 0, (size, size, height), column))
    return parts


def _lights(make: Workshop, room: Solid, focus) -> tuple[list[Light], float, list[Solid]]:
    """Return lamps, ambient light, and the lamps' bodies; the first lamp is near the focus."""
    rng = make.rng
    size = 2 * np.array(room.half)
    warm = tuple((1 + rng.gauss(0, 0.06) * np.array([1.0, 0.0, -1.2])).tolist())
    body = Surface(tint=(0.9,) * 3, glow=rng.uniform(1.0, 4.0))
    lights, parts = [], []
    for number in range(rng.randrange(2, 5)):
        spread = rng.normals(2, 1.2) if number == 0 else rng.uniforms(2, -4, 4)
        x, y = (np.array(focus[:2]) + spread).clip(0.3, size[:2] - 0.3)
        z = size[2] - 0.08
        if number and rng.random() < 0.4:  # a window: light from the side
            z = rng.uniform(0.4, 0.7) * size[2]
            x = rng.choice([0.1, size[0] - 0.1])
        elif rng.random() < 0.85:
            box = (rng.choice([0.15, 0.3, 0.6]), rng.choice([0.3, 0.6, 1.2]), 0.04)
            parts.append(make.box(x, y, size[2] - 0.04, box, body))
        power = rng.uniform(0.5, 1.6) * max(size[2] - 0.8, 1.0) ** 2
        lights.append(Light((float(x), float(y), float(z)), power, warm))
    return lights, rng.uniform(0.2, 0.9), parts


def _finish(make: Workshop, room: Solid, solids, focus) -> Scene:
    lights, ambient, bodies = _lights(make, room, focus)
    return Scene(room, [*solids, *bodies], lights, ambient)


def _roll(rng) -> float:
    """Return a camera roll in degrees: mostly level, sometimes held at any angle."""
    kind = rng.random()
    if kind < 0.78:
        return rng.gauss(0, 4)
    return rng.uniform(-25, 25) if kind < 0.95 else rng.uniform(-100, 100)


def _orbit(rng, target, *, distance, elevation_deg, azimuth_deg) -> Pose:
    """Return a camera at a distance from a target, looking roughly at it."""
    a, e = np.radians(azimuth_deg), np.radians(elevation_deg)
    out = np.array([np.cos(a) * np.cos(e), np.sin(a) * np.cos(e), np.sin(e)])
    aim = np.asarray(target) + rng.normals(3, 0.1 * distance)
    return Pose.looking_at(np.asarray(target) + out * distance, aim, roll_deg=_roll(rng))


# ---- layouts


def _furnish(make: Workshop, room: Solid, count: int, *, keep_out=None) -> list[Solid]:
    """Return furniture along the walls and some in the middle."""
    rng, parts = make.rng, []
    width, length = 2 * room.half[0], 2 * room.half[1]
    for _ in range(count):
        yaw = 90.0 * rng.randrange(4)
        x, y = rng.uniform(0.5, width - 0.5), rng.uniform(0.5, length - 0.5)
        if rng.random() < 0.7:  # its back to a wall: furniture fronts face -y of their own frame
            side = int(rng.randrange(4))
            yaw = (90.0, -90.0, 180.0, 0.0)[side]
            x, y = ((0.3, y), (width - 0.3, y), (x, 0.3), (x, length - 0.3))[side]
        else:
            yaw += rng.gauss(0, 25)
        if keep_out is not None and np.hypot(x - keep_out[0], y - keep_out[1]) < keep_out[2]:
            continue
        parts += _furniture_piece(make, x, y, yaw)
    return parts


def _furniture_piece(make: Workshop, x, y, yaw) -> list[Solid]:
    rng = make.rng
    kind = rng.random()
    if kind < 0.25:
        return _full_desk(make, x, y, yaw, clutter=rng.randrange(2, 8))[0]
    if kind < 0.42:
        return make.shelf(x, y, yaw_deg=yaw)
    if kind < 0.6:
        return make.cabinet(x, y, yaw_deg=yaw)
    if kind < 0.72:
        return make.chair(x, y, yaw_deg=yaw + rng.gauss(0, 40))
    if kind < 0.8:
        return make.sofa(x, y, yaw_deg=yaw + 180)
    if kind < 0.86:
        return make.plant(x, y)
    if kind < 0.9:
        return make.person(x, y, yaw_deg=rng.uniform(0, 360), seated=rng.random() < 0.3)
    if kind < 0.95:
        return [make.tube(x, y, 0, rng.uniform(0.12, 0.2), rng.uniform(0.25, 0.7), make.painted())]
    size = tuple(rng.log_uniform(0.2, 0.9) for _ in range(3))
    return [make.box(x, y, 0, size, make.any_material(), yaw_deg=yaw)]


def _full_desk(make: Workshop, x, y, yaw, *, clutter: int):
    """Return a desk with things on it, and its width, depth and height."""
    rng = make.rng
    width, depth, height = rng.uniform(0.9, 2.2), rng.uniform(0.6, 1.0), rng.uniform(0.65, 0.8)
    parts = make.table(x, y, width=width, depth=depth, height=height, yaw_deg=yaw)
    back = spun(rng.uniform(-0.2, 0.2) * width, depth * 0.3, yaw)
    if rng.random() < 0.65:
        parts += make.monitor(x + back[0], y + back[1], height, yaw_deg=yaw + rng.gauss(0, 15))
        front = spun(rng.uniform(-0.2, 0.2) * width, -depth * 0.15, yaw)
        parts += make.keyboard(x + front[0], y + front[1], height, yaw_deg=yaw + rng.gauss(0, 8))
    parts += make.things_on(x, y, height, width, depth, yaw_deg=yaw, count=clutter)
    if rng.random() < 0.6:
        seat = spun(rng.uniform(-0.3, 0.3), -depth / 2 - rng.uniform(0.1, 0.6), yaw)
        parts += make.chair(x + seat[0], y + seat[1], yaw_deg=yaw + rng.gauss(0, 40))
    if rng.random() < 0.25:
        screen = spun(0, depth / 2 + 0.03, yaw)
        size = (width, 0.04, rng.uniform(1.0, 1.6))
        cloth = make.any_material()
        parts.append(make.box(x + screen[0], y + screen[1], 0, size, cloth, yaw_deg=yaw))
    return parts, (width, depth, height)


def _desk(rng) -> tuple[Scene, Pose]:
    """Return a cluttered desk from 0.4 to 2 m."""
    make = Workshop(rng)
    size = rng.uniform(2.8, 7.5), rng.uniform(2.8, 7.5), rng.uniform(2.3, 3.5)
    room = _shell(make, *size)
    x, y = rng.uniform(1.2, size[0] - 1.2), rng.uniform(1.2, size[1] - 1.2)
    yaw = rng.uniform(0, 360)
    parts, (width, depth, height) = _full_desk(make, x, y, yaw, clutter=rng.randrange(5, 28))
    if rng.random() < 0.5:
        spot = spun(rng.choice([-1, 1]) * width, 0, yaw)
        parts += _full_desk(make, x + spot[0], y + spot[1], yaw + rng.choice([0, 90, 180]),
                            clutter=rng.randrange(3, 13))[0]  # fmt: skip
    if rng.random() < 0.3:
        spot = spun(rng.gauss(0, 0.4), depth / 2 + 0.5, yaw)
        parts += make.person(x + spot[0], y + spot[1], yaw_deg=yaw + 180, seated=True)
    parts += _furnish(make, room, rng.randrange(1, 6), keep_out=(x, y, 1.3))
    for side in range(4):
        parts += _decorated_wall(make, room, side, rng.uniform(1.0, 3.0))
    on_desk = spun(rng.uniform(-0.5, 0.5) * width, rng.uniform(-0.5, 0.5) * depth, yaw)
    target = (x + on_desk[0], y + on_desk[1], height + rng.uniform(-0.15, 0.15))
    pose = _orbit(
        rng,
        target,
        distance=rng.log_uniform(0.5, 2.8),
        elevation_deg=rng.triangular(2, 75, 30),
        azimuth_deg=yaw - 90 + rng.gauss(0, 60),
    )
    return _finish(make, room, parts + _fittings(make, room), target), pose


def _room(rng) -> tuple[Scene, Pose]:
    """Return a furnished room seen from someone's hand or a robot's deck."""
    make = Workshop(rng)
    size = rng.uniform(2.5, 8), rng.uniform(3, 9), rng.uniform(2.3, 3.6)
    room = _shell(make, *size)
    eye = np.array([rng.uniform(0.3, size[0] - 0.3), rng.uniform(0.3, size[1] - 0.3), 0])
    eye[2] = rng.choice([rng.uniform(0.15, 0.6), rng.uniform(0.7, 1.3), rng.uniform(1.2, 1.8)])
    parts = _furnish(make, room, rng.randrange(3, 12), keep_out=(*eye[:2], 0.7))
    for side in range(4):
        parts += _decorated_wall(make, room, side, rng.uniform(0.8, 3.0))
    aim = np.array([rng.uniform(0, size[0]), rng.uniform(0, size[1]), rng.uniform(0.2, 1.6)])
    pose = Pose.looking_at(eye, aim, roll_deg=_roll(rng))
    return _finish(make, room, parts + _fittings(make, room), aim), pose


def _corridor(rng) -> tuple[Scene, Pose]:
    """Return a corridor seen along its length."""
    make = Workshop(rng)
    width, length, height = rng.uniform(1.3, 3.6), rng.uniform(5, 22), rng.uniform(2.2, 3.2)
    room = _shell(make, width, length, height)
    parts = _fittings(make, room)
    for side in range(4):
        parts += _decorated_wall(make, room, side, rng.uniform(0.7, 2.0))
    for _ in range(rng.randrange(0, 5)):
        side = rng.choice([0.25, width - 0.25])
        spot = (side, rng.uniform(1, length), 90.0 if side < 1 else -90.0)
        parts += _furniture_piece(make, *spot)
    if rng.random() < 0.5:  # a corner: part of the corridor is wall
        y = rng.uniform(0.3, 0.8) * length
        size = (width * rng.uniform(0.3, 0.6), rng.uniform(0.3, 3), height)
        side = rng.choice([0, width])
        parts.append(make.box(side, y + 1.5, 0, size, room.surfaces()[int(side > 0)]))
    lamp = Surface(tint=(0.9,) * 3, glow=rng.uniform(1.5, 5))
    for y in np.arange(rng.uniform(0.5, 2), length, rng.uniform(1.5, 4)):
        parts.append(
            make.box(width / 2, y, height - 0.03, (0.6, rng.uniform(0.2, 1.2), 0.03), lamp)
        )
    eye = np.array([rng.uniform(0.3, width - 0.3), rng.uniform(0.3, length * 0.5), 0])
    eye[2] = rng.choice([rng.uniform(0.2, 0.7), rng.uniform(1.0, 1.7), rng.uniform(1.0, 1.7)])
    azimuth, tilt = 90 + rng.gauss(0, 22), rng.gauss(-3, 9)
    pose = Pose.looking(eye, azimuth_deg=azimuth, tilt_deg=tilt, roll_deg=_roll(rng))
    focus = (width / 2, min(eye[1] + rng.uniform(1, 4), length - 0.4), 1)
    return _finish(make, room, parts, focus), pose


def _hall(rng) -> tuple[Scene, Pose]:
    """Return a hall, workshop or open-plan office, sparse, up to about 12 m."""
    make = Workshop(rng)
    size = rng.uniform(6, 14), rng.uniform(7, 16), rng.uniform(2.8, 6)
    room = _shell(make, *size)
    eye = np.array([rng.uniform(0.5, size[0] - 0.5), rng.uniform(0.5, 3), rng.uniform(0.2, 1.8)])
    parts = _furnish(make, room, rng.randrange(2, 14), keep_out=(*eye[:2], 1.0))
    for side in range(4):
        parts += _decorated_wall(make, room, side, rng.uniform(1.5, 4))
    for _ in range(rng.randrange(0, 4)):
        x, y = rng.uniform(0, size[0]), rng.uniform(3, size[1])
        wall = make.any_material()
        panel = (rng.uniform(1, 4), 0.06, rng.uniform(1.2, 2.5))
        parts.append(make.box(x, y, 0, panel, wall, yaw_deg=rng.choice([0, 90, 30])))
    aim = np.array([rng.uniform(0, size[0]), size[1] * rng.uniform(0.5, 1), rng.uniform(0, 2)])
    pose = Pose.looking_at(eye, aim, roll_deg=_roll(rng))
    return _finish(make, room, parts + _fittings(make, room), aim * 0.6 + eye * 0.4), pose


def _object(rng) -> tuple[Scene, Pose]:
    """Return one piece of furniture or a few boards on an empty floor, from 0.7 to 3 m."""
    make = Workshop(rng)
    size = rng.uniform(4, 9), rng.uniform(4, 9), rng.uniform(2.5, 3.5)
    room = _shell(make, *size)
    x, y = size[0] / 2 + rng.gauss(0, 0.5), size[1] / 2 + rng.gauss(0, 0.5)
    kind = rng.random()
    if kind < 0.5:
        box = (rng.uniform(0.35, 0.8), rng.uniform(0.4, 0.8), rng.uniform(0.4, 1.1))
        parts = make.cabinet(x, y, yaw_deg=rng.uniform(0, 360), size=box)
    elif kind < 0.75:
        parts = []
        for fold in range(rng.randrange(2, 6)):
            tall = (rng.uniform(0.6, 1.5), 0.02, rng.uniform(0.6, 1.8))
            lean, yaw = rng.choice([0, 0, -35, 35]), rng.choice([0, 90]) + rng.gauss(0, 30)
            board = make.surface(*PAINTS, 'folds', 'poster', *FABRICS)
            spot = (x + 0.7 * fold - 1 + rng.gauss(0, 0.2), y + rng.gauss(0, 0.4))
            parts.append(make.box(*spot, 0, tall, board, yaw_deg=yaw, pitch_deg=lean))
    else:
        parts = _furniture_piece(make, x, y, rng.uniform(0, 360))
    for side in range(4):
        parts += _decorated_wall(make, room, side, rng.uniform(1.5, 4))
    pose = _orbit(
        rng,
        (x, y, rng.uniform(0.2, 0.8)),
        distance=rng.log_uniform(0.7, 3.0),
        elevation_deg=rng.uniform(5, 60),
        azimuth_deg=rng.uniform(0, 360),
    )
    parts += _furnish(make, room, rng.randrange(0, 3), keep_out=(x, y, 1.8))
    return _finish(make, room, parts + _fittings(make, room), (x, y, 0)), pose


def _corner(rng) -> tuple[Scene, Pose]:
    """Return a wall, floor or corner from near, with little on it."""
    make = Workshop(rng)
    size = rng.uniform(2, 6), rng.uniform(2, 6), rng.uniform(2.2, 3.5)
    room = _shell(make, *size)
    if rng.random() < 0.6:
        quiet = Surface(tint=make.colour(0.2, 0.9, 0.3), contrast=rng.random())
        room = replace(room, faces=(quiet, quiet, quiet, quiet, *room.surfaces()[4:]))
    parts = _fittings(make, room)
    if rng.random() < 0.7:
        parts += _decorated_wall(make, room, 3, rng.uniform(0.6, 2.0))
    parts += _furnish(make, room, rng.randrange(0, 4))
    eye = np.array([rng.uniform(0.3, size[0] - 0.3), 0, rng.uniform(0.3, 1.7)])
    eye[1] = size[1] - min(rng.log_uniform(0.5, 2.5), size[1] - 0.3)
    azimuth, tilt = 90 + rng.gauss(0, 35), rng.gauss(-10, 20)
    pose = Pose.looking(eye, azimuth_deg=azimuth, tilt_deg=tilt, roll_deg=_roll(rng))
    return _finish(make, room, parts, eye), pose
