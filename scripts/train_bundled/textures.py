"""Textures: everything is drawn by formulas and seeds, nothing is taken from anywhere.

A *kind* of texture is a small random program: a family, its parameters, and what is done to it afterwards.
A *tile* is one draw of a kind: grey, periodic, `TILE` pixels a side.
"""

import math
import multiprocessing

import torch

TILE = 160
FAMILIES = ["noise", "ridges", "gratings", "cells", "stamps", "marks", "fractal"]
# What lies on them.
DEFECTS = ["none", "scratch", "spot", "stain", "dent", "crack"]
# What scenes are made of.
SHAPES = ["ground", "ellipse", "box", "polygon", "star", "ring", "blob", "bar"]


def uniform(g, low, high, shape=(), device="cpu"):
    return low + (high - low) * torch.rand(shape, generator=g, device=device)


def pick(g, n, weights=None):
    weights = torch.ones(n) if weights is None else torch.tensor(weights)
    return int(torch.multinomial(weights, 1, generator=g))


def standard(x):
    """Mean 0 and deviation 1 of each picture."""
    x = x - x.mean((-1, -2), keepdim=True)
    return x / (x.std((-1, -2), keepdim=True) + 1e-6)


# ------------------------------------------------------------------------------------------ tiles
def band_noise(g, n, centre, width, slope, angle, stretch):
    """Noise with a given spectrum: around `centre` waves a tile, `width` octaves, stretched along an angle."""
    f = torch.fft.fftfreq(TILE) * TILE
    fy, fx = torch.meshgrid(f, f, indexing="ij")
    c, s = math.cos(angle), math.sin(angle)
    u, v = c * fx + s * fy, (c * fy - s * fx) * stretch
    r = torch.sqrt(u * u + v * v).clamp_min(0.5)
    spectrum = torch.exp(-((torch.log2(r / centre) / width) ** 2)) * r ** (-slope)
    white = torch.fft.fft2(torch.randn((n, TILE, TILE), generator=g))
    return standard(torch.fft.ifft2(white * spectrum).real)


def nearest(g, n, count, jitter, stretch=1.0, angle=0.0):
    """Of each pixel: distances to the two nearest of `count` points on the torus, the vector from the nearest
    and its number."""
    side = max(2, round(math.sqrt(count)))
    grid = torch.stack(
        torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij"), -1
    ).reshape(-1, 2)
    points = (grid + 0.5 + jitter * (torch.rand((n, side * side, 2), generator=g) - 0.5)) * (
        TILE / side
    )
    y, x = torch.meshgrid(torch.arange(TILE), torch.arange(TILE), indexing="ij")
    pixels = torch.stack([y, x], -1).float() + 0.5
    c, s = math.cos(angle), math.sin(angle)
    first = torch.full((n, TILE, TILE), 1e9)
    second = first.clone()
    number = torch.zeros((n, TILE, TILE), dtype=torch.long)
    vector = torch.zeros((n, TILE, TILE, 2))
    for k in range(points.shape[1]):
        d = pixels - points[:, k, None, None, :]
        d = d - TILE * torch.round(d / TILE)
        a, b = c * d[..., 1] + s * d[..., 0], (c * d[..., 0] - s * d[..., 1]) * stretch
        r = torch.sqrt(a * a + b * b)
        closer = r < first
        second = torch.where(closer, first, torch.minimum(second, r))
        vector = torch.where(closer[..., None], torch.stack([b, a], -1), vector)
        number = torch.where(closer, k, number)
        first = torch.where(closer, r, first)
    return first, second, vector, number, TILE / side


def figure(shape, p, q, size, sharp):
    """A small figure around the origin, as a signed distance in units of `size` (negative inside)."""
    p, q = p / size, q / size
    r = torch.sqrt(p * p + q * q)
    if shape == 0:
        return r - 1
    if shape == 1:
        return torch.maximum(p.abs(), q.abs()) - 0.9
    if shape == 2:
        return torch.maximum(p.abs() - 0.25, q.abs() - 1.1)
    if shape == 3:
        return (r - 0.8).abs() - 0.25
    if shape == 4:
        return torch.minimum(
            torch.maximum(p.abs() - 0.25, q.abs() - 1), torch.maximum(q.abs() - 0.25, p.abs() - 1)
        )
    if shape == 5:
        return torch.maximum(q * 0.5 + p.abs() * 0.87, -q) - 0.5
    a = torch.atan2(p, q)
    return r - 0.7 - 0.3 * torch.cos(a * sharp)


