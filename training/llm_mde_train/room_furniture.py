"""
Things that stand in rooms, built from a few solids each.

`Workshop` draws random surfaces and things; every method that makes a thing returns its solids in
world coordinates, standing at (x, y, z) and turned by yaw_deg.
"""

from dataclasses import replace

import numpy as np

from llm_mde_train.room_scene import BALL, BOX, TUBE, Dice, Solid, Surface, spun, turned
from llm_mde_train.room_textures import COPIES

_STARTS = dict(zip(COPIES, np.cumsum([0, *COPIES.values()]).tolist(), strict=False))
PAINTS = ('plain', 'plain', 'plain', 'cloudy', 'grain', 'speckled')
FABRICS = ('carpet', 'weave', 'stripes', 'cloudy', 'dots', 'folds', 'plain')
PICTURES = ('poster', 'poster', 'clutter', 'page', 'screen')


class Workshop:
    """Makes furniture and clutter with the random numbers of one scene."""

    def __init__(self, rng: Dice):
        self.rng = rng
        self.accents = [self.colour() for _ in range(3)]
        self.wood = self._wood_colour()
        self.desk_is_white = rng.random() < 0.4

    # ---- surfaces

    def colour(self, low: float = 0.02, high: float = 0.9, saturation: float = 0.7):
        """Return a linear RGB colour, grey as often as vivid."""
        grey = self.rng.uniform(low, high)
        amount = saturation * self.rng.random() ** 2 * (0.3 + grey)
        hues = self.rng.uniforms(3, -0.8, 0.8)
        return tuple(min(max(grey + amount * hue, 0.008), 0.95) for hue in hues)

    def _wood_colour(self):
        light = self.rng.uniform(0.12, 0.75)
        return (light, light * self.rng.uniform(0.6, 0.85), light * self.rng.uniform(0.3, 0.65))

    def texture(self, *recipes: str) -> int:
        """Return the number of a random texture of one of the recipes."""
        recipe = recipes[self.rng.randrange(len(recipes))]
        return _STARTS[recipe] + int(self.rng.randrange(COPIES[recipe]))

    def surface(self, *recipes: str, tile_m=(0.3, 2.0), tint=None, gloss=0.0) -> Surface:
        """Return a repeating surface with tiles of a random size in the range."""
        rng = self.rng
        size = rng.log_uniform(*tile_m)
        return Surface(
            texture=self.texture(*recipes),
            tile_u_m=size,
            tile_v_m=size,
            shift=(rng.random(), rng.random()),
            turn_deg=rng.choice([0, 0, 0, 90, rng.uniform(0, 360)]),
            tint=self.colour() if tint is None else tint,
            contrast=rng.uniform(0.3, 1.1),
            gloss=gloss * rng.random(),
        )

    def picture(self, width_m: float, height_m: float, *recipes: str, tint=(0.9,) * 3, glow=0.0):
        """Return a surface that shows one texture exactly once on a face of that size."""
        return Surface(
            texture=self.texture(*recipes),
            tile_u_m=width_m,
            tile_v_m=height_m,
            shift=(0.5, 0.5),
            tint=tint,
            gloss=0.15 * self.rng.random(),
            glow=glow,
        )

    def painted(self) -> Surface:
        """Return furniture paint, metal or plastic: one of the scene's accents or a new colour."""
        rng = self.rng
        tint = self.accents[rng.randrange(3)] if rng.random() < 0.5 else self.colour(high=0.7)
        return self.surface(*PAINTS, tint=tint, gloss=0.3)

    def wooden(self) -> Surface:
        """Return the scene's wood, sometimes another one."""
        tint = self.wood if self.rng.random() < 0.7 else self._wood_colour()
        return self.surface('grain', 'planks', 'plain', tile_m=(0.4, 1.6), tint=tint, gloss=0.2)

    def any_material(self) -> Surface:
        """Return paint, wood or cloth."""
        kind = self.rng.random()
        if kind < 0.45:
            return self.painted()
        return self.wooden() if kind < 0.75 else self.surface(*FABRICS, tile_m=(0.1, 0.8))

    # ---- single solids

    def box(self, x, y, z, size, faces, *, yaw_deg=0.0, pitch_deg=0.0, offset=(0, 0, 0)) -> Solid:
        """Return a box standing at z with its frame at x, y; offset is in the turned frame."""
        dx, dy = spun(offset[0], offset[1], yaw_deg)
        centre = (float(x + dx), float(y + dy), float(z + offset[2] + size[2] / 2))
        half = tuple(max(side / 2, 0.0005) for side in size)
        return Solid(BOX, centre, half, faces, turned(yaw_deg, pitch_deg))

    def tube(self, x, y, z, radius, height, faces, *, yaw_deg=0.0, pitch_deg=0.0) -> Solid:
        """Return an upright (or pitched) tube standing at z."""
        half = (radius, radius, height / 2)
        centre = (float(x), float(y), float(z + height / 2))
        return Solid(TUBE, centre, half, faces, turned(yaw_deg, pitch_deg))

    def ball(self, x, y, z, half, faces, *, yaw_deg=0.0, pitch_deg=0.0) -> Solid:
        """Return a ball or ellipsoid around its centre."""
        return Solid(BALL, (float(x), float(y), float(z)), half, faces, turned(yaw_deg, pitch_deg))

    # ---- furniture

    def legs(self, x, y, z, width, depth, height, *, yaw_deg, thick, faces) -> list[Solid]:
        """Return four legs under a plate."""
        dx, dy = width / 2 - thick, depth / 2 - thick
        return [
            self.box(x, y, z, (thick, thick, height), faces, yaw_deg=yaw_deg, offset=(sx, sy, 0))
            for sx in (-dx, dx)
            for sy in (-dy, dy)
        ]

    def table(self, x, y, *, width, depth, height, yaw_deg) -> list[Solid]:
        """Return a table or desk: plate, and legs, side panels or a drawer unit."""
        rng = self.rng
        plate = self.surface('plain', 'grain', 'speckled', tint=(rng.uniform(0.55, 0.9),) * 3)
        plate = replace(plate, gloss=0.2 * rng.random()) if self.desk_is_white else self.wooden()
        thick = rng.uniform(0.015, 0.06)
        top = self.box(x, y, height - thick, (width, depth, thick), plate, yaw_deg=yaw_deg)
        frame = self.painted() if rng.random() < 0.6 else plate
        parts, below = [top], height - thick
        if rng.random() < 0.65:
            parts += self.legs(
                x, y, 0, width, depth, below, yaw_deg=yaw_deg, thick=rng.uniform(0.025, 0.08),
                faces=frame,
            )  # fmt: skip
        else:
            for side in (-1, 1):
                where = (side * (width / 2 - 0.02), 0, 0)
                size = (0.03, depth * 0.95, below)
                parts.append(self.box(x, y, 0, size, frame, yaw_deg=yaw_deg, offset=where))
        if rng.random() < 0.4:
            size = (0.4, depth * 0.8, min(0.6, below))
            where = (rng.choice([-1, 1]) * (width / 2 - 0.3), 0, 0)
            parts.append(
                self.box(x, y, 0, size, self.drawer_faces(size), yaw_deg=yaw_deg, offset=where)
            )
        return parts

    def drawer_faces(self, size) -> tuple[Surface, ...]:
        """Return faces of a cabinet with a drawn front."""
        body = self.painted() if self.rng.random() < 0.6 else self.wooden()
        front = self.picture(size[0], size[2], 'drawers', tint=body.tint)
        return (body, body, front, front if self.rng.random() < 0.3 else body, body, body)

    def cabinet(self, x, y, *, yaw_deg, size=None) -> list[Solid]:
        """Return a closed cabinet, sometimes with a plinth or things on it."""
        rng = self.rng
        size = size or (rng.uniform(0.4, 1.4), rng.uniform(0.35, 0.65), rng.uniform(0.5, 2.1))
        parts = [self.box(x, y, 0, size, self.drawer_faces(size), yaw_deg=yaw_deg)]
        if size[2] < 1.4 and rng.random() < 0.6:
            parts += self.things_on(x, y, size[2], size[0], size[1], yaw_deg=yaw_deg, count=3)
        return parts

    def shelf(self, x, y, *, yaw_deg) -> list[Solid]:
        """Return an open shelf: sides, back, boards, rows of books and boxes."""
        rng = self.rng
        width, depth, height = (
            rng.uniform(0.6, 1.6),
            rng.uniform(0.25, 0.45),
            rng.uniform(0.8, 2.2),
        )
        body, rows = self.wooden() if rng.random() < 0.6 else self.painted(), rng.randrange(2, 6)
        parts = [
            self.box(x, y, 0, (0.03, depth, height), body, yaw_deg=yaw_deg, offset=(sx, 0, 0))
            for sx in (-width / 2, width / 2)
        ]
        back = (0, depth / 2, 0)
        if rng.random() < 0.8:
            parts.append(
                self.box(x, y, 0, (width, 0.015, height), body, yaw_deg=yaw_deg, offset=back)
            )
        for z in np.linspace(0.05, height - 0.03, rows + 1):
            parts.append(self.box(x, y, z, (width, depth, 0.025), body, yaw_deg=yaw_deg))
        pitch = (height - 0.08) / rows
        for row in range(rows):
            z, start = 0.075 + row * pitch, -width / 2 + 0.03
            while start < width / 2 - 0.15 and rng.random() < 0.85:
                wide = min(rng.uniform(0.12, 0.7), width / 2 - start - 0.03)
                size = (wide, depth * rng.uniform(0.5, 0.85), pitch * rng.uniform(0.5, 0.85))
                where = (start + wide / 2, rng.uniform(-0.04, 0.02), 0)
                faces = self.picture(size[0], size[2], 'books', 'books', 'clutter', 'drawers')
                parts.append(self.box(x, y, z, size, faces, yaw_deg=yaw_deg, offset=where))
                start += wide + rng.choice([0.0, 0.02, 0.15])
        return parts

    def chair(self, x, y, *, yaw_deg) -> list[Solid]:
        """Return an office chair on a column or a chair with four legs."""
        rng = self.rng
        seat, frame = self.surface(*FABRICS, tile_m=(0.05, 0.5)), self.painted()
        height, width = rng.uniform(0.4, 0.52), rng.uniform(0.38, 0.55)
        parts = [self.box(x, y, height - 0.06, (width, width, 0.07), seat, yaw_deg=yaw_deg)]
        back_height, lean = rng.uniform(0.3, 0.6), rng.uniform(-15, 0)
        at = spun(0, -width / 2 + 0.03, yaw_deg)
        size = (width * rng.uniform(0.7, 1), 0.06, back_height)
        parts.append(
            self.box(x + at[0], y + at[1], height + rng.uniform(0.02, 0.18), size, seat,
                     yaw_deg=yaw_deg, pitch_deg=lean)
        )  # fmt: skip
        if rng.random() < 0.5:
            parts.append(self.tube(x, y, 0.08, 0.03, height - 0.12, frame))
            for spoke in range(0, 180, 60):
                size = (0.5, 0.04, 0.03)
                parts.append(self.box(x, y, 0.05, size, frame, yaw_deg=yaw_deg + spoke))
            if rng.random() < 0.5:
                for side in (-1, 1):
                    where = (side * width / 2, 0, 0)
                    parts.append(
                        self.box(x, y, height + 0.18, (0.05, 0.25, 0.03), frame,
                                 yaw_deg=yaw_deg, offset=where)
                    )  # fmt: skip
        else:
            parts += self.legs(
                x, y, 0, width, width, height - 0.06, yaw_deg=yaw_deg, thick=0.03, faces=frame
            )
        return parts

    def sofa(self, x, y, *, yaw_deg) -> list[Solid]:
        """Return a sofa or armchair with cushions."""
        rng = self.rng
        cloth = self.surface(*FABRICS, tile_m=(0.1, 0.8))
        width, depth, seat = rng.uniform(0.8, 2.2), rng.uniform(0.75, 1.0), rng.uniform(0.35, 0.48)
        back = (width, 0.22, rng.uniform(0.65, 0.95))
        parts = [
            self.box(x, y, 0.05, (width, depth, seat - 0.05), cloth, yaw_deg=yaw_deg),
            self.box(x, y, 0.05, back, cloth, yaw_deg=yaw_deg, offset=(0, -depth / 2 + 0.1, 0)),
        ]
        for side in (-1, 1):
            where = (side * (width / 2 - 0.08), 0, 0)
            size = (0.18, depth, rng.uniform(0.5, 0.68))
            parts.append(self.box(x, y, 0.05, size, cloth, yaw_deg=yaw_deg, offset=where))
        for _ in range(rng.randrange(0, 3)):
            at = spun(rng.uniform(-0.35, 0.35) * width, -0.1, yaw_deg)
            pillow = self.surface(*FABRICS, tile_m=(0.1, 0.5))
            parts.append(
                self.ball(x + at[0], y + at[1], seat + 0.17, (0.22, 0.09, 0.2), pillow,
                          yaw_deg=yaw_deg, pitch_deg=-20)
            )  # fmt: skip
        return parts

    def plant(self, x, y, z=0.0) -> list[Solid]:
        """Return a pot with a few leaves."""
        rng = self.rng
        size = rng.uniform(0.15, 0.5) if z == 0 else rng.uniform(0.06, 0.14)
        green = (rng.uniform(0.02, 0.2), rng.uniform(0.12, 0.4), rng.uniform(0.02, 0.12))
        parts = [self.tube(x, y, z, size * 0.45, size * 0.8, self.painted())]
        for _ in range(rng.randrange(4, 12)):
            leaf = self.surface('cloudy', 'grain', tint=green, tile_m=(0.1, 0.4))
            dx, dy = rng.normals(2, size * 0.45)
            half = (size * rng.uniform(0.1, 0.4), size * 0.05, size * rng.uniform(0.3, 0.8))
            up = z + size * rng.uniform(1.0, 2.4)
            parts.append(
                self.ball(x + dx, y + dy, up, half, leaf, yaw_deg=rng.uniform(0, 360),
                          pitch_deg=rng.uniform(-70, 70))
            )  # fmt: skip
        return parts

    def person(self, x, y, *, yaw_deg, seated: bool) -> list[Solid]:
        """Return a rough person: head, hair, trunk, arms, legs."""
        rng = self.rng
        tone = rng.uniform(0.15, 0.8)
        skin = Surface(tint=(tone, tone * 0.68, tone * 0.52), contrast=0.2)
        shirt = self.surface('plain', 'weave', 'stripes', 'folds', tile_m=(0.2, 0.8))
        dark = self.surface('plain', 'weave', tint=self.colour(0.01, 0.2))
        hip = 0.5 if seated else 0.85
        shoulder = hip + 0.55

        def at(dx, dy):
            turned_x, turned_y = spun(dx, dy, yaw_deg)
            return x + turned_x, y + turned_y

        parts = [
            self.ball(*at(0, 0), hip + 0.3, (0.21, 0.13, 0.36), shirt, yaw_deg=yaw_deg),
            self.ball(*at(0, 0.02), shoulder + 0.2, (0.085, 0.1, 0.125), skin, yaw_deg=yaw_deg),
            self.ball(*at(0, -0.01), shoulder + 0.25, (0.092, 0.105, 0.1), dark, yaw_deg=yaw_deg),
        ]
        for side in (-1, 1):
            arm = at(side * 0.24, 0.05)
            parts.append(self.ball(*arm, hip + 0.28, (0.055, 0.07, 0.3), shirt, yaw_deg=yaw_deg))
            leg = at(side * 0.1, 0.2 if seated else 0.0)
            half = (0.09, 0.28, 0.09) if seated else (0.09, 0.1, 0.45)
            z = hip if seated else 0.43
            parts.append(self.ball(*leg, z, half, dark, yaw_deg=yaw_deg))
        return parts

    # ---- things on tables

    def things_on(self, x, y, z, width, depth, *, yaw_deg, count) -> list[Solid]:
        """Return clutter on a plate of that size."""
        rng, parts = self.rng, []
        makers = [self.monitor, self.keyboard, self.book, self.book, self.paper, self.paper,
                  self.cup, self.bottle, self.carton, self.carton, self.toy, self.lamp, self.cable,
                  self.gadget, self.gadget]  # fmt: skip
        for _ in range(count):
            along, across = rng.uniforms(2, -0.46, 0.46)
            dx, dy = spun(along * width, across * depth, yaw_deg)
            square = yaw_deg + 90 * rng.randrange(4) + rng.gauss(0, 12)
            turn = square if rng.random() < 0.6 else rng.uniform(0, 360)
            parts += makers[rng.randrange(len(makers))](x + dx, y + dy, z, yaw_deg=turn)
        return parts

    def monitor(self, x, y, z, *, yaw_deg) -> list[Solid]:
        """Return a flat screen on a foot."""
        rng = self.rng
        width = rng.uniform(0.35, 0.62)
        height, rise = width * rng.uniform(0.56, 0.8), rng.uniform(0.05, 0.16)
        body = Surface(tint=(rng.choice([0.015, 0.03, 0.3, 0.6]),) * 3, gloss=0.2 * rng.random())
        front = self.picture(width, height, 'screen', tint=(0.5,) * 3, glow=rng.uniform(0.2, 1.2))
        if rng.random() < 0.5:
            front = Surface(tint=(0.012,) * 3, gloss=0.25)
        lean = rng.uniform(-8, 12)
        screen = (width, 0.03, height)
        inner = (width * 0.94, 0.032, height * 0.92)
        parts = [
            self.box(x, y, z + rise, screen, body, yaw_deg=yaw_deg, pitch_deg=lean),
            self.box(x, y, z + rise + height * 0.045, inner, (body, body, front, body, body, body),
                     yaw_deg=yaw_deg, pitch_deg=lean),
            self.box(x, y, z, (0.06, 0.04, rise + 0.1), body, yaw_deg=yaw_deg,
                     offset=(0, 0.04, 0)),
        ]  # fmt: skip
        if rng.random() < 0.5:
            parts.append(self.tube(x, y, z, 0.12, 0.015, body))
        else:
            parts.append(self.box(x, y, z, (0.25, 0.18, 0.015), body, yaw_deg=yaw_deg))
        return parts

    def keyboard(self, x, y, z, *, yaw_deg) -> list[Solid]:
        """Return a keyboard and a mouse."""
        width, depth = self.rng.uniform(0.3, 0.46), self.rng.uniform(0.12, 0.18)
        keys = self.picture(width, depth, 'keyboard')
        side = spun(width / 2 + 0.09, 0, yaw_deg)
        mouse = (x + side[0], y + side[1], z + 0.012)
        return [
            self.box(x, y, z, (width, depth, 0.025), keys, yaw_deg=yaw_deg),
            self.ball(*mouse, (0.032, 0.055, 0.025), self.painted(), yaw_deg=yaw_deg),
        ]

    def book(self, x, y, z, *, yaw_deg) -> list[Solid]:
        """Return a stack of one to four books or folders."""
        parts, level = [], z
        for _ in range(self.rng.choice([1, 1, 2, 3, 4])):
            width, depth = self.rng.uniform(0.12, 0.24), self.rng.uniform(0.18, 0.32)
            thick = self.rng.uniform(0.008, 0.05)
            edge = Surface(tint=(0.8, 0.78, 0.7))
            cover = self.picture(width, depth, 'poster', 'poster', 'plain', tint=self.colour(0.4))
            faces = (edge, edge, edge, edge, cover, cover)
            turn = yaw_deg + self.rng.gauss(0, 8)
            parts.append(self.box(x, y, level, (width, depth, thick), faces, yaw_deg=turn))
            level += thick
        return parts

    def paper(self, x, y, z, *, yaw_deg) -> list[Solid]:
        """Return one to three sheets of paper."""
        parts = []
        for sheet in range(self.rng.randrange(1, 4)):
            dx, dy = self.rng.normals(2, 0.07 * (sheet > 0))
            page = self.picture(0.21, 0.297, 'page')
            size = (0.21, 0.297, 0.001 + 0.0015 * sheet)
            turn = yaw_deg + self.rng.gauss(0, 15)
            parts.append(self.box(x + dx, y + dy, z, size, page, yaw_deg=turn))
        return parts

    def cup(self, x, y, z, *, yaw_deg) -> list[Solid]:
        """Return a mug with a handle."""
        radius, height = self.rng.uniform(0.03, 0.05), self.rng.uniform(0.07, 0.13)
        china = self.surface('plain', 'stripes', 'poster', 'dots', tile_m=(0.05, 0.3), gloss=0.4)
        side = spun(radius + 0.012, 0, yaw_deg)
        handle = (0.03, 0.012, height * 0.6)
        return [
            self.tube(x, y, z, radius, height, (china,) * 5 + (Surface(tint=(0.05, 0.04, 0.03)),)),
            self.box(x + side[0], y + side[1], z + height * 0.2, handle, china, yaw_deg=yaw_deg),
        ]

    def bottle(self, x, y, z, *, yaw_deg) -> list[Solid]:
        """Return a bottle or can: body, shoulder, neck."""
        radius, height = self.rng.uniform(0.025, 0.05), self.rng.uniform(0.1, 0.28)
        glass = self.surface('plain', 'stripes', 'poster', tile_m=(0.08, 0.3), gloss=0.6)
        body = self.tube(x, y, z, radius, height * 0.7, glass, yaw_deg=yaw_deg)
        if height < 0.16:
            return [body]
        shoulder = self.ball(x, y, z + height * 0.7, (radius, radius, radius), glass)
        return [body, shoulder, self.tube(x, y, z, radius * 0.35, height, self.painted())]

    def carton(self, x, y, z, *, yaw_deg) -> list[Solid]:
        """Return a box of any shape, printed or plain."""
        size = tuple(self.rng.log_uniform(0.04, 0.32) for _ in range(3))
        faces = self.any_material()
        if self.rng.random() < 0.6:
            faces = self.picture(size[0], size[2], *PICTURES, tint=self.colour(0.4, 0.95))
        return [self.box(x, y, z, size, faces, yaw_deg=yaw_deg)]

    def toy(self, x, y, z, *, yaw_deg) -> list[Solid]:
        """Return a ball or a few joined blobs (a toy animal, fruit, a bag)."""
        rng = self.rng
        size, skin = rng.uniform(0.03, 0.12), self.surface(*FABRICS, 'poster', tile_m=(0.05, 0.3))
        parts = [self.ball(x, y, z + size, (size,) * 3, skin, yaw_deg=yaw_deg)]
        for _ in range(rng.choice([0, 0, 3, 5])):
            dx, dy = rng.normals(2, size * 0.7)
            half = tuple(rng.uniforms(3, 0.3 * size, 0.8 * size))
            parts.append(self.ball(x + dx, y + dy, z + size * rng.uniform(0.4, 2.2), half, skin))
        return parts

    def lamp(self, x, y, z, *, yaw_deg) -> list[Solid]:
        """Return a desk lamp: foot, leaning arm, shade."""
        metal, height = self.painted(), self.rng.uniform(0.25, 0.5)
        shade = self.surface('plain', 'folds', tint=self.colour(0.3))
        return [
            self.tube(x, y, z, 0.08, 0.02, metal),
            self.tube(x, y, z, 0.01, height, metal, yaw_deg=yaw_deg, pitch_deg=15),
            self.tube(x, y, z + height - 0.05, self.rng.uniform(0.05, 0.14), 0.13, shade),
        ]

    def cable(self, x, y, z, *, yaw_deg) -> list[Solid]:
        """Return a few thin dark segments lying on the plate."""
        parts, rubber = [], Surface(tint=(self.rng.choice([0.02, 0.02, 0.5]),) * 3)
        for _ in range(self.rng.randrange(2, 6)):
            length = self.rng.uniform(0.05, 0.2)
            parts.append(self.box(x, y, z, (length, 0.007, 0.007), rubber, yaw_deg=yaw_deg))
            dx, dy = spun(length / 2, 0, yaw_deg)
            x, y, yaw_deg = x + dx, y + dy, yaw_deg + self.rng.gauss(0, 40)
        return parts

    def gadget(self, x, y, z, *, yaw_deg) -> list[Solid]:
        """Return a small device: a phone, a stapler, a roll, a game pad."""
        rng = self.rng
        dark = self.surface('plain', 'keyboard', 'drawers', tile_m=(0.05, 0.2))
        kind = rng.random()
        if kind < 0.4:
            size = (rng.uniform(0.05, 0.2), rng.uniform(0.05, 0.25), rng.uniform(0.01, 0.08))
            slope = rng.choice([0, 0, 12])
            return [self.box(x, y, z, size, dark, yaw_deg=yaw_deg, pitch_deg=slope)]
        if kind < 0.7:
            return [self.tube(x, y, z, rng.uniform(0.02, 0.07), rng.uniform(0.02, 0.08), dark)]
        half = tuple(rng.uniforms(3, 0.02, 0.08))
        return [self.ball(x, y, z + half[2] * 0.8, half, dark, yaw_deg=yaw_deg)]