class Kind:
    """One kind of texture: a program drawn by its number."""

    def __init__(self, number):
        g = torch.Generator().manual_seed(1_000_003 + number)
        u = lambda low, high: float(uniform(g, low, high))
        self.family = FAMILIES[number % len(FAMILIES)]
        self.centre, self.width = 2 ** u(1.5, 5.0), u(0.25, 1.2)
        self.slope, self.angle = u(0, 1.5), u(0, math.pi)
        self.stretch = 1.0 if u(0, 1) < 0.5 else 2 ** u(0.7, 3)
        self.count, self.jitter = int(2 ** u(3, 7)), u(0, 1) ** 0.5 * (u(0, 1) > 0.2)
        self.mode, self.shape = pick(g, 5), pick(g, 7)
        self.size, self.sharp = u(0.2, 0.5), 3 + pick(g, 5)
        self.turn = pick(g, 3)
        self.waves = [(2 ** u(1.5, 4.5), u(0, math.pi)) for _ in range(1 + pick(g, 3))]
        self.duty = u(-0.7, 0.7)
        self.warp = 0.0 if u(0, 1) < 0.5 else u(2, 9)
        self.warp_centre = u(2, 6)
        self.light = u(0, 1) < 0.35
        self.light_angle = u(0, 2 * math.pi)
        self.mix = u(0, 1) < 0.3
        self.maps = [self._map(g) for _ in range(2 + pick(g, 3))]

    @staticmethod
    def _map(g):
        """A contraction for a fractal."""
        a, b = uniform(g, 0.3, 0.8), uniform(g, 0.2, 0.7)
        t, f = uniform(g, 0, 2 * math.pi), uniform(g, 0, 2 * math.pi)
        rotate = lambda t: torch.stack(
            [torch.stack([t.cos(), -t.sin()]), torch.stack([t.sin(), t.cos()])]
        )
        return rotate(t) @ torch.diag(torch.stack([a, b])) @ rotate(f), uniform(g, -1, 1, (2,))

    def tiles(self, n, seed):
        """`n` draws, `[n, TILE, TILE]` in 0..1."""
        g = torch.Generator().manual_seed(seed)
        x = getattr(self, "_" + self.family)(g, n)
        if self.mix:
            x = standard(x) + 0.5 * band_noise(g, n, 20, 1.5, 0.5, 0, 1)
        if self.warp:
            x = self._warped(g, x)
        if self.light:
            dx = torch.roll(x, -1, -1) - torch.roll(x, 1, -1)
            dy = torch.roll(x, -1, -2) - torch.roll(x, 1, -2)
            x = math.cos(self.light_angle) * dx + math.sin(self.light_angle) * dy
        x = standard(x).clamp(-3, 3)
        low, high = x.amin((1, 2), keepdim=True), x.amax((1, 2), keepdim=True)
        return (x - low) / (high - low + 1e-6)

    def _warped(self, g, x):
        n = len(x)
        shift = self.warp * torch.stack(
            [band_noise(g, n, self.warp_centre, 0.5, 0, 0, 1) for _ in range(2)], -1
        )
        y0, x0 = torch.meshgrid(torch.arange(TILE), torch.arange(TILE), indexing="ij")
        yy = (y0 + shift[..., 0]).round().long() % TILE
        xx = (x0 + shift[..., 1]).round().long() % TILE
        return x[torch.arange(n)[:, None, None], yy, xx]

    def _noise(self, g, n):
        x = band_noise(g, n, self.centre, self.width, self.slope, self.angle, self.stretch)
        return [x, x.sign(), x.clamp_min(self.duty), torch.sin(3 * x), x**3][self.mode]

    def _ridges(self, g, n):
        x = band_noise(g, n, self.centre, self.width, 0, self.angle, self.stretch)
        line = torch.exp(-(((x - self.duty) / (0.1 + 0.2 * self.size)) ** 2))
        return [
            line,
            -x.abs(),
            line * (band_noise(g, n, 4, 1, 0, 0, 1) > 0),
            (x.abs() > 0.6).float(),
            x.abs() ** 0.3,
        ][self.mode]

    def _gratings(self, g, n):
        y, x = torch.meshgrid(torch.arange(TILE), torch.arange(TILE), indexing="ij")
        waves = []
        for frequency, angle in self.waves:
            # Whole numbers of waves, so that the tile is periodic.
            kx, ky = round(frequency * math.cos(angle)), round(frequency * math.sin(angle))
            phase = uniform(g, 0, 2 * math.pi, (n, 1, 1))
            waves.append(torch.cos(2 * math.pi * (kx * x + ky * y) / TILE + phase))
        w = torch.stack(waves)
        return [
            w.sum(0),
            (w > self.duty).float().sum(0),
            w.amax(0),
            w.prod(0),
            (w > self.duty).float().prod(0),
        ][self.mode]

    def _cells(self, g, n):
        first, second, _, number, pitch = nearest(
            g, n, self.count, self.jitter, self.stretch, self.angle
        )
        grey = (
            torch.rand((n, int(number.max()) + 1), generator=g)
            .gather(1, number.flatten(1))
            .view_as(first)
        )
        gap = (second - first) / pitch
        return [first, gap, grey, grey * (gap > 0.15), (gap < 0.12 + 0.3 * self.size).float()][
            self.mode
        ]

    def _stamps(self, g, n):
        _, _, v, number, pitch = nearest(g, n, self.count, self.jitter)
        cells = int(number.max()) + 1
        spread = [0.0, 0.3, math.pi][self.turn]
        t = (
            (self.angle + spread * (2 * torch.rand((n, cells), generator=g) - 1))
            .gather(1, number.flatten(1))
            .view_as(v[..., 0])
        )
        p, q = t.cos() * v[..., 0] - t.sin() * v[..., 1], t.sin() * v[..., 0] + t.cos() * v[..., 1]
        d = figure(self.shape, p, q, self.size * pitch, self.sharp)
        fill = torch.sigmoid(-8 * d)
        grey = torch.rand((n, cells), generator=g).gather(1, number.flatten(1)).view_as(d)
        return [
            fill,
            torch.exp(-((4 * d) ** 2)),
            fill * grey,
            -d.clamp(-1, 1),
            fill * (0.5 + grey),
        ][self.mode]

    def _marks(self, g, n):
        """Strokes, long and short, over each other."""
        x = torch.zeros((n, TILE, TILE))
        for layer in range(4):
            jitter = max(self.jitter, 0.8)
            _, _, v, number, pitch = nearest(g, n, max(9, self.count // 2), jitter)
            cells = int(number.max()) + 1
            spread = [0.1, 0.6, math.pi][self.turn]
            t = (
                (self.angle + spread * (2 * torch.rand((n, cells), generator=g) - 1))
                .gather(1, number.flatten(1))
                .view_as(v[..., 0])
            )
            p, q = (
                t.cos() * v[..., 0] - t.sin() * v[..., 1],
                t.sin() * v[..., 0] + t.cos() * v[..., 1],
            )
            bend = (self.mode - 2) * 0.15 * q * q / pitch
            stroke = torch.sigmoid(2.5 * (0.6 + 3 * self.size - (p - bend).abs())) * torch.sigmoid(
                2 * (0.6 * pitch - q.abs())
            )
            x = torch.maximum(x, stroke) if self.mode % 2 else x + stroke
        return x

    def _fractal(self, g, n):
        walkers = 3000
        out = torch.zeros((n, TILE * TILE))
        p = torch.rand((n, walkers, 2), generator=g)
        scale = None
        for step in range(24):
            which = torch.randint(len(self.maps), (n, walkers), generator=g)
            a = torch.stack([m[0] for m in self.maps])[which]
            b = torch.stack([m[1] for m in self.maps])[which]
            p = (a @ p[..., None])[..., 0] + b
            if step < 8:
                continue
            if scale is None:
                flat = p.reshape(-1, 2)
                low, high = flat.quantile(0.01, 0), flat.quantile(0.99, 0)
                scale = TILE * (0.5 + self.size) / (high - low).clamp_min(1e-3)
                start = low - uniform(g, 0, 1, (n, 1, 2))
            pixel = ((p - start) * scale).long() % TILE
            out.scatter_add_(1, pixel[..., 0] * TILE + pixel[..., 1], torch.ones((n, walkers)))
        x = torch.log1p(out.view(n, TILE, TILE))
        return [x, x**0.5, (x > 0).float(), x**2, (x > 0.8).float()][self.mode]


def tiles_of(kind, draws, seed):
    torch.set_num_threads(1)
    tiles = Kind(kind).tiles(draws, seed * 1_000_000 + kind)
    return (tiles * 255).round().to(torch.uint8).numpy()


def bank(kinds, draws, seed):
    """All tiles, `[kinds * draws, TILE, TILE]` as bytes, drawn by all processors."""
    jobs = [(kind, draws, seed) for kind in range(kinds)]
    with multiprocessing.Pool() as pool:
        tiles = pool.starmap(tiles_of, jobs, chunksize=4)
    return torch.stack([torch.from_numpy(t) for t in tiles]).view(-1, TILE, TILE)
